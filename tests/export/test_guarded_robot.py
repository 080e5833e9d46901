"""The robot's own side: it holds or damps when its driver is silent or wrong, and obeys again only after a reset."""

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from export.guarded_robot import GuardedRobot
from robots.backend import BackendError, DriverEndedError, SensorReading
from robots.datagram import CLOSE, COMMAND, MEASURE, READING, REFUSAL, RESET, Message, decode, encode, spec_mark
from robots.mock import MockBackend
from robots.safety_spec import SafetySpec
from robots.spec import RobotSpec

PEER = ("127.0.0.1", 1111)
MS = 1_000_000  # [ns]


class Clock:
    """A monotonic clock that goes when it is told to."""

    def __init__(self) -> None:
        self.ns = time.monotonic_ns()  # the mock stamps its readings by the real one

    def __call__(self) -> int:
        return self.ns


class Bench:
    """A guarded mock of the arm, its driver, and its clock; the arm's period is 5 ms, its watchdog 50 ms."""

    def __init__(self, arm: RobotSpec, backend: type[MockBackend] = MockBackend, **safety: Any) -> None:
        self.spec = dataclasses.replace(
            arm, joint_limits=(), safety=SafetySpec(watchdog_seconds=0.05, stale_seconds=60.0, **safety)
        )
        self.clock, self.backend, self.request = Clock(), backend(self.spec), 0
        self.robot = GuardedRobot(self.backend, now=self.clock)

    def ask(self, kind: int, *payload: float) -> Message | None:
        self.request += 1
        mark = spec_mark(self.spec)
        answer = self.robot.answer(encode(Message(kind, self.request, np.array(payload)), mark), PEER)
        return None if answer is None else decode(answer, mark)

    def wait(self, milliseconds: float) -> None:
        """Lets time pass as the serving process would see it: it wakes when something is due."""
        end = self.clock.ns + round(milliseconds * MS)
        while (due := self.robot.due_ns) is not None and due < end:
            self.clock.ns = max(due, self.clock.ns) + 1
            self.robot.watch()
        self.clock.ns = max(end, self.clock.ns)
        self.robot.watch()


@pytest.fixture
def bench(arm: RobotSpec) -> Bench:
    """A robot that is driven."""
    made = Bench(arm)
    made.ask(RESET, 0.0)
    answer = made.ask(COMMAND, 0.2, 1.0, 0.5)
    assert answer is not None and answer.kind == READING
    return made


def test_a_driver_in_time_is_obeyed(bench: Bench) -> None:
    """Commands well before the watchdog's time are passed on, bounded, and nothing of our own is sent."""
    for _ in range(20):
        bench.wait(40.0)
        assert bench.ask(COMMAND, 0.2, 99.0, 0.5).kind == READING  # type: ignore[union-attr]
    assert bench.robot.safety.fault is None and bench.robot.events == []
    assert len(bench.backend.commands) == 21
    np.testing.assert_allclose(bench.backend.commands[-1], [0.2, 5.0, 0.5])  # the elbow's limit


def test_a_silent_driver_loses_the_robot(bench: Bench) -> None:
    """Within the watchdog's time plus one period positions are held and efforts and speeds are zero, every period."""
    bench.wait(50.0 + 5.0)
    (event,) = bench.robot.events
    assert event.reason == "controller_silent" and "no command for 50 ms" in event.detail
    assert 1 <= len(bench.backend.commands) - 1 <= 2
    bench.wait(100.0)
    held = bench.backend.commands[1:]
    assert 18 <= len(held) <= 23
    for command in held:
        np.testing.assert_allclose(command, [bench.backend.commands[0][0], 0.0, 0.0])


def test_after_the_watchdog_only_a_reset_is_obeyed(bench: Bench) -> None:
    """A driver that comes back is refused with the reason, until it resets the robot."""
    bench.wait(200.0)
    before = len(bench.backend.commands)
    refusal = bench.ask(COMMAND, 0.2, 1.0, 0.5)
    assert refusal is not None and refusal.kind == REFUSAL
    assert "controller_silent" in "".join(chr(int(c)) for c in refusal.payload)
    assert len(bench.backend.commands) == before
    assert bench.ask(RESET, 0.0).kind == READING  # type: ignore[union-attr]
    assert bench.ask(COMMAND, 0.2, 1.0, 0.5).kind == READING  # type: ignore[union-attr]
    bench.wait(40.0)
    assert len(bench.robot.events) == 1


def test_a_farewell_is_no_silence(bench: Bench) -> None:
    """A driver that said goodbye has stopped the robot itself: no watchdog."""
    bench.ask(COMMAND, 0.2, 0.0, 0.0)
    bench.ask(CLOSE)
    assert bench.robot.due_ns is None
    bench.wait(1000.0)
    assert bench.robot.events == [] and len(bench.backend.commands) == 2


def test_a_robot_left_in_motion_is_brought_to_rest(bench: Bench) -> None:
    """A farewell that comes while an effort is on is a fault: the robot is held, and let go of after a while."""
    bench.ask(CLOSE)
    (event,) = bench.robot.events
    assert event.reason == "left_in_motion"
    assert event.detail.endswith("at rest: elbow was last sent 1, wheel was last sent 0.5")
    bench.wait(1.0)
    np.testing.assert_allclose(bench.backend.commands[-1], [bench.backend.commands[0][0], 0.0, 0.0])
    bench.wait(980.0)
    assert bench.robot.running
    bench.wait(40.0)
    assert not bench.robot.running and bench.robot.due_ns is None and len(bench.robot.events) == 1
    assert bench.ask(RESET, 0.0).kind == READING and bench.robot.safety.fault is None  # type: ignore[union-attr]


@pytest.mark.parametrize("on_fault", ["hold", "damp"])
@pytest.mark.parametrize("slew", [2.0, None])
def test_a_robot_is_let_go_of_once_it_is_at_rest(arm: RobotSpec, slew: float | None, on_fault: str) -> None:
    """What is sent last a drive may keep for ever: a slew limit is waited for, and a brake does not stay on."""

    class Turning(MockBackend):
        def step(self, command: np.ndarray) -> SensorReading:
            reading = super().step(command)
            reading.values[:] = 1.0
            return reading

    elbow = dataclasses.replace(arm.action[1], slew=slew)
    slewed = dataclasses.replace(arm, action=(arm.action[0], elbow, arm.action[2]))
    bench = Bench(slewed, Turning, fault_seconds=0.2, on_fault=on_fault)
    bench.ask(RESET, 0.0)
    for _ in range(400):
        bench.wait(5.0)
        bench.ask(COMMAND, 0.2, 4.0, 0.5)
    assert bench.backend.commands[-1][1] == pytest.approx(4.0)
    bench.ask(CLOSE)
    slewing = 2000.0 if slew else 0.0
    if slew:
        bench.wait(slewing - 20.0)
        assert bench.robot.running and 0.0 < bench.backend.commands[-1][1] < 0.1
    bench.wait(300.0 + (500.0 if on_fault == "damp" and slew else 0.0))
    assert not bench.robot.running and bench.backend.commands[-1][1] == 0.0
    assert [event.reason for event in bench.robot.events] == ["left_in_motion"]


def test_a_robot_is_not_held_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it comes that it is not at rest once it should be."""
    monkeypatch.setattr(bench.robot.safety, "moving", lambda: "the elbow")
    bench.ask(CLOSE)
    bench.wait(990.0)
    assert bench.robot.running
    bench.wait(30.0)
    assert not bench.robot.running


class Placed(MockBackend):
    """An arm whose first reading says that the shoulder is at 0.6, or whatever else it is told."""

    first: tuple[tuple[int, float], ...] = ((0, 0.6),)

    def reset(self) -> SensorReading:
        reading = super().reset()
        for channel, value in self.first:
            reading.values[channel] = value
        return reading


@pytest.mark.parametrize(
    ("first", "reason"), [(((0, 0.95),), "outside_commands"), (((0, 0.6), (4, np.nan)), "nonfinite_reading")]
)
def test_a_robot_that_cannot_be_armed_is_told_nothing(
    arm: RobotSpec, first: tuple[tuple[int, float], ...], reason: str
) -> None:
    """Nobody has moved it yet, and nobody does: why is on record, and said to whoever commands."""
    bench = Bench(arm, Placed)
    bench.backend.first = first  # type: ignore[attr-defined]
    assert bench.ask(RESET, 0.0).kind == READING  # type: ignore[union-attr]
    assert not bench.robot.running and bench.robot.due_ns is None
    refusal = bench.ask(COMMAND, 0.2, 1.0, 0.5)
    assert refusal is not None and refusal.kind == REFUSAL
    assert "".join(chr(int(c)) for c in refusal.payload).startswith(f"{reason}: ")
    bench.wait(500.0)
    bench.ask(CLOSE)
    bench.wait(5000.0)
    assert bench.backend.commands == [] and [event.reason for event in bench.robot.events] == [reason]
    bench.backend.first = ()  # type: ignore[attr-defined]
    bench.ask(RESET, 0.0)
    assert bench.ask(COMMAND, 0.0, 1.0, 0.5).kind == READING  # type: ignore[union-attr]


def test_a_robot_that_is_held_and_cannot_be_armed_is_held_on(arm: RobotSpec) -> None:
    """Its driver begins anew while an effort is on, and its sensors have gone: that effort must not stay."""
    bench = Bench(arm, Placed)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.6, 1.0, 0.5)
    bench.backend.first = ((0, np.nan),)  # type: ignore[attr-defined]
    assert bench.ask(RESET, 0.0).kind == READING  # type: ignore[union-attr]
    bench.wait(20.0)
    assert bench.robot.running and [event.reason for event in bench.robot.events] == ["nonfinite_reading"]
    np.testing.assert_allclose(bench.backend.commands, [[0.6, 0.0, 0.0]] * len(bench.backend.commands))
    assert len(bench.backend.commands) >= 4


def sent(bench: Bench) -> float:
    """Where the shoulder was sent last."""
    return float(bench.backend.commands[-1][0])


def test_a_burst_of_commands_is_no_quicker_than_the_slew_limit(arm: RobotSpec) -> None:
    """The limit is of motion in time, 20 rad/s, not of 0.1 rad a command: what a silence left, and what time gives."""
    bench = Bench(arm, Placed)
    bench.backend.first = ((0, -0.6),)  # type: ignore[attr-defined]
    bench.ask(RESET, 0.0)
    bench.wait(50.0)
    steps, before = [], -0.6
    for _ in range(150):
        bench.clock.ns += 20_000  # [ns] 3 ms in all
        bench.ask(COMMAND, 0.8, 1.0, 0.5)
        steps.append(sent(bench) - before)
        before = sent(bench)
    assert max(steps[1:]) <= 0.1 + 1e-9
    assert before + 0.6 == pytest.approx(20.0 * (10 * 0.005 + 150 * 20e-6), rel=0.01)


@pytest.mark.parametrize("silent", [0.0, 25.0])
def test_commands_that_come_early_or_late_are_obeyed(arm: RobotSpec, silent: float) -> None:
    """At full slew, by turns 20 % early and late, after whatever pause: what the controller sends is what is sent."""
    bench = Bench(arm, Placed)
    bench.backend.first = ((0, -0.6),)  # type: ignore[attr-defined]
    bench.ask(RESET, 0.0)
    bench.wait(silent)
    for k in range(14):
        bench.wait(4.0 if k % 2 == 0 else 6.0)
        wanted = min(-0.6 + 0.1 * (k + 1), 0.8)
        bench.ask(COMMAND, wanted, 1.0, 0.5)
        assert sent(bench) == pytest.approx(wanted)


def test_a_command_after_lost_ones_may_go_as_far_as_they_would_have(arm: RobotSpec) -> None:
    """By the time since the last one, three periods at most; then on as ever, and never starved."""
    bench = Bench(arm, Placed)
    bench.backend.first = ((0, -0.6),)  # type: ignore[attr-defined]
    bench.ask(RESET, 0.0)
    at = []
    for milliseconds in (5.0, 10.0, 40.0, 4.0, 4.0, 4.0):
        bench.wait(milliseconds)
        bench.ask(COMMAND, 0.8, 1.0, 0.5)
        at.append(sent(bench))
    np.testing.assert_allclose(at, [-0.5, -0.3, 0.0, 0.1, 0.2, 0.3], atol=1e-12)


def test_a_robot_that_was_left_with_a_fault_is_held_for_a_while(arm: RobotSpec) -> None:
    """A driver that says goodbye after a fault leaves the robot to its guardian, who holds it and then lets it be."""
    bench = Bench(arm, fault_seconds=0.2)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 1.0, 0.5)
    bench.wait(60.0)
    bench.ask(CLOSE)
    before = len(bench.backend.commands)
    bench.wait(150.0)
    assert bench.robot.running and len(bench.backend.commands) > before + 20
    bench.wait(100.0)
    assert not bench.robot.running and bench.robot.due_ns is None


def test_what_the_robot_measures_is_checked_here_too(arm: RobotSpec) -> None:
    """A NaN from a sensor stops the robot even if its driver goes on."""

    class Broken(MockBackend):
        def step(self, command: np.ndarray) -> SensorReading:
            reading = super().step(command)
            reading.values[1] = np.nan
            return reading

    bench = Bench(arm, Broken)
    bench.ask(RESET, 0.0)
    assert bench.ask(COMMAND, 0.2, 1.0, 0.5).kind == READING  # type: ignore[union-attr]
    assert [event.reason for event in bench.robot.events] == ["nonfinite_reading"]
    assert bench.ask(COMMAND, 0.2, 1.0, 0.5).kind == REFUSAL  # type: ignore[union-attr]


def test_a_damped_robot_is_braked(arm: RobotSpec) -> None:
    """With `damp`, what is sent after the driver fell silent is against the measured speed."""
    bench = Bench(arm, on_fault="damp")
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 4.0, 0.5)
    bench.wait(60.0)
    speed = bench.spec.channels.index("joint_vel/elbow")
    braking = [command[1] for command in bench.backend.commands[1:]]
    assert braking and bench.backend._last is not None
    assert bench.backend._last.values[speed] * braking[-1] <= 0.0


def test_a_robot_that_is_gone_is_told_once(arm: RobotSpec) -> None:
    """If the robot cannot even be held, that is on record; it is tried once a period for a while, and then no more."""

    class Gone(MockBackend):
        tries = 0

        def step(self, command: np.ndarray) -> SensorReading:
            self.tries += 1
            raise BackendError("the cable is out")

    bench = Bench(arm, Gone)
    bench.ask(RESET, 0.0)
    bench.wait(500.0)
    assert [event.reason for event in bench.robot.events] == ["controller_silent", "robot_lost"]
    assert isinstance(bench.backend, Gone)
    periods = (500.0 - 1e3 * max(bench.spec.safety.watchdog_seconds, 0.0)) * 1e-3 / bench.spec.control_dt
    assert 0.9 * periods <= bench.backend.tries <= periods + 2
    bench.wait(31_000.0)
    assert bench.robot.due_ns is None


def test_a_reset_in_motion_forgets_nothing(arm: RobotSpec) -> None:
    """Who takes over while the robot is brought to rest, and leaves again, leaves it to be brought to rest."""
    action = tuple(dataclasses.replace(term, slew=1.0) for term in arm.action)
    bench = Bench(dataclasses.replace(arm, action=action))
    bench.ask(RESET, 0.0)
    for _ in range(100):
        bench.wait(5.0)
        bench.ask(COMMAND, 0.0, 0.4, 0.0)
    bench.robot.trip("estop", "pressed")
    bench.wait(100.0)
    on_the_way = bench.backend.commands[-1][1]
    assert 0.2 < on_the_way < 0.4
    bench.ask(RESET, 0.0)
    bench.ask(CLOSE)
    assert [event.reason for event in bench.robot.events] == ["estop", "left_in_motion"]
    bench.wait(3000.0)
    assert bench.backend.commands[-1][1] == 0.0 and bench.robot.due_ns is None


def test_a_farewell_after_a_command_that_never_arrived_is_in_motion(arm: RobotSpec) -> None:
    """The last one would have been rest, and the robot refused it."""

    class Once(MockBackend):
        refuses = False

        def step(self, command: np.ndarray) -> SensorReading:
            if self.refuses:
                self.refuses = False
                raise BackendError("the bus is busy")
            return super().step(command)

    bench = Bench(arm, Once)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 1.0, 0.5)
    bench.backend.refuses = True  # type: ignore[attr-defined]
    bench.ask(COMMAND, 0.2, 0.0, 0.0)
    bench.ask(CLOSE)
    assert [event.reason for event in bench.robot.events] == ["left_in_motion"]
    bench.wait(20.0)
    assert bench.backend.commands[-1][1:].tolist() == [0.0, 0.0]


def test_two_glitches_far_apart_do_not_end_the_hold(arm: RobotSpec) -> None:
    """A robot that was held in between was found again."""

    class Flaky(MockBackend):
        at = (10, 8000)
        asked = 0

        def step(self, command: np.ndarray) -> SensorReading:
            self.asked += 1
            if self.asked in self.at:
                raise BackendError("a glitch")
            return super().step(command)

    bench = Bench(arm, Flaky)
    bench.ask(RESET, 0.0)
    bench.wait(50_000.0)
    assert bench.robot.due_ns is not None and len(bench.backend.commands) > 9000


def test_a_robot_that_refuses_is_held_by_asking_again(arm: RobotSpec) -> None:
    """A driver with a fault may tell its robot to rest each time it is asked; and one that is left is left in time."""

    class Refusing(MockBackend):
        told = 0

        def step(self, command: np.ndarray) -> SensorReading:
            self.told += 1
            raise BackendError("2 publishers of /joint_states; the robot was told to rest")

    bench = Bench(arm, Refusing)
    bench.ask(RESET, 0.0)
    assert bench.ask(COMMAND, 0.2, 4.0, 0.5).kind == REFUSAL  # type: ignore[union-attr]
    bench.robot.trip("controller_lost", "it ended without saying goodbye")
    bench.robot.leave()
    assert isinstance(bench.backend, Refusing)
    bench.wait(100.0)
    assert bench.backend.told > 10
    bench.wait(1e3 * bench.spec.safety.fault_seconds)
    assert bench.robot.due_ns is None


@pytest.mark.parametrize("asked", [COMMAND, MEASURE])
def test_a_driver_that_is_started_again_holds_the_robot(arm: RobotSpec, asked: int) -> None:
    """A driver's process that ends stops the robot for good, and the hold goes on when it can be reached again."""

    class Crashing(MockBackend):
        deaths = 2

        def step(self, command: np.ndarray) -> SensorReading:
            if len(self.commands) == 3 and self.deaths:
                self.deaths -= 1
                raise DriverEndedError("the driver's process was ended by SIGSEGV")
            return super().step(command)

        def measure(self) -> SensorReading:
            self.deaths -= 1
            raise DriverEndedError("the driver's process was ended by SIGSEGV")

    bench = Bench(arm, Crashing)
    bench.ask(RESET, 0.0)
    for _ in range(3):
        assert bench.ask(COMMAND, 0.2, 1.0, 0.5).kind == READING  # type: ignore[union-attr]
    assert bench.ask(asked, *[0.2, 1.0, 0.5][: 3 * (asked == COMMAND)]).kind == REFUSAL  # type: ignore[union-attr]
    bench.ask(CLOSE)
    bench.wait(200.0)
    assert [event.reason for event in bench.robot.events] == ["driver_ended", "driver_ended"]
    assert bench.robot.running and len(bench.backend.commands) > 10
    held = np.array(bench.backend.commands[3:])
    assert (held == held[0]).all() and held[0, 1] == 0.0


def test_drivers_that_go_on_ending_are_left(arm: RobotSpec) -> None:
    """When every new driver ends as well, the robot is given up half a minute after the first, not after the last."""

    class Doomed(MockBackend):
        def step(self, command: np.ndarray) -> SensorReading:
            raise DriverEndedError("the driver's process was ended by SIGSEGV")

    bench = Bench(arm, Doomed)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 1.0, 0.5)
    bench.robot.leave()
    bench.wait(29_000.0)
    assert bench.robot.running
    bench.wait(2_000.0)
    assert not bench.robot.running


def test_a_measurement_is_not_taken_for_a_new_drivers(arm: RobotSpec) -> None:
    """The last reading may have come by a measurement; repeated while a new driver starts, it is no sign."""

    class Gone(MockBackend):
        def step(self, command: np.ndarray) -> SensorReading:
            if self.gone:
                assert self._last is not None
                return self._last
            return super().step(command)

        def measure(self) -> SensorReading:
            if self.gone:
                raise DriverEndedError("the driver's process was ended by SIGSEGV")
            self._last = dataclasses.replace(super().measure(), sequence=7)
            return self._last

        gone = False

    bench = Bench(arm, Gone)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 1.0, 0.5)
    assert bench.ask(MEASURE).kind == READING  # type: ignore[union-attr]
    bench.backend.gone = True  # type: ignore[attr-defined]
    assert bench.ask(MEASURE).kind == REFUSAL  # type: ignore[union-attr]
    bench.robot.leave()
    bench.wait(5e3 * arm.safety.fault_seconds)
    assert bench.robot.running


@pytest.mark.parametrize(("away_ms", "held"), [(3_000, True), (40_000, False)])
def test_a_robot_out_of_reach_is_not_left(arm: RobotSpec, away_ms: int, held: bool) -> None:
    """Everybody has gone home while a new driver looks for the robot: it is found, held for a while, and then left."""

    class Away(MockBackend):
        away = 0

        def step(self, command: np.ndarray) -> SensorReading:
            if self.away == 0:
                self.away += 1
                raise DriverEndedError("the driver's process was ended by SIGSEGV")
            self.away += 1
            assert self._last is not None
            return self._last if self.away * period_ms < away_ms else super().step(command)

    period_ms = 1e3 * arm.control_dt
    bench = Bench(arm, Away)
    bench.ask(RESET, 0.0)
    bench.ask(COMMAND, 0.2, 1.0, 0.5)
    bench.robot.leave()
    bench.wait(away_ms + 100.0)
    assert bench.robot.running == held and (len(bench.backend.commands) > 3) == held
    bench.wait(1e3 * arm.safety.fault_seconds)
    assert not bench.robot.running


@pytest.mark.parametrize("payload", [[], [1.0], [np.nan] * 3, [np.inf, 0.0, 0.0], [0.0] * 4])
def test_a_malformed_command_is_not_passed_on(bench: Bench, payload: list[float]) -> None:
    """Wrong lengths and numbers that are none are refused; they trip nothing and feed no watchdog."""
    assert bench.ask(COMMAND, *payload).kind == REFUSAL  # type: ignore[union-attr]
    assert len(bench.backend.commands) == 1
    bench.wait(48.0)
    bench.ask(COMMAND, *payload)
    bench.wait(8.0)
    assert [event.reason for event in bench.robot.events] == ["controller_silent"]
