"""The fault matrix: whatever breaks, the robot ends in a safe state in time, with the reason on record.

Each row breaks something for real, between a control loop, a cable, a guardian and a robot, and looks at what reached
the motors. Safe is: the arm's drive is sent where it was, the hand gets no effort. In time is: the time-out that
applies, and one control period; a grace is added for what a busy test machine does to any process.
"""

import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_robot import PERIOD, SAFETY, SPEC, FaultyRobot, bad_cable, guarded
from free_address import free_address

import export.loop
from export.black_box import BlackBox
from export.clock import PeriodicClock
from export.estop import UdpEStop, heartbeat
from export.loop import LoopOptions, LoopReport, run
from robots.backend import SensorReading
from robots.udp import UdpBackend

ROOT = Path(__file__).parents[1]
GRACE = 0.3  # [s]
KEY = b"k" * 32


class Wave:
    """A policy that moves the arm to and fro and pushes the hand."""

    def __init__(self) -> None:
        self.k = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        self.k += 1
        return np.array([0.5 + 0.2 * np.sin(0.05 * self.k), 0.2 * np.cos(0.2 * self.k) + 0.01], dtype=np.float32)


def drive(address: str, seconds: float = 1.0, **options: Any) -> LoopReport:
    """Runs the control loop over a cable."""
    with UdpBackend(SPEC, address, real_time=True) as backend:
        return run(backend, Wave(), SPEC, seconds=seconds, options=LoopOptions(**options))


def assert_safe_from(robot: FaultyRobot, broken_ns: int, allowed: float) -> None:
    """From `allowed` seconds after it broke, all that reached the motors holds the robot, and something did."""
    after = [command for sent_ns, command in robot.sent if sent_ns > broken_ns + 1e9 * (allowed + PERIOD + GRACE)]
    late = np.array(after[:1] * 2 + after)
    if len(late):
        assert (late[:, 1] == 0.0).all(), "the hand was still pushed"
        assert np.ptp(late[:, 0]) == 0.0, "the arm was still sent elsewhere"
    held = [command for sent_ns, command in robot.sent if sent_ns > broken_ns and command[1] == 0.0]
    assert held, "nothing was sent to hold the robot"
    safe_ns = next(sent_ns for sent_ns, command in robot.sent if sent_ns > broken_ns and command[1] == 0.0)
    print(f"safe after {(safe_ns - broken_ns) / 1e6:.1f} ms; allowed {1e3 * (allowed + PERIOD):.0f} ms")
    assert safe_ns - broken_ns <= 1e9 * (allowed + PERIOD + GRACE)


def breaks_at(robot: FaultyRobot, step: int, change: Callable[[SensorReading], SensorReading]) -> list[int]:
    """Changes every reading from a step on; returns a list that will hold when it began [ns]."""
    when: list[int] = []

    def tamper(reading: SensorReading) -> SensorReading:
        if reading.sequence < step:
            return reading
        when.append(time.monotonic_ns())
        return change(reading)

    robot.tamper = tamper
    return when


def frozen(reading: SensorReading) -> SensorReading:
    return SensorReading(reading.values, reading.timestamp_ns, 59)


def not_a_number(reading: SensorReading) -> SensorReading:
    reading.values[1] = np.nan
    return reading


def beyond_limits(reading: SensorReading) -> SensorReading:
    reading.values[1] = 1.001
    return reading


def too_few(reading: SensorReading) -> SensorReading:
    return SensorReading(reading.values[:2], reading.timestamp_ns, reading.sequence)


def reversed_arm(reading: SensorReading) -> SensorReading:
    reading.values[0] = -reading.values[0]
    return reading


@pytest.mark.parametrize(
    ("change", "reasons", "allowed"),
    [
        (frozen, {"stale_reading"}, SAFETY.stale_seconds),
        (not_a_number, {"nonfinite_reading"}, PERIOD),
        (beyond_limits, {"limit_violation"}, PERIOD),
        (too_few, {"bad_reading", "backend_lost"}, PERIOD),
        (reversed_arm, {"tracking_error"}, SAFETY.tracking_seconds),
    ],
)
def test_sensors(change: Callable, reasons: set[str], allowed: float) -> None:
    """A sensor that freezes, is no number, leaves the limits, loses channels, or is wired the wrong way round."""
    robot = FaultyRobot()
    when = breaks_at(robot, 60, change)
    with guarded(robot) as (address, events):
        report = drive(address, seconds=20.0)
        time.sleep(0.05)
    assert report.ended_by == "fault"
    assert report.faults[0].reason in reasons or any(event.reason in reasons for event in events)
    assert_safe_from(robot, when[0], allowed)


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2])
def test_dropped_packets(loss: float) -> None:
    """At 1, 5 and 20 % loss each way the loop goes on in time, with repeated readings; nothing is done twice."""
    robot = FaultyRobot()
    with (
        guarded(robot) as (address, events),
        bad_cable(address, lambda chance, _: [] if chance.random() < loss else [0.0]) as cable,
    ):
        report, acted, sent = drive(cable, seconds=1.0), list(events), list(robot.sent)
    assert (report.ended_by, report.faults, acted) == ("time", (), [])
    assert len(sent) <= report.ticks
    assert report.stale_readings >= (5 if loss == 0.2 else 0)


def test_a_cable_that_is_cut() -> None:
    """With nothing coming through, both sides notice: the controller by stale readings, the guardian by silence."""
    robot, cut = FaultyRobot(), []

    def fate(_: Any, to_robot: bool) -> list[float]:
        if len(robot.sent) < 60:
            return [0.0]
        cut.append(time.monotonic_ns())
        return []

    with guarded(robot) as (address, events), bad_cable(address, fate) as cable:
        report = drive(cable, seconds=20.0)
        time.sleep(0.05)
    assert report.faults[0].reason == "stale_reading"
    assert [event.reason for event in events] == ["controller_silent"]
    assert_safe_from(robot, cut[0], SAFETY.watchdog_seconds)


@pytest.mark.parametrize(("delay", "fault"), [(0.03, False), (0.3, True)])
def test_delayed_packets(delay: float, fault: bool) -> None:
    """Readings that were long on the way are as old as they are: borne below the time-out, a fault above it."""
    robot, late = FaultyRobot(), []

    def fate(_: Any, to_robot: bool) -> list[float]:
        if len(robot.sent) < 60 or to_robot:
            return [0.0]
        late.append(time.monotonic_ns())
        return [delay]

    with guarded(robot) as (address, events), bad_cable(address, fate) as cable:
        report = drive(cable, seconds=1.0)
    if not fault:
        assert report.faults == () and report.ended_by == "time"
        return
    assert report.faults[0].reason == "stale_reading"
    assert_safe_from(robot, late[0], SAFETY.stale_seconds)


def test_reordered_and_doubled_packets() -> None:
    """What is overtaken or comes twice is done at most once and never late: the robot's steps stay the controller's."""
    robot = FaultyRobot()

    def fate(chance: Any, to_robot: bool) -> list[float]:
        return [chance.choice([0.0, 0.0, 0.004, 0.012])] + ([0.002] if chance.random() < 0.3 else [])

    with guarded(robot) as (address, events), bad_cable(address, fate) as cable:
        report, acted, sent = drive(cable, seconds=1.0), list(events), list(robot.sent)
    assert (report.ended_by, report.faults, acted) == ("time", (), [])
    assert len(sent) <= report.ticks
    asked = [0.5 + 0.2 * np.sin(0.05 * k) for k in range(1, report.ticks + 1)]
    steady = [command[0] for _, command in sent[20:-20]]
    order = [int(np.argmin(np.abs(np.array(asked[:60]) - value))) for value in steady[:10]]
    assert order == sorted(order)


def test_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monotonic clock that leaps ahead by a minute (a machine that slept) makes readings old: the robot is held."""
    robot, leapt = FaultyRobot(), []

    def now() -> int:
        if len(robot.sent) < 60:
            return time.monotonic_ns()
        leapt.append(time.monotonic_ns())
        return time.monotonic_ns() + 60 * 10**9

    monkeypatch.setattr(export.loop, "PeriodicClock", partial(PeriodicClock, now=now))
    with guarded(robot) as (address, _):
        report = drive(address, seconds=20.0)
    assert report.faults[0].reason == "stale_reading" and report.skipped > 1000
    assert_safe_from(robot, leapt[0], 0.0)


def test_a_button_whose_clock_is_set_back() -> None:
    """Heartbeats from a sender whose wall clock was set back look replayed: silence, so the robot stops."""
    robot, back = FaultyRobot(), []
    estop = UdpEStop(free_address(), KEY, timeout_seconds=0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as button:
        button.connect(("127.0.0.1", estop.port))
        button.send(heartbeat(time.time_ns(), False, KEY, estop._nonce))

        def beat(reading: SensorReading) -> SensorReading:
            jump = 3600 * 10**9 if reading.sequence > 60 else 0
            if jump:
                back.append(time.monotonic_ns())
            button.send(heartbeat(time.time_ns() - jump, False, KEY, estop._nonce))
            return reading

        robot.tamper = beat
        with guarded(robot) as (address, _):
            report = drive(address, seconds=20.0, estop=estop)
    assert report.faults[0].reason == "estop_silent"
    assert_safe_from(robot, back[0], 0.1)


def test_an_operator_who_is_gone() -> None:
    """A page that nobody watches any more stops an attended robot after a second."""
    robot, box, gone = FaultyRobot(), BlackBox.create(SPEC, seconds=5.0), []

    def watch(reading: SensorReading) -> SensorReading:
        if reading.sequence <= 60:
            box.operator_alive(time.monotonic_ns())
        else:
            gone.append(time.monotonic_ns())
        return reading

    robot.tamper = watch
    with guarded(robot) as (address, _):
        report = drive(address, seconds=20.0, box=box, attended=True)
    assert report.faults[0].reason == "operator_lost"
    assert_safe_from(robot, gone[0], 1.0)


CONTROLLER = """
import sys
sys.path.insert(0, "tests")
from faulty_robot import SPEC
from test_fault_matrix import Wave
from export.loop import run
from robots.udp import UdpBackend
with UdpBackend(SPEC, sys.argv[1], real_time=True) as backend:
    print("driving", flush=True)
    report = run(backend, Wave(), SPEC, seconds=60.0)
print(report.ended_by, report.faults, flush=True)
"""


def controller(address: str) -> subprocess.Popen[str]:
    """A control loop in a process of its own that drives by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, address], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "driving\n"
    return process


def test_a_controller_that_is_killed() -> None:
    """`kill -9` of the control loop: its guardian holds the robot once the watchdog's time is over."""
    robot = FaultyRobot()
    with guarded(robot) as (address, events):
        process = controller(address)
        while len(robot.sent) < 60:
            time.sleep(0.01)
        process.kill()
        killed = time.monotonic_ns()
        process.wait()
        time.sleep(SAFETY.watchdog_seconds + GRACE + 0.2)
    assert [event.reason for event in events] == ["controller_silent"]
    assert_safe_from(robot, killed, SAFETY.watchdog_seconds)


class Fails(Wave):
    """A policy that fails on its 60th step."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        if self.k == 60:
            raise RuntimeError("no inference")
        return super().act(observation)


def test_a_controller_that_fails() -> None:
    """An exception in its loop is no goodbye: the guardian holds the robot once the watchdog's time is over."""
    robot = FaultyRobot()
    with guarded(robot) as (address, events):
        with pytest.raises(RuntimeError), UdpBackend(SPEC, address, real_time=True) as backend:
            run(backend, Fails(), SPEC, seconds=20.0)
        failed = time.monotonic_ns()
        time.sleep(SAFETY.watchdog_seconds + GRACE + 0.2)
    assert [event.reason for event in events] == ["controller_silent"]
    assert_safe_from(robot, failed, SAFETY.watchdog_seconds)


def test_a_command_that_could_not_be_sent() -> None:
    """The controller gives up and says nothing more; the guardian holds the robot."""
    robot, failed = FaultyRobot(), []
    with guarded(robot) as (address, events):
        with UdpBackend(SPEC, address, real_time=True) as backend:
            say = backend._say

            def failing(*said: Any) -> None:
                if len(robot.sent) < 60:
                    return say(*said)
                failed.append(time.monotonic_ns())
                raise backend._gone(OSError(errno.ENOBUFS, "No buffer space available"))

            backend._say = failing  # type: ignore[method-assign]
            report = run(backend, Wave(), SPEC, seconds=20.0)
        time.sleep(SAFETY.watchdog_seconds + GRACE + 0.2)
    assert [fault.reason for fault in report.faults] == ["backend_lost"]
    assert [event.reason for event in events] == ["controller_silent"]
    assert_safe_from(robot, failed[0], SAFETY.watchdog_seconds)


def test_a_controller_that_leaves_in_motion() -> None:
    """Whoever says goodbye in mid-motion leaves the guardian to bring the robot to rest, which is on record."""
    robot = FaultyRobot()
    with guarded(robot) as (address, events):
        with UdpBackend(SPEC, address, real_time=True) as backend:
            backend.reset()
            for _ in range(60):
                backend.step(np.array([0.6, 0.5]))
                time.sleep(PERIOD)
        left = time.monotonic_ns()
        time.sleep(SAFETY.fault_seconds + 0.2)
        held = len(robot.sent)
        time.sleep(0.1)
        assert len(robot.sent) == held  # let go of
    assert [event.reason for event in events] == ["left_in_motion"]
    assert_safe_from(robot, left, 0.0)


@pytest.mark.parametrize(("slew", "on_fault"), [(0.5, "hold"), (None, "damp"), (0.5, "damp")])
def test_a_fault_with_an_effort_that_takes_long_to_fade(slew: float | None, on_fault: str) -> None:
    """The controller says goodbye once nothing pushes any more, however long a slew limit makes that."""
    hand = dataclasses.replace(SPEC.action[1], slew=slew, kd=0.3)
    safety = dataclasses.replace(SAFETY, on_fault=on_fault, tracking=None)
    spec = dataclasses.replace(SPEC, action=(SPEC.action[0], hand), joint_limits=(), safety=safety)
    robot = FaultyRobot(spec)

    class Push:
        def act(self, observation: np.ndarray) -> np.ndarray:
            return np.array([0.6, 0.2], dtype=np.float32)

    class Button:
        asked = 0

        def check(self, now_ns: int) -> str | None:
            self.asked += 1
            return "estop_pressed" if self.asked > 200 else None

        def catch_up(self) -> None:
            pass

    with guarded(robot) as (address, events):
        with UdpBackend(spec, address, real_time=True) as backend:
            report = run(backend, Push(), spec, seconds=20.0, options=LoopOptions(estop=Button()))
        time.sleep(0.1)
        acted, last = list(events), robot.sent[-1][1]
    assert report.faults[0].reason == "estop_pressed" and acted == [] and last[1] == 0.0
    assert max(command[1] for _, command in robot.sent) > 0.35


@pytest.mark.parametrize("at", [2.1, 1.1, np.nan])
def test_a_robot_that_must_not_begin(at: float) -> None:
    """Beyond its limits, where it may not be sent to, or nobody knows where: neither side tells the motors anything."""
    robot = FaultyRobot()
    robot.state[0] = at
    with guarded(robot) as (address, events):
        report = drive(address, seconds=20.0)
        time.sleep(2 * SAFETY.watchdog_seconds + 0.1)
    reason = {2.1: "limit_violation", 1.1: "outside_commands"}.get(at, "nonfinite_reading")
    assert robot.sent == [] and report.ended_by == "fault"
    assert [fault.reason for fault in report.faults] == [event.reason for event in events] == [reason]


def test_a_controller_that_is_stuck() -> None:
    """A loop that stands still for a while finds its robot held, is refused, and ends with the guardian's reason."""
    robot = FaultyRobot()
    with guarded(robot) as (address, events):
        process = controller(address)
        while len(robot.sent) < 60:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGSTOP)
        stopped = time.monotonic_ns()
        time.sleep(SAFETY.watchdog_seconds + GRACE + 0.2)
        os.kill(process.pid, signal.SIGCONT)
        said = process.communicate(timeout=30)[0]
    assert [event.reason for event in events] == ["controller_silent"]
    assert "fault" in said and ("controller_silent" in said or "stale_reading" in said)
    assert_safe_from(robot, stopped, SAFETY.watchdog_seconds)


def test_an_observer_whose_disk_never_answers(tmp_path: Path) -> None:
    """A writer of flight logs that is blocked for good costs the loop nothing: no fault, no more misses than alone."""
    from toolkit.commands.observer_link import observed

    robot, box = FaultyRobot(), BlackBox.create(SPEC, seconds=5.0)
    with guarded(robot) as (address, _):
        alone = drive(address, seconds=1.0)
        with observed(box, tmp_path / "flight.npz", keep=True) as observer:
            observer.ready()
            pid = observer.process.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                report = drive(address, seconds=1.0, box=box)
            finally:
                os.kill(pid, signal.SIGCONT)
    assert report.faults == () and report.ended_by == "time"
    assert report.misses <= alone.misses + 20
    assert (tmp_path / "flight.npz").exists()


ON_A_FULL_DISK = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from faulty_robot import SPEC, FaultyRobot, guarded
from test_fault_matrix import drive
from export.black_box import BlackBox
from toolkit.commands.observer_link import observed
box = BlackBox.create(SPEC, seconds=60.0)
with guarded(FaultyRobot()) as (address, events):
    with observed(box, Path(sys.argv[1]) / "flight.npz", keep=True) as observer:
        observer.ready()
        report = drive(address, seconds=1.0, box=box)
print(report.ended_by, len(report.faults), len(events), observer.flights, observer.errors)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """A flight log that does not fit on a real, full file system is told, and the robot is none the worse for it."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    script = f'mount -t tmpfs -o size=12k tmpfs {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, ON_A_FULL_DISK],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("time 0 0 [] [") and "No space left" in done.stdout, done.stdout
