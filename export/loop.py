"""The control loop: read, check, observe, infer, command, limit, send, monitor, wait. In real time, on the robot.

The robot answers while the loop sleeps: a tick that waits for it has less of its period left for everything else.

`run` reads from top to bottom as the robot lives it. Everything is looked up and allocated before the first tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from export.black_box import BlackBox
from export.black_box_layout import Flag, State, StopRequest
from export.clock import LatencySummary, PeriodicClock
from export.control_step import ControlStep, Policy, Reward
from export.estop import EStop
from export.hot_swap import HotSwap
from export.monitor import RewardMonitor, RewardReport
from export.real_time import RealTimeOptions, StopFlag, left_alone, stop_signals
from export.safety import Fault, SafetyLayer
from robots.backend import Backend, BackendError, SensorReading
from robots.spec import RobotSpec, ToolkitError


class LoopError(ToolkitError):
    """A loop that must not begin: parts that are not for the same robot, or no time to run."""


_OPERATOR_SILENCE_NS = 1_000_000_000  # [ns] a watching page speaks several times a second
# [ns] between the last moment for the answer of a robot and the deadline, at quick rates: who slept for it is woken
# late now and then, and then has the command to work out, the score, and the row to keep. A tick that has come to this
# moment is in a hurry, and after a miss none begins that late
_MARGIN_NS = 800_000


@dataclass(frozen=True)
class LoopOptions:
    """How the loop is run."""

    spin_ns: int = 0  # [ns] polled before each deadline instead of slept
    box: BlackBox | None = None  # gets every tick; None for a small one that nobody else reads
    # The reading that a step returns is a period old when the next begins: a simulated robot measures at the end of its
    # step, a real one right after it was sent its command. With this each tick begins with a look at the robot.
    measure_first: bool = False
    estop: EStop | None = None  # may forbid the robot to move
    attended: bool = False  # somebody must watch the page; without their heartbeat the robot stops
    swap: HotSwap | None = None  # another bundle for the same robot may take over between two ticks
    real_time: RealTimeOptions = field(default_factory=RealTimeOptions)


@dataclass(frozen=True)
class LoopReport:
    """What a run was like."""

    ticks: int  # that were run
    seconds: float  # [s] from the begin of the first tick to the end of the last
    rate_hz: float  # [1/s] at which ticks began
    target_hz: float  # [1/s] 1 / control_dt
    misses: int  # ticks that ended after their deadline
    skipped: int  # whole periods in which no tick began
    compute: LatencySummary  # reading in hand -> command ready
    tick: LatencySummary  # the same, plus receiving, sending, and the monitor: what must fit into a period
    wake: LatencySummary  # deadline -> awake
    stale_readings: int  # that repeated one already seen
    swaps: int  # bundles that took over
    ended_by: str  # "time" | "SIGINT" | "SIGTERM" | "SIGHUP" | "operator" | "fault"
    faults: tuple[Fault, ...]  # empty, or the one that was latched
    reward: RewardReport | None  # None when no reward was monitored
    granted: dict[str, str]  # real-time wishes -> "granted" or why not


def run(
    backend: Backend,
    policy: Policy,
    spec: RobotSpec,
    *,
    seconds: float,
    reward: Reward | None = None,
    safety: SafetyLayer | None = None,
    monitor: RewardMonitor | None = None,
    options: LoopOptions | None = None,
) -> LoopReport:
    """Drives a robot with a policy, in real time, until the time is up, someone stops it, or a fault does.

    The robot is started softly and stopped softly; after a fault it is held or damped until it rests, then the loop
    ends. Where the very first reading is a fault, nothing is sent. A second Ctrl-C, half a second or more after the
    first, is a fault, too: the robot is held at once. Closing the backend is the caller's business.

    Args:
        backend: The robot or its stand-in.
        policy: The policy.
        spec: The robot as the policy knows it.
        seconds: [s] to run before the soft stop begins.
        reward: The learned reward; scored only when there is a monitor.
        safety: The safety layer; None for one with the defaults.
        monitor: Compares the reward with the demos'; None = not monitored.
        options: How; None for the defaults.

    Returns:
        What the run was like.

    Raises:
        LoopError: Policy, backend and spec are not for the same robot, or `seconds` is not positive.
        BackendError: The robot cannot be reached at the start; later that is a fault.
    """
    _check_same_robot(backend, policy, spec, seconds)
    safety, options = safety or SafetyLayer(spec), options or LoopOptions()
    step = ControlStep(spec, policy, safety, reward if monitor else None, monitor)
    box = options.box or BlackBox.create(spec, seconds=1.0)
    try:
        report = _drive(backend, step, safety, box, seconds, options)
        box.set_state(State.ENDED)  # not after an exception: then the controller is lost, and its flight is of interest
        return report
    finally:
        if options.box is None:
            box.close()


def _start(
    backend: Backend, clock: PeriodicClock, estop: EStop | None, safety: SafetyLayer, end: _Ending
) -> tuple[SensorReading, int]:
    reading = backend.reset()
    if estop is not None:
        estop.catch_up()  # getting to the start may have taken long
    started = clock.start()
    if not safety.arm(reading, started):
        end.let_go()
    return reading, started


def _drive(
    backend: Backend, step: ControlStep, safety: SafetyLayer, box: BlackBox, seconds: float, options: LoopOptions
) -> LoopReport:
    spec, config = backend.spec, safety.config
    period_ns = round(spec.control_dt * 1e9)
    margin_ns = max(period_ns // 10, min(2 * period_ns // 5, _MARGIN_NS))
    clock = PeriodicClock(period_ns, options.spin_ns, margin_ns)
    compute, tick, wake = (box.histogram(name) for name in ("compute", "tick", "wake"))
    end = _Ending(safety, round(seconds / spec.control_dt), round(config.fault_seconds / spec.control_dt))
    longest_streak = round(config.miss_seconds / spec.control_dt)

    with stop_signals() as stop, left_alone(options.real_time) as granted:
        reading, started = _start(backend, clock, options.estop, safety, end)
        outcome: SensorReading | None = reading
        outside = _Outside(box, options, stop, safety, started)
        while True:
            begin = clock.now()
            box.beat(
                begin, clock.ticks, clock.misses, clock.skipped, safety.stale_readings, safety.blend, step.window_mean
            )
            outside.look(step, begin)
            backend.answer_by_ns = hurry_ns = clock.deadline_ns - margin_ns
            # What the robot answered to the last command while this process slept
            reading = outcome or end.asked(reading, backend.receive)
            if options.measure_first:
                reading = end.asked(reading, backend.measure)
            seen = clock.now()
            command = step.command(reading, seen)
            ready = clock.now()
            end.told(backend.send, command)
            outcome = end.asked(reading, backend.receive) if step.needs_outcome else None
            step.score(outcome, command, ready, clock.now() > hurry_ns)
            done = clock.now()
            flags = step.flags | (Flag.MISSED if clock.miss_streak else 0)
            box.record(
                reading, step.observation, step.wanted, command, step.reward_value,
                done - begin, clock.lateness_ns, flags,
            )  # fmt: skip
            compute.add(ready - seen)
            tick.add(done - begin)
            outside.tell()
            if end.reached(clock.ticks + 1, stop):
                break
            clock.wait()
            wake.add(clock.lateness_ns)
            if clock.miss_streak > 1 and clock.lost_streak >= longest_streak:
                detail = f"{clock.miss_streak} deadlines missed in a row, over {clock.lost_streak} periods"
                safety.trip("deadline_miss_streak", detail, clock.now())
        elapsed = (clock.now() - started) * 1e-9
        between = (begin - started) * 1e-9  # from the begin of the first tick to the begin of the last

    return LoopReport(
        ticks=tick.count, seconds=elapsed, rate_hz=(tick.count - 1) / max(between, 1e-9),
        target_hz=1.0 / spec.control_dt, misses=clock.misses, skipped=clock.skipped,
        compute=compute.summary(), tick=tick.summary(), wake=wake.summary(),
        stale_readings=safety.stale_readings, swaps=step.swaps,
        ended_by=end.reason, faults=(safety.fault,) if safety.fault else (),
        reward=step.monitor.report() if step.monitor else None, granted=granted,
    )  # fmt: skip


class _Outside:
    """What comes from other people and processes, looked at once a tick, and what they are told."""

    def __init__(
        self, box: BlackBox, options: LoopOptions, stop: StopFlag, safety: SafetyLayer, started_ns: int
    ) -> None:
        self._box, self._estop, self._attended, self._swap = box, options.estop, options.attended, options.swap
        self._stop, self._safety, self._started_ns = stop, safety, started_ns
        self._told: State | None = None

    def look(self, step: ControlStep, now_ns: int) -> None:
        """Before the command is made: may trip, begin a soft stop, or change the policy."""
        if self._stop.insisted:
            self._safety.trip("operator_stop", "Ctrl-C was pressed again while it was stopped softly", now_ns)
        request = self._box.stop_request
        if request:
            if request >= StopRequest.EMERGENCY:
                self._safety.trip("operator_stop", "the emergency stop was pressed on the page", now_ns)
            elif self._stop.reason is None:
                self._stop.reason = "operator"
        if self._estop is not None:
            reason = self._estop.check(now_ns)
            if reason is not None:
                self._safety.trip(reason, "the emergency stop forbids the robot to move", now_ns)
        if self._attended:
            silent_ns = now_ns - max(self._box.operator_heartbeat_ns, self._started_ns)
            if silent_ns > _OPERATOR_SILENCE_NS:
                self._safety.trip("operator_lost", f"no page has been watched for {silent_ns / 1e9:.1f} s", now_ns)
        if self._swap is not None:
            successor = self._swap.take()
            if successor is not None:
                step.replace(successor)

    def tell(self) -> None:
        """After the tick: the state, and the fault once there is one."""
        safety = self._safety
        if safety.fault is not None:
            state = State.FAULT
        elif safety.stopping:
            state = State.STOPPING
        else:
            state = State.RUNNING if safety.blend >= 1.0 else State.SOFT_START
        if state is not self._told:
            self._told = state
            self._box.set_state(state)
            if safety.fault is not None:
                self._box.latch_fault(safety.fault.reason, safety.fault.detail, safety.fault.timestamp_ns)


class _Ending:
    """Decides when the loop is over: after a soft stop, or some time after a fault."""

    def __init__(self, safety: SafetyLayer, ticks: int, fault_ticks: int) -> None:
        self._safety, self._ticks, self._fault_ticks = safety, ticks, fault_ticks
        self._last_tick: int | None = None
        self._let_go = False  # nothing more is sent
        self.reason = "time"

    def asked(self, last: SensorReading, ask: Callable[[], SensorReading]) -> SensorReading:
        """The answer of a robot, or the last one when there is no robot any more, which is a fault."""
        if not self._let_go:
            try:
                return ask()
            except BackendError as error:
                self._lose(error)
        return last

    def told(self, tell: Callable[[np.ndarray], None], command: np.ndarray) -> None:
        """Tells the robot something if there still is one."""
        if not self._let_go:
            try:
                tell(command)
            except BackendError as error:
                self._lose(error)

    def _lose(self, error: BackendError) -> None:
        self._safety.trip("backend_lost", str(error), time.monotonic_ns())
        self._let_go = True

    def let_go(self) -> None:
        """The robot is sent nothing, from now on: it could not be armed, so nobody knows what would hold it."""
        self._let_go = True

    def reached(self, ticks: int, stop: StopFlag) -> bool:
        if self._safety.fault is not None:
            self.reason = "fault"
            if self._last_tick is None:
                self._last_tick = ticks + self._fault_ticks
            if self._let_go or ticks < self._last_tick:
                return self._let_go
            # What it is told last it may keep for ever, so that must be rest, at which a slew limit arrives late
            self._safety.stop_damping()
            return not self._safety.moving() or ticks > self._last_tick + self._safety.limits.rest_periods
        if not self._safety.stopping and (ticks >= self._ticks or stop.reason is not None):
            self.reason = stop.reason or "time"
            self._safety.soft_stop()
        return self._safety.stopped


def _check_same_robot(backend: Backend, policy: Policy, spec: RobotSpec, seconds: float) -> None:
    if not 0.0 < seconds < float("inf"):
        raise LoopError(f"seconds {seconds!r}; legal is a positive number")
    for what, other in (("backend", backend.spec), ("policy", getattr(policy, "spec", None))):
        if other is not None and other.sha256 != spec.sha256:
            raise LoopError(
                f"{what} is for {other.name} ({other.sha256[:12]}), the loop for {spec.name} ({spec.sha256[:12]}): "
                "specs must be equal"
            )
