"""The loop: real time kept and counted, faults held and latched, stopping gently, and no growth."""

import dataclasses
import os
import signal
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.black_box import BlackBox
from export.black_box_layout import Flag, State, StopRequest
from export.hot_swap import Successor
from export.loop import LoopError, LoopOptions, run
from export.monitor import RewardMonitor
from export.runtime import load_bundle
from export.safety import SafetyLayer
from robots.backend import Backend, BackendError, SensorReading
from robots.mock import MockBackend
from robots.safety_spec import MonitorSpec, SafetySpec
from robots.spec import RobotSpec

# A busy machine may stall any process for a while, so only the tests of staleness are impatient.
GENTLE = SafetySpec(
    soft_start_seconds=0.02, soft_stop_seconds=0.02, stale_seconds=30.0, fault_seconds=0.05, miss_seconds=60.0
)
IMPATIENT = dataclasses.replace(GENTLE, stale_seconds=0.1)
BRISK = LoopOptions()


class Constant:
    """A policy that always does the same; a reward that is always the same."""

    uses_next_observation = False

    def __init__(self, action: float = 0.5, reward: float = 0.0) -> None:
        self.action, self.reward = np.full(3, action, dtype=np.float32), reward

    def act(self, observation: np.ndarray) -> np.ndarray:
        return self.action

    def score(self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray | None = None) -> float:
        self.scored = action.copy()
        return self.reward


def drive(backend: Any, policy: Any = None, seconds: float = 0.2, **more: Any) -> Any:
    """Runs the loop with a gentle safety layer."""
    spec = backend.spec
    settings = {"safety": SafetyLayer(spec, GENTLE), "options": BRISK, **more}
    return run(backend, policy or Constant(), spec, seconds=seconds, **settings)


def test_a_bundle_drives_a_robot(pristine: Path, still: Any) -> None:
    """Policy, reward and monitor of a real bundle run together, in time, and are reported."""
    bundle, policy, reward = load_bundle(pristine)
    monitor = RewardMonitor(bundle.manifest.reward_quantiles, bundle.spec.control_dt)
    backend = still(bundle.spec)
    report = drive(backend, policy, 0.3, reward=reward, monitor=monitor)
    assert report.ended_by == "time" and report.faults == () and report.target_hz == 200.0
    assert report.ticks == len(backend.commands) == report.tick.count
    assert report.ticks + report.skipped >= 60 and report.seconds >= 0.29
    assert report.compute.p50_us <= report.tick.p50_us <= report.tick.max_us
    assert report.reward is not None and 0 < report.reward.steps <= report.ticks
    np.testing.assert_array_equal(backend.commands[-1][1:], 0.0)  # stopped softly: no effort, no speed


def test_rate_is_of_the_grid_not_of_the_work(arm: RobotSpec, still: Any) -> None:
    """Work of half a period does not stretch the period: ticks run and skipped fill the time exactly."""
    report = drive(still(arm, delay=0.0025), seconds=0.6)
    assert (report.ticks + report.skipped) * arm.control_dt == pytest.approx(report.seconds, abs=0.1)


def test_the_robot_answers_while_the_loop_sleeps(arm: RobotSpec, still: Any) -> None:
    """A robot that takes most of a period to answer costs the tick nothing, and its answers are what is seen next."""

    class Cable(still):  # type: ignore[misc, valid-type]
        sent_ns = 0

        def send(self, command: np.ndarray) -> None:
            super().send(command)
            self.sent_ns = time.monotonic_ns()

        def receive(self) -> SensorReading:
            time.sleep(max(0.0, 0.8 * arm.control_dt - 1e-9 * (time.monotonic_ns() - self.sent_ns)))
            return super().receive()

    box = BlackBox.create(arm, seconds=10.0)
    backend = Cable(arm, lambda reading: dataclasses.replace(reading, values=np.full(5, 1e-6 * reading.sequence)))
    report = drive(backend, seconds=0.5, options=LoopOptions(box=box))
    assert report.tick.p50_us < 0.5e6 * arm.control_dt and report.stale_readings == 0
    np.testing.assert_allclose(box.snapshot().values[:, 0], 1e-6 * np.arange(report.ticks))


def test_a_reward_of_what_came_of_the_step_waits_for_it(arm: RobotSpec, still: Any) -> None:
    """A reward of three inputs sees the observation before, and the one after, of the same step."""
    seen: list[tuple[float, float]] = []

    class Outcome(Constant):
        uses_next_observation = True

        def score(
            self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray | None = None
        ) -> float:
            assert next_observation is not None
            seen.append((float(observation[0]), float(next_observation[0])))
            return 0.0

    backend = still(arm, lambda reading: dataclasses.replace(reading, values=np.full(5, 1e-3 * reading.sequence)))
    monitor = RewardMonitor({"0.01": 0.0, "0.5": 1.0}, arm.control_dt)
    report = drive(backend, seconds=0.3, reward=Outcome(), monitor=monitor)
    assert report.faults == () and report.stale_readings == 0 and len(seen) > 20
    before, after = np.array(seen).T
    apart = np.diff(before)
    one = apart.min()  # reading
    np.testing.assert_allclose(after - before, one)
    np.testing.assert_array_equal(after[:-1][apart < 1.5 * one], before[1:][apart < 1.5 * one])
    assert (after > before).all() and (apart < 2.5 * one).all()  # in a hurry one step is left out, never two


@pytest.mark.parametrize(("busy", "share"), [(0.0, 1.0), (0.9, 0.5)])
def test_in_a_hurry_every_other_step_is_scored(arm: RobotSpec, still: Any, busy: float, share: float) -> None:
    """A tick with little time left keeps it for the deadline; never two in a row, so the monitor goes on watching."""

    class Busy(Constant):
        def act(self, observation: np.ndarray) -> np.ndarray:
            time.sleep(busy * slow.control_dt)
            return super().act(observation)

    slow = dataclasses.replace(arm, control_dt=0.02)
    box, monitor = BlackBox.create(slow, seconds=10.0), RewardMonitor({"0.01": 0.0, "0.5": 1.0}, slow.control_dt)
    report = drive(still(slow), Busy(), 1.0, reward=Constant(reward=1.0), monitor=monitor, options=LoopOptions(box=box))
    scored = box.snapshot().flags[5:-5] & Flag.SCORED > 0
    assert report.faults == () and len(scored) > 20
    assert np.mean(scored) == pytest.approx(share, abs=0.1) and (scored[1:] | scored[:-1]).all()
    np.testing.assert_array_equal(np.isfinite(box.snapshot().reward[5:-5]), scored)


def test_a_slow_robot_is_counted(arm: RobotSpec, still: Any) -> None:
    """A backend that takes two and a half periods misses every deadline; the time still ends when it should."""
    report = drive(still(arm, delay=0.0125), seconds=0.2)
    assert report.misses >= report.ticks - 1 and report.skipped >= report.ticks - 2
    assert report.tick.p50_us >= 12_500 and report.rate_hz < 90


def test_missing_every_deadline_for_long_is_a_fault(arm: RobotSpec, still: Any) -> None:
    """A streak of misses trips instead of driving a robot at a rate its policy never knew."""
    strict = SafetyLayer(arm, dataclasses.replace(GENTLE, miss_seconds=0.05))
    report = drive(still(arm, delay=0.006), seconds=5.0, safety=strict)
    assert report.faults[0].reason == "deadline_miss_streak"
    # Ten periods are 0.05 s, also where a tick takes so long that every other is skipped
    slower = SafetyLayer(arm, dataclasses.replace(GENTLE, miss_seconds=0.05))
    report = drive(still(arm, delay=0.0085), seconds=5.0, safety=slower)
    assert int(report.faults[0].detail.split()[0]) < 10


def test_a_stall_costs_one_deadline(arm: RobotSpec, still: Any) -> None:
    """A tick that ends shortly before the next deadline is followed by one that begins at it, and not by a late one."""
    slow = dataclasses.replace(arm, control_dt=0.2)
    backend = still(slow)
    send, stalls = backend.send, [0.0, 0.39, 0.0, 0.0]

    def stalled(command: np.ndarray) -> None:
        time.sleep(stalls.pop(0) if stalls else 0.0)
        send(command)

    backend.send = stalled
    report = drive(backend, seconds=0.9)
    assert report.misses == report.skipped == 1


def test_faults_of_the_mock_robot(arm: RobotSpec) -> None:
    """Poisoned, frozen and dropped readings of the mock are each met as they should be: fault, fault, borne."""
    quiet = dataclasses.replace(arm, joint_limits=())
    policy = Constant(0.01)
    poisoned = drive(MockBackend(quiet, poison=[15], poison_channel="joint_vel/elbow"), policy, seconds=5.0)
    assert poisoned.faults[0].reason == "nonfinite_reading" and "joint_vel/elbow" in poisoned.faults[0].detail
    impatient = SafetyLayer(quiet, IMPATIENT)
    frozen = drive(MockBackend(quiet, freeze_from=15), policy, seconds=5.0, safety=impatient)
    assert frozen.faults[0].reason == "stale_reading"
    dropped = drive(MockBackend(quiet, drop=[5, 6, 7, 20]), policy, seconds=0.2)
    assert dropped.faults == () and dropped.stale_readings == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_reading_that_is_not_finite_holds_the_robot(arm: RobotSpec, still: Any, bad: float) -> None:
    """From the tick of the bad reading on, the hold command goes out, readings that look well again included."""

    def poison(reading: SensorReading) -> SensorReading:
        if reading.sequence == 20:
            reading.values[0] = bad
        return reading

    backend = still(arm, poison)
    box = BlackBox.create(arm, seconds=10.0)
    report = drive(backend, seconds=2.0, options=LoopOptions(box=box))
    assert report.ended_by == "fault" and report.faults[0].reason == "nonfinite_reading"
    assert "joint_pos/shoulder" in report.faults[0].detail
    assert backend.commands[19][1] != 0.0
    assert all(command[1] == 0.0 and command[2] == 0.0 for command in backend.commands[20:])
    assert 20 + 10 <= len(backend.commands) <= 20 + 12
    flight = box.snapshot()
    assert not np.isfinite(flight.values[20, 0]) and flight.fault is not None
    assert flight.fault.reason == "nonfinite_reading" and box.status().state == State.ENDED
    assert flight.flags[19] & Flag.FAULT == 0 and flight.flags[20] & Flag.FAULT
    np.testing.assert_array_equal(flight.command, np.array(backend.commands))


def test_a_frozen_sensor_is_a_fault(arm: RobotSpec, still: Any) -> None:
    """Readings whose number stands still are borne for the time allowed and then trip."""
    backend = still(arm, lambda reading: dataclasses.replace(reading, sequence=min(reading.sequence, 10)))
    report = drive(backend, seconds=5.0, safety=SafetyLayer(arm, IMPATIENT))
    assert report.faults[0].reason == "stale_reading" and report.stale_readings > 5


def test_a_lost_robot_ends_the_loop_at_once(arm: RobotSpec, still: Any) -> None:
    """When the backend raises there is nothing left to hold: the fault is reported, not thrown."""

    def lose(reading: SensorReading) -> SensorReading:
        if reading.sequence == 5:
            raise BackendError("no answer from the robot")
        return reading

    backend = still(arm, lose)
    report = drive(backend, seconds=5.0)
    assert report.ended_by == "fault" and len(backend.commands) == 5
    assert report.faults[0].reason == "backend_lost" and "no answer" in report.faults[0].detail


def test_a_policy_that_puts_out_nan_moves_nothing(arm: RobotSpec, still: Any) -> None:
    """NaN actions become the hold command and a fault; the backend never sees them."""
    backend = still(arm)
    report = drive(backend, Constant(float("nan")), seconds=2.0)
    assert report.faults[0].reason == "nonfinite_command"
    assert all(np.isfinite(command).all() and command[1] == 0.0 for command in backend.commands)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_softly(arm: RobotSpec, still: Any, number: signal.Signals) -> None:
    """Ctrl-C fades the policy out and ends without fault, long before the time is up."""

    def interrupt(reading: SensorReading) -> SensorReading:
        if reading.sequence == 20:
            os.kill(os.getpid(), number)
        return reading

    backend = still(arm, interrupt)
    report = drive(backend, seconds=60.0)
    assert report.ended_by == number.name and report.faults == () and len(backend.commands) < 40
    assert backend.commands[-1][1] == 0.0 and any(command[1] == 2.5 for command in backend.commands)


def pressing(numbers: dict[int, signal.Signals]) -> Any:
    """What sends signals to this process at the steps given."""

    def press(reading: SensorReading) -> SensorReading:
        if reading.sequence in numbers:
            os.kill(os.getpid(), numbers[reading.sequence])
        return reading

    return press


SLOWLY = dataclasses.replace(GENTLE, soft_stop_seconds=1.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_does_not_abort_the_stop(arm: RobotSpec, still: Any, number: signal.Signals) -> None:
    """A terminal that closes sends SIGHUP more than once: the robot is brought to rest all the same."""
    backend = still(arm, pressing({20: number, 23: number, 30: signal.SIGTERM}))
    report = drive(backend, seconds=60.0, safety=SafetyLayer(arm, SLOWLY))
    assert report.ended_by == number.name and report.faults == () and len(backend.commands) >= 100
    assert backend.commands[-1][1] == 0.0 and max(abs(np.diff([c[1] for c in backend.commands[20:]]))) < 0.1


def test_a_signal_after_the_pages_stop_is_the_first_one(arm: RobotSpec, still: Any) -> None:
    """Somebody pressed stop on the page, somebody else Ctrl-C: neither has asked twice."""
    box, press = BlackBox.create(arm, seconds=5.0), pressing({40: signal.SIGINT, 45: signal.SIGTERM})

    def both(reading: SensorReading) -> SensorReading:
        if reading.sequence == 20:
            box.request_stop(StopRequest.SOFT)
        return press(reading)

    backend = still(arm, both)
    report = drive(backend, seconds=60.0, safety=SafetyLayer(arm, SLOWLY), options=LoopOptions(box=box))
    assert report.ended_by == "operator" and report.faults == () and len(backend.commands) >= 100
    assert backend.commands[-1][1] == 0.0


def test_ctrl_c_again_holds_at_once(arm: RobotSpec, still: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who presses again while it stops softly wants it held now: that is a fault, and raises nothing."""
    monkeypatch.setattr("export.real_time._INSISTING_NS", 1)
    slow = dataclasses.replace(SLOWLY, soft_stop_seconds=30.0)
    backend = still(arm, pressing({20: signal.SIGINT, 40: signal.SIGINT}))
    report = drive(backend, seconds=60.0, safety=SafetyLayer(arm, slow))
    assert report.ended_by == "fault" and [fault.reason for fault in report.faults] == ["operator_stop"]
    assert "Ctrl-C" in report.faults[0].detail
    assert 2.0 < backend.commands[39][1] < 2.5 and all(command[1] == 0.0 for command in backend.commands[40:])
    assert 10 <= len(backend.commands) - 40 < 20


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({0: 2.5}, "limit_violation"),
        ({0: np.nan}, "nonfinite_reading"),
        ({0: 0.95}, "outside_commands"),
        ({4: np.inf}, "nonfinite_reading"),
    ],
)
@pytest.mark.parametrize("measure_first", [False, True])
def test_a_robot_that_cannot_be_armed_is_sent_nothing(
    arm: RobotSpec, still: Any, first: dict[int, float], reason: str, measure_first: bool
) -> None:
    """The run ends with why in its report and its flight, and nothing has moved."""

    class Bad(still):  # type: ignore[misc, valid-type]
        def reset(self) -> SensorReading:
            reading = super().reset()
            for channel, value in first.items():
                reading.values[channel] = value
            return reading

    box, backend = BlackBox.create(arm, seconds=1.0), Bad(arm)
    options = LoopOptions(box=box, measure_first=measure_first)
    report = drive(backend, seconds=30.0, options=options)
    assert backend.commands == []
    assert (report.ended_by, [fault.reason for fault in report.faults]) == ("fault", [reason])
    assert report.ticks == 1 and report.rate_hz == 0.0 and report.stale_readings == 0
    flight = box.snapshot()
    assert flight.fault is not None and flight.fault.reason == reason and box.status().state == State.ENDED


@pytest.mark.parametrize(
    ("on_fault", "slew", "begins", "ticks"),
    [
        ("hold", 40.0, [2.3, 2.1, 1.9, 1.7], 13),
        ("damp", None, [2.0, 2.0, 2.0, 2.0], 12),
        ("damp", 40.0, [2.3, 2.1, 2.0, 2.0], 21),
    ],
)
def test_after_a_fault_the_last_command_is_rest(
    arm: RobotSpec, still: Any, on_fault: str, slew: float | None, begins: list[float], ticks: int
) -> None:
    """A drive may keep it for ever: a slew limit is waited for, and a brake does not stay on."""
    elbow = dataclasses.replace(arm.action[1], slew=slew)  # 0.2 N m a tick; it is pushed by 2.5 N m
    slewed = dataclasses.replace(arm, action=(arm.action[0], elbow, arm.action[2]))
    turning = arm.channels.index("joint_vel/elbow")

    def turn(reading: SensorReading) -> SensorReading:
        reading.values[turning] = -4.0
        return dataclasses.replace(reading, values=reading.values[:2]) if reading.sequence == 40 else reading

    backend = still(slewed, turn)
    report = drive(backend, seconds=30.0, safety=SafetyLayer(slewed, dataclasses.replace(GENTLE, on_fault=on_fault)))
    assert report.faults[0].reason == "bad_reading"
    after = [command[1] for command in backend.commands[40:]]
    if on_fault == "damp":  # nothing is damped in the tick of the fault, whose reading tells no velocity
        assert after.pop(0) == pytest.approx(2.3 if slew else 0.0)
        begins = begins[1:] if slew else begins
    np.testing.assert_allclose(after[: len(begins)], begins)
    assert len(after) == pytest.approx(ticks, abs=2) and after[-1] == 0.0


@pytest.mark.parametrize(("response", "ended_by"), [("warn", "time"), ("fault", "fault")])
def test_a_low_reward_warns_or_trips(arm: RobotSpec, still: Any, response: str, ended_by: str) -> None:
    """The monitor's verdict is reported; whether it stops the robot is the config's choice."""
    config = MonitorSpec(window_seconds=0.02, patience_seconds=0.02, response=response)
    monitor = RewardMonitor({"0.01": -1.0, "0.5": 0.0}, arm.control_dt, config)
    policy = Constant(reward=-2.0)
    report = drive(still(arm), policy, seconds=0.3, reward=policy, monitor=monitor)
    assert report.ended_by == ended_by and report.reward is not None
    assert report.reward.warnings == 1 and report.reward.mean == -2.0
    assert [fault.reason for fault in report.faults] == (["reward_below_threshold"] if response == "fault" else [])


def test_the_reward_judges_what_was_sent(arm: RobotSpec, still: Any) -> None:
    """The action scored is the one the limits let through, as the demos recorded what was sent, not what was wished."""
    policy = Constant(action=-1.0)  # -5 N m for the elbow, whose least command is -4
    monitor = RewardMonitor({"0.01": -1.0, "0.5": 0.0}, arm.control_dt)
    drive(still(arm), policy, reward=policy, monitor=monitor)
    np.testing.assert_allclose(policy.scored, [-1.0, -0.8, -1.0], atol=1e-6)


def test_no_growth_over_many_ticks(arm: RobotSpec) -> None:
    """Ten times the ticks leave no more memory behind: nothing is kept but what was allocated at the start."""
    fast = dataclasses.replace(arm, control_dt=0.0002)

    class Bare(Backend):
        """The cheapest backend: one array, one counter."""

        spec = fast
        values = np.zeros(len(fast.channels))
        sequence = 0

        def reset(self) -> SensorReading:
            self.sequence = 0
            return SensorReading(self.values, time.monotonic_ns(), 0)

        def step(self, command: np.ndarray) -> SensorReading:
            self.sequence += 1
            return SensorReading(self.values, time.monotonic_ns(), self.sequence)

        def close(self) -> None:
            pass

    def growth(seconds: float) -> tuple[int, int]:
        safety = SafetyLayer(fast, SafetySpec(soft_start_seconds=0.0, soft_stop_seconds=0.0, miss_seconds=60.0))
        options = LoopOptions()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        report = run(Bare(), Constant(), fast, seconds=seconds, safety=safety, options=options)
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after - before, report.ticks

    growth(0.05)
    (small, few), (large, many) = growth(0.05), growth(0.6)
    assert many > 2 * few and large <= small + 4000


@pytest.mark.parametrize(("request_", "ended_by"), [(StopRequest.SOFT, "operator"), (StopRequest.EMERGENCY, "fault")])
def test_the_page_stops_the_robot(arm: RobotSpec, still: Any, request_: StopRequest, ended_by: str) -> None:
    """What an operator asks for through the black box is done: a soft stop, or a fault at once."""
    box = BlackBox.create(arm, seconds=1.0)

    def press(reading: SensorReading) -> SensorReading:
        if reading.sequence == 10:
            box.request_stop(request_)
        return reading

    backend = still(arm, press)
    report = drive(backend, seconds=30.0, options=LoopOptions(box=box))
    assert report.ended_by == ended_by and report.ticks < 40
    assert [fault.reason for fault in report.faults] == ["operator_stop"] * (request_ == StopRequest.EMERGENCY)
    if request_ == StopRequest.EMERGENCY:
        assert all(command[1] == 0.0 for command in backend.commands[10:])


def test_an_attended_robot_stops_when_nobody_watches(arm: RobotSpec, still: Any) -> None:
    """With `attended`, a page that falls silent for a second is a fault."""
    box = BlackBox.create(arm, seconds=1.0)
    watching = still(arm, lambda reading: box.operator_alive(time.monotonic_ns()) or reading)
    assert drive(watching, seconds=1.5, options=LoopOptions(box=box, attended=True)).faults == ()
    report = drive(still(arm), seconds=30.0, options=LoopOptions(box=BlackBox.create(arm, seconds=1.0), attended=True))
    assert report.faults[0].reason == "operator_lost" and 0.9 < report.seconds < 5.0


def test_an_emergency_stop_is_asked_every_tick(arm: RobotSpec, still: Any) -> None:
    """The tick on which the emergency stop speaks up sends the hold command already, and it stays."""

    class Button:
        asked = caught_up = 0

        def check(self, now_ns: int) -> str | None:
            self.asked += 1
            return "estop_pressed" if self.asked == 12 else None

        def catch_up(self) -> None:
            assert backend.commands == [] and self.asked == 0
            self.caught_up += 1

    backend, button = still(arm), Button()
    report = drive(backend, seconds=30.0, options=LoopOptions(estop=button))
    assert report.faults[0].reason == "estop_pressed" and button.asked == report.ticks and button.caught_up == 1
    assert backend.commands[10][1] != 0.0 and all(command[1] == 0.0 for command in backend.commands[11:])


def test_a_real_robot_is_looked_at_first(arm: RobotSpec, still: Any) -> None:
    """With `measure_first` a command is made of what was measured at the begin of its tick, not of the step before."""
    seen: list[float] = []

    class Moving(still):  # type: ignore[misc, valid-type]
        looks = 0

        def measure(self) -> SensorReading:
            Moving.looks += 1
            self.sequence += 1
            return SensorReading(np.full(5, 1e-3 * Moving.looks), time.monotonic_ns(), self.sequence)

    class Watching(Constant):
        def act(self, observation: np.ndarray) -> np.ndarray:
            seen.append(observation[-1])
            return super().act(observation)

    report = drive(Moving(arm), Watching(), seconds=0.2, options=LoopOptions(measure_first=True))
    assert report.faults == () and Moving.looks == report.ticks
    np.testing.assert_allclose(np.diff(seen), 1e-3 / 3, rtol=1e-6)  # the arm's velocities are scaled by a third


@pytest.mark.parametrize(("period", "kept"), [(0.002, 0.0008), (0.001, 0.0004), (0.02, 0.002)])
def test_an_answer_is_not_waited_for_until_the_deadline(arm: RobotSpec, still: Any, period: float, kept: float) -> None:
    """What has to be done after the answer has its time: 0.8 ms, at most two fifths of a period, or a tenth."""
    left: list[int] = []

    class Asked(still):  # type: ignore[misc, valid-type]
        def step(self, command: np.ndarray) -> SensorReading:
            left.append(self.answer_by_ns - time.monotonic_ns())
            return super().step(command)

    drive(Asked(dataclasses.replace(arm, control_dt=period)), seconds=0.3)
    assert max(left) <= round(1e9 * (period - kept))
    assert max(left) > 0


def test_a_robot_that_is_lost_while_looked_at(arm: RobotSpec, still: Any) -> None:
    """A look that fails is a fault like a step that fails, on the first tick too; the robot is not asked again."""
    backend = still(arm)  # it cannot measure without a command
    report = drive(backend, seconds=5.0, options=LoopOptions(measure_first=True))
    assert report.faults[0].reason == "backend_lost" and report.ticks == 1 and backend.commands == []


def test_another_bundle_takes_over_between_two_ticks(arm: RobotSpec, still: Any) -> None:
    """From one command to the next the new policy decides, its reward is what is scored, and no tick is lost."""
    new = Constant(-0.25, reward=7.0)

    class Swap:
        asked = 0

        def take(self) -> Successor | None:
            self.asked += 1
            if self.asked != 30:
                return None
            return Successor(new, new, RewardMonitor({"0.01": 0.0, "0.5": 1.0}, arm.control_dt))

    backend = still(arm)
    report = drive(backend, Constant(0.5), seconds=0.3, options=LoopOptions(swap=Swap()))  # type: ignore[arg-type]
    assert report.swaps == 1 and report.faults == () and report.reward is not None and report.reward.mean == 7.0
    assert backend.commands[28][1] == 2.5 and backend.commands[29][1] == -1.25


def test_parts_of_different_robots_are_refused(arm: RobotSpec, still: Any, pristine: Path) -> None:
    """A backend or a policy of another robot, or no time to run, is refused before anything moves."""
    other = dataclasses.replace(arm, control_dt=0.01)
    backend = still(other)
    with pytest.raises(LoopError, match="backend is for arm"):
        run(backend, Constant(), arm, seconds=1.0)
    with pytest.raises(LoopError, match="policy is for arm"):
        run(backend, load_bundle(pristine)[1], other, seconds=1.0)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(LoopError, match="positive number"):
            run(still(arm), Constant(), arm, seconds=seconds)
    assert backend.commands == []
