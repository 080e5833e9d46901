"""Records one episode: an operator acts on a robot or its stand-in, and every step is written down as it happens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from demos.episode import Episode
from demos.journal import Journal
from demos.operators import Operator
from demos.stage import BackendStage, Moment, TaskEnvironment, TaskStage, stage_for
from robots.backend import Backend, BackendError
from robots.spec import RobotSpec, ToolkitError

OnStep = Callable[[int], bool]  # steps recorded so far -> whether to go on

_SHOWN = 80  # characters of what an operator gave, in a message


class RecordingError(ToolkitError):
    """Recording cannot go on: the robot measures, or the operator wants, what no demonstration may hold."""


class _Steps:
    """What has been recorded so far, in memory and, if there is one, in the journal."""

    def __init__(self, spec: RobotSpec, journal: Journal | None, measured_time: bool) -> None:
        self._spec, self._journal, self._measured_time = spec, journal, measured_time
        self.observations: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.timestamps: list[float] = []
        self._start_ns: int | None = None

    def begin(self, moment: Moment) -> None:
        self._start_ns = moment.measured_ns
        self._observe(moment, 0.0)
        if self._journal is not None:
            self._journal.start(moment.observation, 0.0)

    def add(self, action: np.ndarray, moment: Moment) -> None:
        step = len(self.actions) + 1
        timestamp = step * self._spec.control_dt
        if self._measured_time and self._start_ns is not None and moment.measured_ns is not None:
            timestamp = (moment.measured_ns - self._start_ns) * 1e-9
        self._observe(moment, timestamp)
        self.actions.append(action)
        self.rewards.append(moment.reward)
        if self._journal is not None:
            self._journal.step(action, moment.reward, moment.observation, timestamp)

    def _observe(self, moment: Moment, timestamp: float) -> None:
        step = len(self.observations)
        if not np.isfinite(moment.observation).all():
            i = int(np.flatnonzero(~np.isfinite(moment.observation))[0])
            name, value = self._spec.observation_names[i], moment.observation[i]
            raise RecordingError(f"the robot measured {value} for {name} at step {step}; recording stopped there")
        if self.timestamps and timestamp <= self.timestamps[-1]:
            before = self.timestamps[-1]
            raise RecordingError(f"the robot's clock went from {before:.9g} s to {timestamp:.9g} s at step {step}")
        self.observations.append(moment.observation)
        self.timestamps.append(timestamp)


def record_episode(
    backend: Backend | TaskEnvironment,
    operator: Operator,
    spec: RobotSpec,
    *,
    seed: int,
    max_steps: int,
    real_time: bool = False,
    journal: Journal | None = None,
    on_step: OnStep | None = None,
) -> Episode:
    """Records from reset to end.

    Args:
        backend: The robot or its stand-in; or a task environment, whose true rewards are kept for reports.
        operator: Who acts. It sees the float32 observation that is stored.
        spec: The robot.
        seed: Handed to the operator and kept with the episode. Seeding the backend is the caller's business.
        max_steps: Time limit; reaching it is a truncation.
        real_time: Keep the robot's control period by the wall clock, and take timestamps from its readings. Without it
            the backend must be simulated: it goes as fast as it can, and its clock is control_dt a step.
        journal: Gets every step as it happens.
        on_step: Called after each step; False ends the episode as interrupted.

    Returns:
        The episode. Its actions are what was really sent: clipped to [-1, 1], in float32.

    Raises:
        RecordingError: The operator or the robot gave what is no number, not finite or of the wrong shape, or the
            robot's first reading is its last.
        BackendError: The robot failed. What happened until then is in the journal.
        StoreError: The disk would not take the journal.
    """
    stage = stage_for(backend, spec)
    start_time_ns = time.time_ns() if journal is None else journal.header.start_time_ns
    steps = _Steps(spec, journal, measured_time=real_time)
    operator.reset(seed)
    moment = stage.reset()
    steps.begin(moment)
    pace = _Pace(spec.control_dt) if real_time else None
    ended_by = None
    while ended_by is None:
        step = len(steps.actions)
        # A copy, since a controller may work in what it is handed, and the demo is of what was measured
        action = _checked_action(operator(moment.observation.copy(), step), spec, step)
        moment = stage.step(action)
        ended_by = moment.ended_by
        if ended_by == "interrupted":
            break
        steps.add(action, moment)
        if ended_by is None and step + 1 >= max_steps:
            ended_by = "truncation"
        if on_step is not None and not on_step(step + 1):
            ended_by = ended_by or "interrupted"
        if pace is not None:
            pace.wait()
    about = {"operator": operator.name, "task": spec.task or "", "seed": seed, "start_time_ns": start_time_ns}
    episode = _finished(steps, journal, ended_by, **about)
    _bring_to_rest(stage, pace)
    return episode


def _bring_to_rest(stage: BackendStage | TaskStage, pace: _Pace | None) -> None:
    if pace is not None:  # a robot, which keeps its last command
        with contextlib.suppress(BackendError):  # who refuses holds it already, and the episode is whole
            for _ in stage.rest():
                pace.wait()


def _finished(steps: _Steps, journal: Journal | None, ended_by: str, **about: Any) -> Episode:
    if not steps.actions:
        raise RecordingError("the robot repeats its first reading: it measures nothing new")
    if journal is not None:
        journal.finish(ended_by)
    rewards = np.array(steps.rewards, np.float32)
    return Episode(
        observations=np.stack(steps.observations),
        actions=np.stack(steps.actions),
        timestamps=np.array(steps.timestamps, np.float64),
        rewards=None if np.isnan(rewards).all() else rewards,
        ended_by=ended_by,
        **about,
    )


class _Pace:
    """Keeps the control period: whole periods that were missed are skipped, so the phase stays."""

    def __init__(self, control_dt: float) -> None:
        self._period_ns = round(control_dt * 1e9)
        self._deadline_ns = time.monotonic_ns()

    def wait(self) -> None:
        now_ns = time.monotonic_ns()
        self._deadline_ns += self._period_ns * max(1, -(-(now_ns - self._deadline_ns) // self._period_ns))
        time.sleep((self._deadline_ns - now_ns) * 1e-9)


def _checked_action(came: object, spec: RobotSpec, step: int) -> np.ndarray:
    try:
        action = np.asarray(came)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a ragged list, or a tensor with a gradient
        raise RecordingError(f"{_no_numbers(came, spec, step)} ({' '.join(str(error).split())})") from error
    if action.dtype.kind not in "fiub":
        raise RecordingError(_no_numbers(came, spec, step))
    if action.shape != (spec.act_dim,):
        raise RecordingError(
            f"the operator gave an action of shape {action.shape}; {spec.name} takes ({spec.act_dim},): "
            f"{', '.join(spec.action_names)}"
        )
    if not np.isfinite(action).all():
        i = int(np.flatnonzero(~np.isfinite(action))[0])
        raise RecordingError(
            f"the operator wants {action[i]} of {spec.action_names[i]} at step {step}; nothing was sent"
        )
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _no_numbers(came: object, spec: RobotSpec, step: int) -> str:
    shown = " ".join(repr(came).split())
    shown = f"{shown[:_SHOWN]}..." if len(shown) > _SHOWN else shown
    return f"the operator gave {shown} at step {step}; {spec.name} takes {spec.act_dim} numbers; nothing was sent"
