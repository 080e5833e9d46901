"""The observer outlives its controller and writes down how it ended, whatever happens to controller, disk or page."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from controller_process import ROOT, start_controller, write_row
from observer_process import ObserverProcess

from export.black_box import BlackBox, State
from robots.spec import RobotSpec


@pytest.fixture
def box(arm: RobotSpec) -> Iterator[BlackBox]:
    """A box of 200 rows."""
    made = BlackBox.create(arm, seconds=1.0, about={"bundle": "arm.bundle"})
    yield made
    made.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that must happen."""
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def reason_in(path: Path) -> str:
    with np.load(path, allow_pickle=False) as log:
        return str(log["reason"])


def test_a_killed_controller_leaves_its_log(box: BlackBox, tmp_path: Path) -> None:
    """After kill -9 of the controller the last rows are on the disk, with the reason and the state it died in."""
    log = tmp_path / "runs" / "flight.npz"
    controller = start_controller(box, 500)
    with ObserverProcess(box, log) as observer:
        until(lambda: box.status().ticks > 250, "the controller writes")
        controller.kill()
        controller.communicate()
        last = box.status().ticks
        report = observer.finish()
        assert observer.process.returncode == 0
    assert report == {
        "reason": "controller_lost: it went away while running", "logs": [str(log)], "errors": [],
    }  # fmt: skip
    assert reason_in(log) == report["reason"]
    with np.load(log, allow_pickle=False) as saved:
        assert len(saved["reward"]) == 199 and saved["sequence"][-1] in (last, last - 1)
        np.testing.assert_array_equal(saved["values"][:, 0], saved["sequence"])
        assert json.loads(str(saved["about"])) == {"bundle": "arm.bundle"}
        assert json.loads(str(saved["spec"]))["name"] == "arm" and saved["fault_reason"] == ""
    assert os.listdir(tmp_path / "runs") == ["flight.npz"]


def test_what_nobody_is_shown_is_not_worked_out(box: BlackBox, tmp_path: Path) -> None:
    """Without a page there is no feed for one, whose histograms would take the loop's time; a log there is."""
    code = "import sys\nfrom export import observer\nobserver.LiveFeed = None\nsys.exit(observer.main(sys.argv[1:]))"
    log = tmp_path / "flight.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--fd", str(box.fd), "--log", str(log), "--keep"],
        pass_fds=(box.fd,), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    box.set_state(State.RUNNING)
    write_row(box, 0)
    until(lambda: box.status().observer_heartbeat_ns > 0, "the observer watches")
    box.set_state(State.ENDED)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    assert json.loads(output.splitlines()[-1]) == {"reason": "ended", "logs": [str(log)], "errors": []}


def test_the_pipe_of_a_killed_controller_is_enough(arm: RobotSpec, tmp_path: Path) -> None:
    """The controller that started the observer is killed; nobody tells the observer, and it writes the log and ends."""
    log = tmp_path / "flight.npz"
    code = (
        "import os, sys\nfrom pathlib import Path\nsys.path.insert(0, 'tests')\n"
        "from controller_process import write_row\nfrom observer_process import ObserverProcess\n"
        "from export.black_box import BlackBox, State\nfrom robots import load_robot\n"
        "box = BlackBox.create(load_robot('cartpole'), 1.0)\nobserver = ObserverProcess(box, Path(sys.argv[1]))\n"
        "box.set_state(State.RUNNING)\nwrite_row(box, 0)\nprint(observer.ready['pid'], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", code, str(log)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == -9, process.stderr
    observer = int(process.stdout)
    until(lambda: not Path(f"/proc/{observer}").exists() or "State:\tZ" in _process_status(observer), "it ends")
    assert reason_in(log) == "controller_lost: it went away while running"


def _process_status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "State:\tZ"


@pytest.mark.parametrize("keep", [False, True])
def test_a_good_end_leaves_a_log_only_if_asked(box: BlackBox, tmp_path: Path, keep: bool) -> None:
    """A run that ended itself is logged with --keep and not without."""
    log = tmp_path / "flight.npz"
    with ObserverProcess(box, log, *(["--keep"] if keep else [])) as observer:
        assert start_controller(box, 1000, rows=60).wait() == 0
        report = observer.finish()
    assert report["reason"] == "ended" and report["logs"] == ([str(log)] if keep else [])
    assert log.exists() == keep
    if keep:
        with np.load(log) as saved:
            assert saved["sequence"].tolist() == list(range(60))


def test_a_fault_is_written_at_once_and_again_at_the_end(box: BlackBox, tmp_path: Path) -> None:
    """The log is there while the controller still holds the robot, and at the end it holds what came after, too."""
    log = tmp_path / "flight.npz"
    with ObserverProcess(box, log) as observer:
        controller = start_controller(box, 200, rows=150, fault_at=30)
        until(log.exists, "the fault is written")
        with np.load(log) as early:
            rows = len(early["reward"])
            assert str(early["reason"]) == "stale_reading: newest is 300 ms old"
            assert str(early["fault_reason"]) == "stale_reading" and early["fault_ns"] > 0
        assert controller.poll() is None and rows < 150
        controller.communicate()
        report = observer.finish()
    assert report["reason"] == "stale_reading: newest is 300 ms old" and report["logs"] == [str(log)]
    with np.load(log) as late:
        assert late["sequence"].tolist() == list(range(150))


def test_a_wish_is_a_log_of_its_own(box: BlackBox, tmp_path: Path) -> None:
    """Each request is written beside the log of the end, numbered, and the run goes on."""
    with ObserverProcess(box, tmp_path / "flight.npz") as observer:
        write_row(box, 0)
        for number in (1, 2):
            box.request_save()
            until((tmp_path / f"flight-{number}.npz").exists, "the wish is written")
        box.set_state(State.ENDED)
        assert observer.finish()["logs"] == [str(tmp_path / f"flight-{number}.npz") for number in (1, 2)]
    assert reason_in(tmp_path / "flight-1.npz") == "asked for"


def test_a_hung_controller_counts_as_lost(box: BlackBox, tmp_path: Path) -> None:
    """A controller that is there and does nothing is written down; when it goes on and ends well, so is that."""
    log = tmp_path / "flight.npz"
    controller = start_controller(box, 500)
    with ObserverProcess(box, log, "--lost-seconds", "0.3", "--keep") as observer:
        controller.send_signal(signal.SIGSTOP)
        until(log.exists, "the silence is written")
        assert reason_in(log).startswith("controller_lost: no heartbeat for ")
        controller.send_signal(signal.SIGCONT)
        controller.kill()
        controller.communicate()
        box.set_state(State.ENDED)
        assert observer.finish()["reason"] == "ended"
    assert reason_in(log) == "ended"


def test_a_wish_to_end_it_does_not_end_it(box: BlackBox, tmp_path: Path) -> None:
    """Ctrl-C and a service manager's SIGTERM reach the observer, too, which still has the controller's end to write."""
    with ObserverProcess(box, tmp_path / "flight.npz") as observer:
        for number in (signal.SIGINT, signal.SIGTERM):
            observer.process.send_signal(number)
        write_row(box, 0)
        seen = box.observer_heartbeat_ns
        until(lambda: box.observer_heartbeat_ns > seen, "it goes on")
        box.latch_fault("operator_stop", "SIGTERM", 1)
        box.set_state(State.ENDED)
        assert observer.finish()["logs"] == [str(tmp_path / "flight.npz")]


def test_a_place_that_takes_no_file(box: BlackBox, tmp_path: Path) -> None:
    """A log that cannot be written is an error in the last line and the exit code, and nothing else."""
    (tmp_path / "file").write_text("x")
    with ObserverProcess(box, tmp_path / "file" / "flight.npz") as observer:
        write_row(box, 0)
        report = observer.finish()
        assert observer.process.returncode == 1
    assert report["logs"] == [] and "flight log cannot be written" in report["errors"][0]


ON_A_SMALL_DISK = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from controller_process import write_row
from observer_process import ObserverProcess
from export.black_box import BlackBox, State
from robots import load_robot

small = Path(sys.argv[1])
box = BlackBox.create(load_robot("humanoid"), 60.0)
box.set_state(State.RUNNING)
with ObserverProcess(box, small / "flight.npz") as observer:
    for k in range(2000):
        write_row(box, k)
        if k == 1000:
            box.request_save()
    seen = box.observer_heartbeat_ns
    while box.observer_heartbeat_ns == seen:
        time.sleep(0.01)
    report = observer.finish()
    left = sorted(path.name for path in small.iterdir())
    print(observer.process.returncode, len(report["errors"]), report["errors"][0], left)
"""


def test_a_full_disk_does_not_stop_the_controller(tmp_path: Path) -> None:
    """On a full disk the run goes on and the observer lives; its last line and exit code tell, and no part is left."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    script = f'mount -t tmpfs -o size=200k tmpfs {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    process = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, ON_A_SMALL_DISK],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("1 2 ") and "No space left on device" in process.stdout
    assert process.stdout.strip().endswith("[]")


@pytest.mark.parametrize("options", [["--web", "0.0.0.0:0"], ["--web", "127.0.0.1:99999"], ["--fd", "0"]])
def test_what_cannot_begin_says_so(box: BlackBox, tmp_path: Path, options: list[str]) -> None:
    """A page open to everybody, a port that is none, a descriptor that is no box: one line and exit code 2."""
    process = subprocess.run(
        [sys.executable, "-m", "export.observer", "--fd", str(box.fd), "--log", str(tmp_path / "x.npz"), *options],
        pass_fds=(box.fd,), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("observer: ") and process.stderr.count("\n") == 1
