"""DriverProcess keeps the contract, and a driver's crash, hang or refusal is an error here and never our end."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_contract import BackendContract
from crashing_driver import CrashingDriver

from robots import BackendError, SensorReading
from robots.backend import DriverEndedError
from robots.driver_process import DriverProcess
from robots.robot_yaml import load_robot

SPEC = load_robot("cartpole")
TESTS = Path(__file__).parents[1]
STILL = np.zeros(SPEC.act_dim)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process finds the driver by its module's name."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]))


def driven(hardware: Any, step_seconds: float = 2.0) -> DriverProcess:
    return DriverProcess(CrashingDriver, SPEC, hardware, step_seconds, 5.0)


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().split()


def recovered(backend: DriverProcess, command: np.ndarray = STILL, seconds: float = 20.0) -> SensorReading:
    """Steps until a newer reading comes; each on the way repeats the last one."""
    stale = backend.step(command)
    deadline = time.monotonic() + seconds
    while (reading := backend.step(command)).sequence == stale.sequence:
        assert time.monotonic() < deadline, "no new process reached the robot"
        assert reading is stale
        time.sleep(0.01)
    return reading


class TestDriverProcess(BackendContract):
    spec = SPEC

    def make(self, seed: int = 0) -> DriverProcess:
        return driven(seed)


def test_crash_is_said_once_and_survived(tmp_path: Path) -> None:
    """SIGSEGV: one DriverEndedError with the signal, then the last reading, then newer ones whose numbers go on."""
    with driven(tmp_path) as backend:
        backend.reset()
        last = [backend.step(STILL) for _ in range(3)][-1]
        first = backend.pid
        (tmp_path / "die").touch()
        with pytest.raises(DriverEndedError, match="SIGSEGV"):
            backend.step(STILL)
        reading = recovered(backend)
        assert reading.sequence == last.sequence + 1
        assert backend.pid != first
        assert backend.step(STILL).sequence == last.sequence + 2


def test_killed_between_steps(tmp_path: Path) -> None:
    """A process that is gone before it is asked is found by the next step; a reset comes back from it too."""
    with driven(tmp_path) as backend:
        backend.reset()
        os.kill(backend.pid, signal.SIGKILL)
        with pytest.raises(DriverEndedError, match="SIGKILL"):
            for _ in range(100):  # the first may still go into the pipe
                backend.step(STILL)
        assert backend.reset().sequence == 0
        assert backend.step(STILL).sequence == 1


def test_nothing_is_sent_before_the_robot_is_heard(tmp_path: Path) -> None:
    """Commands from before the crash die with it: the new process is told only what is commanded after its reading."""
    with driven(tmp_path) as backend:
        backend.reset()
        backend.step(STILL + 0.25)
        (tmp_path / "die").touch()
        with pytest.raises(DriverEndedError):
            backend.step(STILL + 0.5)
        recovered(backend, STILL + 0.75)
        assert told(tmp_path) == ["0.25"]
        backend.step(STILL + 1.0)
        assert told(tmp_path) == ["0.25", "1.0"]


def test_hang_repeats_the_reading_and_then_ends(tmp_path: Path) -> None:
    """A driver that does not answer costs a step its time-out and no more; after a second it is replaced."""
    with driven(tmp_path, step_seconds=0.02) as backend:
        last = backend.reset()
        (tmp_path / "hang").touch()
        started = time.monotonic()
        assert backend.step(STILL) is last
        assert time.monotonic() - started < 0.5
        with pytest.raises(DriverEndedError, match="did not answer"):
            while time.monotonic() - started < 20.0:
                assert backend.step(STILL) is last
        assert recovered(backend).sequence == last.sequence + 1


def test_a_late_answer_is_never_anothers(tmp_path: Path) -> None:
    """Measurements after a step that hangs repeat the reading, in a step's time, until that process is replaced."""
    with driven(tmp_path, step_seconds=0.02) as backend:
        last = backend.reset()
        (tmp_path / "slow").touch()
        started = time.monotonic()
        assert backend.step(STILL) is last and backend.measure() is last
        assert time.monotonic() - started < 0.5
        with pytest.raises(DriverEndedError, match="did not answer"):
            while time.monotonic() - started < 20.0:
                assert backend.measure() is last
        assert recovered(backend).sequence == last.sequence + 1


def test_nonsense_ends_the_process(tmp_path: Path) -> None:
    """A reading of another size is no reading: whoever sent it is replaced."""
    with driven(tmp_path) as backend:
        last = backend.reset()
        (tmp_path / "babble").touch()
        with pytest.raises(DriverEndedError, match="expected a reading"):
            backend.step(STILL)
        assert recovered(backend).sequence == last.sequence + 1


def test_refusals_are_ours(tmp_path: Path) -> None:
    """What the driver refuses is refused here in its words, at the start and in a step."""
    with driven(tmp_path) as backend, pytest.raises(BackendError, match="step before reset"):
        backend.step(STILL)
    (tmp_path / "refuse").touch()
    with pytest.raises(BackendError, match="no such robot"):
        driven(tmp_path)


def test_a_driver_with_a_fault_goes_on_being_asked(tmp_path: Path) -> None:
    """It is the driver that knows what it may still do for who holds the robot: each step reaches it."""
    with driven(tmp_path) as backend:
        backend.reset()
        (tmp_path / "fault").touch()
        for _ in range(3):
            with pytest.raises(BackendError, match="another robot speaks"):
                backend.step(STILL)
    assert told(tmp_path) == ["0.0", "0.0", "0.0", "closed"]


@pytest.mark.parametrize("crashed", [False, True], ids=["the same process", "a new process"])
def test_a_refused_reset_leaves_who_drives_driving(tmp_path: Path, crashed: bool) -> None:
    """A robot that is held goes on being held: the reading repeats, and once the robot is heard commands reach it."""
    with driven(tmp_path) as backend:
        backend.reset()
        last = backend.step(STILL)
        (tmp_path / "mute").touch()
        if crashed:
            (tmp_path / "die").touch()
            with pytest.raises(DriverEndedError):
                backend.step(STILL)
        for _ in range(2):
            with pytest.raises(BackendError, match="no reading"):
                backend.reset()
            assert backend.step(STILL + 0.25) is last and backend.measure() is last
        (tmp_path / "mute").unlink()
        assert recovered(backend).sequence == last.sequence + 1
        assert "0.25" not in told(tmp_path)
        backend.step(STILL + 0.5)
        assert told(tmp_path)[-1] == "0.5"
        assert backend.reset().sequence == 0 and backend.step(STILL).sequence == 1


def test_a_refused_first_reset_drives_nobody(tmp_path: Path) -> None:
    """With no reading to go on with, steps are refused, and nothing is asked of the robot behind one's back."""
    with driven(tmp_path) as backend:
        (tmp_path / "mute").touch()
        with pytest.raises(BackendError, match="no reading"):
            backend.reset()
        (tmp_path / "mute").unlink()
        with pytest.raises(BackendError, match="before reset"):
            backend.step(STILL)
        assert backend.reset().sequence == 0


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of processes: said once like any end of a driver, the reading repeats, and later there is one again."""
    with driven(tmp_path) as backend:
        last = backend.reset()

        def none(*_: object, **__: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

        with monkeypatch.context() as full:
            full.setattr(subprocess, "Popen", none)
            (tmp_path / "die").touch()
            with pytest.raises(DriverEndedError, match="SIGSEGV.*cannot be started: .*temporarily unavailable"):
                backend.step(STILL)
            assert backend.step(STILL) is last and backend.measure() is last
            with pytest.raises(BackendError, match="no driver's process"):
                _ = backend.pid
        assert recovered(backend).sequence == last.sequence + 1
        (tmp_path / "die").touch()
        with monkeypatch.context() as full:
            full.setattr(subprocess, "Popen", none)
            with pytest.raises(DriverEndedError):
                backend.step(STILL)
            with pytest.raises(DriverEndedError, match="cannot be started"):
                backend.reset()
            assert backend.step(STILL).sequence == last.sequence + 1  # who drives goes on after a refused reset
            with pytest.raises(DriverEndedError, match="cannot be started"):
                driven(tmp_path)
        assert backend.reset().sequence == 0
    assert "closed" in told(tmp_path)


def test_a_process_that_is_gone_before_it_is_told_what_to_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that ends at once has ended while it started, and no pipe breaks."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    start = subprocess.Popen

    def ended(*words: Any, **options: Any) -> Any:
        process = start(*words, **options)
        process.wait()
        return process

    monkeypatch.setattr(subprocess, "Popen", ended)
    with pytest.raises(DriverEndedError, match="ended while it started"):
        driven(tmp_path)


def test_new_process_that_is_refused_goes_on_trying(tmp_path: Path) -> None:
    """A robot that cannot be opened for a while after the crash is reached later."""
    with driven(tmp_path) as backend:
        backend.reset()
        (tmp_path / "refuse").touch()
        (tmp_path / "die").touch()
        with pytest.raises(DriverEndedError):
            backend.step(STILL)
        with pytest.raises(DriverEndedError, match="no such robot"):
            for _ in range(2000):
                backend.step(STILL)
                time.sleep(0.01)
        (tmp_path / "refuse").unlink()
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            try:
                if backend.step(STILL).sequence > 0:
                    return
            except DriverEndedError:
                continue  # the one that was on its way when the file went
            time.sleep(0.01)
        pytest.fail("no new process reached the robot")


def test_close_brings_the_robot_to_rest(tmp_path: Path) -> None:
    """The driver is closed in order, twice is allowed, and after it nothing is obeyed."""
    backend = driven(tmp_path)
    backend.reset()
    pid = backend.pid
    backend.close()
    backend.close()
    assert told(tmp_path) == ["closed"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(BackendError, match="closed"):
        backend.step(STILL)


@pytest.mark.parametrize("group", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP])
def test_signals_to_the_group_are_the_guardians(tmp_path: Path, group: signal.Signals) -> None:
    """Ctrl-C and Ctrl-Z, a lost terminal and systemd's stop reach the driver, too; it stays for its guardian."""
    with driven(tmp_path) as backend:
        backend.reset()
        os.kill(backend.pid, group)
        assert [backend.step(STILL).sequence for _ in range(3)] == [1, 2, 3]


def test_outlives_its_owner_by_a_rest(tmp_path: Path) -> None:
    """`kill -9` of who owns it: the driver closes, which brings its robot to rest, and ends."""
    script = (
        "import sys, time, pathlib; from robots.driver_process import DriverProcess; "
        "from robots.robot_yaml import load_robot; from crashing_driver import CrashingDriver; "
        "b = DriverProcess(CrashingDriver, load_robot('cartpole'), pathlib.Path(sys.argv[1]), 2.0, 5.0); "
        "b.reset(); print(b.pid, flush=True); time.sleep(3600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 10.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert told(tmp_path) == ["closed"]
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
