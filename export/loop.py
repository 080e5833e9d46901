"""The control loop: read, check, observe, infer, command, limit, send, monitor, wait. In real time, on the robot.

`run` reads from top to bottom as the robot lives it. Everything is looked up and allocated before the first tick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from export.clock import LatencyHistogram, LatencySummary, PeriodicClock
from export.flight_log import FlightLog, FlightLogError
from export.monitor import RewardMonitor, RewardReport
from export.real_time import RealTimeOptions, StopFlag, left_alone, stop_signals
from export.safety import Fault, SafetyLayer
from robots.backend import Backend, BackendError, SensorReading
from robots.command import CommandMap
from robots.observation import ObservationMap
from robots.spec import RobotSpec, ToolkitError


class LoopError(ToolkitError):
    """A loop that must not begin: parts that are not for the same robot, or no time to run."""


class Policy(Protocol):
    """Observation in, action out: `OnnxPolicy`, or anything else that answers in time."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """(obs_dim,) -> (act_dim,) dimensionless."""
        ...


class Reward(Protocol):
    """The reward of one step: `OnnxReward`, or anything else."""

    uses_next_observation: bool

    def score(self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray | None = None) -> float:
        """(obs_dim,), (act_dim,), (obs_dim,) or None -> reward."""
        ...


@dataclass(frozen=True)
class LoopOptions:
    """How the loop is run."""

    spin_ns: int = 0  # [ns] polled before each deadline instead of slept
    log_seconds: float = 30.0  # [s] kept by the flight recorder
    log_path: Path | None = None  # written at the end of every run; None = not at all unless `fault_log_path` is
    fault_log_path: Path | None = None  # written when a fault ended the run and `log_path` is None
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
    tick: LatencySummary  # the same, plus sending, the robot's answer, and the monitor: what must fit into a period
    wake: LatencySummary  # deadline -> awake
    stale_readings: int  # that repeated one already seen
    ended_by: str  # "time" | "SIGINT" | "SIGTERM" | "fault"
    faults: tuple[Fault, ...]  # empty, or the one that was latched
    reward: RewardReport | None  # None when no reward was monitored
    granted: dict[str, str]  # real-time wishes -> "granted" or why not
    log_path: Path | None  # the flight log, where one was written
    log_error: str | None  # why one that was due is not there


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

    The robot is started softly and stopped softly; after a fault it is held or damped, then the loop ends. Closing the
    backend is the caller's business.

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
    safety = safety or SafetyLayer(spec)
    step = _Step(spec, policy, safety, reward if monitor else None, monitor)
    return _drive(backend, step, safety, seconds, options or LoopOptions())


def _drive(backend: Backend, step: _Step, safety: SafetyLayer, seconds: float, options: LoopOptions) -> LoopReport:
    spec = backend.spec
    clock = PeriodicClock(round(spec.control_dt * 1e9), options.spin_ns)
    compute, tick, wake = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    flight = FlightLog(spec, options.log_seconds)
    end = _Ending(safety, round(seconds / spec.control_dt), round(safety.config.fault_seconds / spec.control_dt))
    longest_streak = max(2, round(safety.config.miss_seconds / spec.control_dt))

    with stop_signals() as stop, left_alone(options.real_time) as granted:
        reading = backend.reset()
        started = clock.start()
        safety.arm(reading, started)
        while True:
            begin = clock.now()
            command = step.command(reading, begin)
            ready = clock.now()
            measured = reading
            try:
                reading = backend.step(command)
            except BackendError as error:
                safety.trip("backend_lost", str(error), ready)
                end.robot_lost = True
            step.score(reading, command, ready)
            flight.record(measured, step.observation, step.wanted, command, step.reward_value)
            compute.add(ready - begin)
            tick.add(clock.now() - begin)
            if end.reached(clock.ticks + 1, stop):
                break
            clock.wait()
            wake.add(clock.lateness_ns)
            if clock.miss_streak >= longest_streak:
                safety.trip("deadline_miss_streak", f"{clock.miss_streak} deadlines missed in a row", clock.now())
        elapsed = (clock.now() - started) * 1e-9
        between = (begin - started) * 1e-9  # from the begin of the first tick to the begin of the last

    log_path, log_error = _save(flight, options, safety.fault)
    return LoopReport(
        ticks=tick.count, seconds=elapsed, rate_hz=(tick.count - 1) / max(between, 1e-9),
        target_hz=1.0 / spec.control_dt, misses=clock.misses, skipped=clock.skipped,
        compute=compute.summary(), tick=tick.summary(), wake=wake.summary(),
        stale_readings=safety.stale_readings, ended_by=end.reason, faults=(safety.fault,) if safety.fault else (),
        reward=step.monitor.report() if step.monitor else None, granted=granted,
        log_path=log_path, log_error=log_error,
    )  # fmt: skip


def _save(flight: FlightLog, options: LoopOptions, fault: Fault | None) -> tuple[Path | None, str | None]:
    """Writes the flight log if one is due; a full disk must not hide the report, least of all a fault."""
    path = options.log_path or (options.fault_log_path if fault else None)
    if path is None:
        return None, None
    try:
        return flight.save(path, fault), None
    except FlightLogError as error:
        return None, str(error)


class _Step:
    """From a reading to a command, and from what came of it to a score: buffers made once."""

    def __init__(
        self, spec: RobotSpec, policy: Policy, safety: SafetyLayer, reward: Reward | None, monitor: RewardMonitor | None
    ) -> None:
        self._policy, self._safety, self._reward, self.monitor = policy, safety, reward, monitor
        self._observe, self._map = ObservationMap(spec), CommandMap(spec)
        # Assembled where the policy reads it, if it lets us: what is not copied costs nothing.
        own = getattr(policy, "observation_buffer", None)
        self.observation, self._next = np.zeros(spec.obs_dim) if own is None else own, np.zeros(spec.obs_dim)
        self.wanted = safety.limits.rest.copy()  # what the policy last wanted
        self._applied = np.zeros(spec.act_dim)
        self._scored = False
        self.reward_value = float("nan")

    def command(self, reading: SensorReading, now_ns: int) -> np.ndarray:
        usable = self._safety.check_reading(reading, now_ns)
        if usable:
            self._observe(reading.values, out=self.observation)
            self._map.command(self._policy.act(self.observation), out=self.wanted)
        # While it is blended in or out, the policy is not what moves the robot, and must not be judged by it.
        self._scored = usable and self._safety.blend >= 1.0 and not self._safety.stopping
        return self._safety.limit(self.wanted)

    def score(self, after: SensorReading, command: np.ndarray, now_ns: int) -> None:
        self.reward_value = float("nan")
        if self._reward is None or self.monitor is None or not self._scored or self._safety.fault is not None:
            return
        following = None
        if self._reward.uses_next_observation:
            following = self._observe(after.values, out=self._next)
        # The action that was really applied, after every limit: the demos' actions are what was sent, too.
        np.subtract(command, self._map.offset, out=self._applied)
        np.divide(self._applied, self._map.scale, out=self._applied)
        self.reward_value = self._reward.score(self.observation, self._applied, following)
        reason = self.monitor.update(self.reward_value)
        if reason is not None and self.monitor.config.response == "fault":
            detail = f"window mean {self.monitor.window_mean:g}, threshold {self.monitor.threshold:g}"
            self._safety.trip(reason, detail, now_ns)


class _Ending:
    """Decides when the loop is over: after a soft stop, or some time after a fault."""

    def __init__(self, safety: SafetyLayer, ticks: int, fault_ticks: int) -> None:
        self._safety, self._ticks, self._fault_ticks = safety, ticks, fault_ticks
        self._last_tick: int | None = None
        self.robot_lost = False  # nothing is left to hold
        self.reason = "time"

    def reached(self, ticks: int, stop: StopFlag) -> bool:
        if self._safety.fault is not None:
            self.reason = "fault"
            if self._last_tick is None:
                self._last_tick = ticks + self._fault_ticks
            return self.robot_lost or ticks >= self._last_tick
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
