"""The guardian process: who it listens to, when it ends, what it leaves behind."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from faulty_robot import SPEC, FaultyRobot, guarded
from guardian_process import ROOT, GuardianProcess

from export import guardian
from export.guarded_robot import GuardedRobot
from export.guardian import _Ear, serve
from export.safety import Fault
from robots import BackendError, RobotSpec, load_robot
from robots.backend import SensorReading
from robots.datagram import COMMAND, LARGEST, RESET, Message, encode, spec_mark
from robots.robot_yaml import parse_robot
from robots.udp import UdpBackend


def test_ends_with_its_lifeline(arm: RobotSpec, tmp_path: Path) -> None:
    """Closing its standard input ends it with exit code 0 where nobody drove."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock")
    assert process.ready["spec_sha256"] == arm.sha256
    assert process.end() == 0 and process.events() == []


def test_a_lifeline_that_ends_under_a_moving_robot(arm: RobotSpec, tmp_path: Path) -> None:
    """The robot is held, the reason is on record, and the exit code is not 0."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock")
    backend = UdpBackend(arm, process.address)
    backend.reset()
    backend.step(np.zeros(3))
    assert process.end() == 3
    (event,) = process.events()
    assert event["reason"] == "controller_lost"


def test_a_farewell_is_heard_though_the_end_comes_with_it() -> None:
    """A guardian that was busy meanwhile finds last command, farewell and end of its lifeline all at once."""
    robot, freed = FaultyRobot(), threading.Event()

    def slow(reading: SensorReading) -> SensorReading:
        freed.wait(10.0)
        return SensorReading(reading.values, time.monotonic_ns(), reading.sequence)

    with guarded(robot) as (address, events):
        with UdpBackend(SPEC, address, real_time=True) as backend:
            backend.reset()
            robot.tamper = slow
            backend.send(np.zeros(2))
            while not robot.sent:
                time.sleep(0.001)
            backend.send(np.zeros(2))
        threading.Timer(0.2, freed.set).start()  # by then the lifeline is closed, too
    assert freed.is_set() and events == [] and len(robot.sent) == 2


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "not now"), OSError(errno.EIO, "no such device")])
def test_a_drivers_trouble_is_not_taken_for_the_networks(error: OSError) -> None:
    """What a driver lets through ends the guardian, which closes the robot; it is neither silence nor a bad cable."""
    robot = FaultyRobot()

    def broken(reading: SensorReading) -> SensorReading:
        raise error

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket(sock.family, sock.type) as other:
        sock.bind(("127.0.0.1", 0))
        other.connect(sock.getsockname())
        guarded_robot = GuardedRobot(robot)
        ear = _Ear(guarded_robot, sock, 0)
        other.send(encode(Message(RESET, 0, np.full(1, -1.0)), spec_mark(SPEC)))
        assert ear.answer() and not ear.answer()  # the second time, nothing has come
        robot.tamper = broken
        other.send(encode(Message(COMMAND, 1, np.zeros(2)), spec_mark(SPEC)))
        with pytest.raises(OSError) as raised:
            ear.answer()
    assert raised.value is error and guarded_robot.events == []


@pytest.mark.parametrize(
    ("error", "reasons"),
    [
        (OSError(errno.EIO, "no such device"), ["limit_violation", "driver_failed"]),
        (BackendError("no such device"), ["limit_violation"]),  # a refusal of the guardian's own
    ],
)
def test_a_drivers_trouble_is_on_record(
    error: Exception,
    reasons: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what was told before it, when the guardian has ended; and the robot was closed."""

    def serve(robot: GuardedRobot, *arguments: object) -> None:
        tell = cast(Callable[[Fault], None], arguments[2])
        tell(Fault("limit_violation", "earlier", 1))
        raise error

    backend = FaultyRobot()
    monkeypatch.setattr(guardian, "serve", serve)
    monkeypatch.setattr(guardian, "open_backend", lambda *_, **__: backend)
    monkeypatch.setattr(guardian, "read_spec", lambda *_: SPEC)
    for name in ("set_wakeup_fd", "signal"):  # this process keeps its own
        monkeypatch.setattr(guardian.signal, name, lambda *_: None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 0))
    monkeypatch.setattr(sys, "argv", ["guardian", "--robot", "any", "--events", str(tmp_path / "events")])
    with pytest.raises(SystemExit) as ended:
        guardian.main()
    assert ended.value.code == 2 and "no such device" in capsys.readouterr().err and backend.closed
    lines = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [line["reason"] for line in lines] == reasons
    assert len(lines) == 1 or "no such device" in lines[1]["detail"]


@pytest.mark.parametrize("broken", ["recvfrom", "sendto"])
def test_trouble_on_the_cable_is_told_of(broken: str) -> None:
    """And nothing else happens: the watchdog is there for a controller that is not heard."""
    reset = encode(Message(RESET, 0, np.full(1, -1.0)), spec_mark(SPEC))

    def fail(*_: object) -> None:
        raise OSError(errno.ENETDOWN, "the cable is out")

    calls = {"recvfrom": lambda *_: (reset, ("127.0.0.1", 1)), "sendto": lambda *_: None, broken: fail}
    robot = GuardedRobot(FaultyRobot())
    assert _Ear(robot, cast(socket.socket, SimpleNamespace(**calls)), 0).answer()
    (event,) = robot.events
    assert event.reason == "network" and "the cable is out" in event.detail
    assert robot.running == (robot.safety.fault is None) == (broken == "sendto")


def test_the_controller_is_waited_for_awake_when_it_should_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A period after it spoke last, and for a while sooner and later; else the guardian rests until it has to act."""
    at = [10**9]
    monkeypatch.setattr(time, "monotonic_ns", lambda: at[0])
    robot = GuardedRobot(FaultyRobot(), now=lambda: at[0])
    period, awake = robot.period_ns, 200_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket(sock.family, sock.type) as other:
        sock.bind(("127.0.0.1", 0))
        other.connect(sock.getsockname())
        ear, asleep = _Ear(robot, sock, awake), _Ear(robot, sock, 0)
        assert ear.rest_until_ns is None  # nobody drives
        for number, kind in enumerate((RESET, COMMAND)):
            other.send(encode(Message(kind, number, np.zeros(2 if kind == COMMAND else 1)), spec_mark(SPEC)))
            assert ear.answer() and other.recv(LARGEST)
        due = robot.due_ns
        assert due is not None and due > at[0] + period + awake
        assert ear.rest_until_ns == at[0] + period - awake and asleep.rest_until_ns == due

        def passing() -> int:
            at[0] += 1000
            if at[0] == spoken:
                other.send(encode(Message(COMMAND, 2, np.zeros(2)), spec_mark(SPEC)))
            return at[0]

        monkeypatch.setattr(time, "monotonic_ns", passing)
        expected = at[0] + period
        spoken = expected + 150_000
        at[0] = expected - awake - 5000
        ear.listen()  # too soon
        assert at[0] == expected - awake - 4000
        at[0] = expected - awake
        ear.listen()
        assert spoken < at[0] < spoken + 50_000 and other.recv(LARGEST)
        at[0] = expected = at[0] + period
        ear.listen()  # in vain
        assert expected + awake - 50_000 < at[0] < expected + awake + 50_000
        assert ear.rest_until_ns == robot.due_ns


def test_in_real_time_it_serves_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits awake for the next command; otherwise it only rests."""
    seen: list[int] = []
    monkeypatch.setattr(guardian, "serve", lambda *arguments: seen.append(arguments[5]))
    monkeypatch.setattr(guardian, "available_cpus", lambda: 2)
    for name in ("set_wakeup_fd", "signal"):  # this process keeps its own
        monkeypatch.setattr(guardian.signal, name, lambda *_: None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 0))
    common = ["guardian", "--robot", "walker", "--backend", "mock"]
    for wish in ([], ["--realtime"]):
        monkeypatch.setattr(sys, "argv", [*common, *wish])
        guardian.main()
    assert seen == [0, 200_000]


def test_listening_is_what_it_does_when_nothing_woke_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rest ends sooner than the next command comes, and then it listens."""
    listened = threading.Event()
    monkeypatch.setattr(_Ear, "listen", lambda _: listened.set())
    ours, lifeline = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        robot = GuardedRobot(FaultyRobot())
        thread = threading.Thread(target=serve, args=(robot, sock, ours, lambda _: None, None, 200_000))
        thread.start()
        with UdpBackend(SPEC, f"127.0.0.1:{sock.getsockname()[1]}") as backend:
            backend.reset()
            assert listened.wait(5.0)
        os.close(lifeline)
        thread.join(10.0)
        os.close(ours)


@pytest.mark.parametrize("source", ["file", os.devnull])
def test_a_lifeline_must_be_something_that_ends(source: str, tmp_path: Path) -> None:
    """A file is at its end from the beginning, which would tell nothing: the guardian does not start."""
    path = tmp_path / "file" if source == "file" else Path(source)
    path.touch()
    with (
        open(path, "rb") as lifeline,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(BackendError, match="pipe or terminal"),
    ):
        serve(GuardedRobot(FaultyRobot()), sock, lifeline.fileno(), lambda _: None)


def test_in_real_time_it_asks_for_priority_and_memory(arm: RobotSpec, tmp_path: Path) -> None:
    """It goes before the controller, whose loss it must see; what it was granted stands in its first line."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock", "--realtime")
    assert set(process.ready["granted"]) == {"memory lock", "SCHED_FIFO 60"}
    assert process.end() == 0


def test_it_leaves_the_controllers_core_alone(arm: RobotSpec, tmp_path: Path) -> None:
    """Who waits awake, before all others, must not do so where the controller has to work."""
    cores = os.sched_getaffinity(0)
    core = max(cores)
    process = GuardianProcess(arm, tmp_path, "--backend", "mock", "--leave-cpu", str(core))
    if len(cores) > 1:
        assert process.ready["granted"] == {f"off core {core}": "granted"}
        assert os.sched_getaffinity(process.ready["pid"]) == cores - {core}
    else:
        assert process.ready["granted"] == {f"off core {core}": "refused: there is no other"}
    assert process.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_in_order(arm: RobotSpec, tmp_path: Path, number: signal.Signals) -> None:
    """A signal is an end like any other; the last one is what a lost ssh session leaves behind."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock")
    process.process.send_signal(number)
    assert process.process.wait(20) == 0
    process.end()


def test_under_nohup_a_lost_terminal_does_not_end_it(arm: RobotSpec, tmp_path: Path) -> None:
    """Its lifeline does, as ever."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock", nohup=True)
    process.process.send_signal(signal.SIGHUP)
    backend = UdpBackend(arm, process.address)
    assert backend.reset().sequence >= 0
    backend.close()
    assert process.process.poll() is None and process.end() == 0


def test_a_signal_under_a_moving_robot_holds_it(arm: RobotSpec, tmp_path: Path) -> None:
    """A terminal that is lost takes the controller with it: the robot is held, and why is on record."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock")
    backend = UdpBackend(arm, process.address)
    backend.reset()
    backend.step(np.zeros(3))
    process.process.send_signal(signal.SIGHUP)
    assert process.process.wait(20) == 3
    process.end()
    assert [event["reason"] for event in process.events()] == ["controller_lost"]


def test_a_terminal_does_not_stop_it_for_a_while(arm: RobotSpec, tmp_path: Path) -> None:
    """Neither Ctrl-Z nor reading or writing at the wrong time: a process that is stopped holds no robot."""
    with GuardianProcess(arm, tmp_path, "--backend", "mock") as process:
        status = Path(f"/proc/{process.ready['pid']}/status").read_text()
        (ignored,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn")]
        for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            assert ignored >> number - 1 & 1, number


def in_a_terminal(script: str, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A Python script that is the foreground of a terminal of its own, and the terminal's other end."""
    ours, terminal = os.openpty()
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + script
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    return process, ours


GUARDIAN = "[sys.executable, '-m', 'export.guardian', '--robot', 'cartpole', '--backend', 'mock']"


def test_the_background_of_a_terminal_is_refused() -> None:
    """Whoever types there would stop it, or it would miss the terminal's end: it says how to start it instead."""
    script = f"import subprocess, sys; sys.exit(subprocess.run({GUARDIAN}, process_group=0, timeout=20).returncode)"
    process, ours = in_a_terminal(script)
    said, errors = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 2 and said == "", errors
    assert "background of a terminal" in errors and "sleep infinity |" in errors and errors.count("\n") == 1


def test_a_terminal_that_hangs_up_ends_it() -> None:
    """In its foreground it runs, whatever is typed; when the terminal goes, by its signal and by its error, it ends."""
    process, ours = in_a_terminal(f"import os, sys; os.execvp(sys.executable, {GUARDIAN})")
    assert process.stdout is not None
    assert '"robot": "cartpole"' in process.stdout.readline()
    os.write(ours, b"somebody types\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    os.close(ours)
    assert process.wait(20) == 0
    process.communicate()


def test_a_lifeline_that_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal's end may be an error of reading it; that nothing can be read just now is no end."""
    said: list[OSError] = [BlockingIOError(errno.EAGAIN, "not now"), OSError(errno.EIO, "Input/output error")]
    read, (ours, lifeline) = os.read, os.pipe()

    def hung_up(fd: int, size: int) -> bytes:
        if fd != ours:
            return read(fd, size)
        raise said.pop(0)

    monkeypatch.setattr(os, "read", hung_up)
    os.write(lifeline, b"x")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        serve(GuardedRobot(FaultyRobot()), sock, ours, lambda _: None)
    assert said == []
    os.close(lifeline)
    os.close(ours)


def test_a_lost_terminal_does_not_cost_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot say it writes it down all the same."""

    def gone(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=gone, flush=gone))
    writer = guardian._EventWriter(tmp_path / "events")
    writer.tell(Fault("controller_lost", "its terminal is gone", 1))
    writer.finish()
    assert writer.failed is None and "controller_lost" in (tmp_path / "events").read_text()


UNMEASURED = {
    "name": "slider", "mjcf": "slider.xml", "control_dt": 0.02, "episode_seconds": 5,
    "observation": [{"name": "position", "joint_pos": ["rail"], "unit": "rad"}],
    "action": [{"actuator": "motor", "kind": "position", "unit": "rad", "scale": 1.0}],
}  # fmt: skip


def test_a_drive_that_could_be_anywhere_is_refused_on_a_robot(tmp_path: Path) -> None:
    """As `gcl deploy` does it, before anything is opened; who passes no command on may look at it."""
    wiring = {
        "robot": "slider", "driver": "serial", "serial": {"port": str(tmp_path / "nothing"), "protocol": "feetech"},
        "joints": {"rail": {"source": "1"}, "motor": {"source": "2"}},
    }  # fmt: skip
    (tmp_path / "robot.json").write_text(json.dumps(parse_robot(UNMEASURED).to_dict()))
    (tmp_path / "wiring.yaml").write_text(json.dumps(wiring))

    def refused(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "export.guardian", "--robot", str(tmp_path / "robot.json"), *words],
            cwd=ROOT, input="", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return f"{done.returncode} {done.stderr}"

    hardware = ["--hardware", str(tmp_path / "wiring.yaml")]
    for words in (hardware, [*hardware, "--backend", "serial"]):
        said = refused(*words)
        assert said.startswith("2 ") and "nothing measures where motor stands" in said
        assert "unmeasured: [motor]" in said
    assert "cannot use the serial port" in refused(*hardware, "--read-only")
    assert refused("--backend", "mock") == "0 "


def test_read_only_passes_nothing_on(arm: RobotSpec, tmp_path: Path) -> None:
    """What measures is never reset or told anything, whatever the controller says."""
    with (
        GuardianProcess(arm, tmp_path, "--backend", "mock", "--read-only") as process,
        UdpBackend(arm, process.address) as backend,
    ):
        first = backend.measure()
        backend.reset()
        readings = [backend.step(np.full(3, 0.7)) for _ in range(3)]
    assert [reading.values.tolist() for reading in readings] == [first.values.tolist()] * 3


def test_a_key_that_comes_on_standard_input(arm: RobotSpec, tmp_path: Path) -> None:
    """Only who has the key is answered."""
    key = bytes(range(32))
    process = subprocess.Popen(
        [sys.executable, "-m", "export.guardian", "--robot", "cartpole", "--backend", "mock", "--key-on-stdin"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(key.hex() + "\n")
    process.stdin.flush()
    address = f"127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    spec = load_robot("cartpole")
    with UdpBackend(spec, address, reset_timeout_seconds=0.3) as stranger, pytest.raises(BackendError, match="answer"):
        stranger.reset()
    with UdpBackend(spec, address, key=key) as friend:
        assert friend.reset().sequence == 0
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_record_that_cannot_be_written_does_not_stop_it(arm: RobotSpec, tmp_path: Path) -> None:
    """A full disk under the record of events leaves the robot held all the same."""
    process = GuardianProcess(arm, tmp_path, "--backend", "mock", "--events", "/dev/full")
    backend = UdpBackend(arm, process.address)
    backend.reset()
    backend.step(np.zeros(3))
    assert process.end() == 3


def test_another_robot_is_not_driven(arm: RobotSpec, tmp_path: Path) -> None:
    """A controller with another description of the robot gets no answer, so it cannot drive."""
    with GuardianProcess(arm, tmp_path, "--backend", "mock") as guardian:
        with UdpBackend(load_robot("reacher"), guardian.address, reset_timeout_seconds=0.3) as backend:
            with pytest.raises(BackendError, match="same robot"):
                backend.reset()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--robot", "cartpole", "--host", "0.0.0.0"], "--allow-remote and --key"),
        (["--robot", "cartpole", "--host", "0.0.0.0", "--allow-remote"], "--allow-remote and --key"),
        (["--robot", "cartpoel"], "cartpole"),
        (["--robot", "nothing.json"], "nothing.json"),
        (["--robot", "cartpole", "--port", "999999"], "listen"),
        (["--robot", "cartpole", "--key", "nowhere.key"], "nowhere.key"),
        (["--robot", "cartpole", "--key", "Makefile"], "16 to 64"),
    ],
)
def test_refusals_are_one_line(options: list[str], word: str) -> None:
    """What it cannot do it says in one line with exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "export.guardian", "--backend", "mock", *options],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert word in done.stderr and done.stderr.count("\n") == 1


def test_a_file_is_no_lifeline(tmp_path: Path) -> None:
    """An end of input that nobody could tell is refused."""
    empty = tmp_path / "empty"
    empty.touch()
    with open(empty) as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "export.guardian", "--backend", "mock", "--robot", "cartpole"],
            cwd=ROOT, stdin=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2 and "standard input" in done.stderr


def test_it_runs_where_only_numpy_and_yaml_are_installed() -> None:
    """A driver's own environment, such as LeRobot's, has to bring nothing else for it to be guarded."""
    code = (
        "import runpy, sys\n"
        "for name in ('click', 'rich', 'zarr', 'onnxruntime', 'torch', 'mujoco', 'dm_control', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['guardian', '--robot', 'cartpole', '--backend', 'mock']\n"
        "runpy.run_module('export.guardian', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '"robot": "cartpole"' in done.stdout, done.stderr
