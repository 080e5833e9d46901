"""Who acts while an episode is recorded: at random, by a script, or by a policy.

An operator is anything with a `name`, `reset(seed)`, and a call from observation (obs_dim,) and step number to action
(act_dim,). Policies are handed in as functions, so nothing here needs to know where they come from.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from robots.spec import RobotSpec, ToolkitError

_SCRIPT_KEYS = ("time", "action")
# What numpy and yaml raise for bytes that are no table of numbers, or a far too large one
_UNREADABLE = (
    OSError, ValueError, TypeError, IndexError, OverflowError, EOFError, MemoryError, RecursionError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error, yaml.YAMLError,
)  # fmt: skip


class OperatorError(ToolkitError):
    """An operator that cannot act on this robot."""


class Operator(Protocol):
    """Decides what the robot does."""

    name: str  # kept with each episode

    def reset(self, seed: int) -> None:
        """Begins an episode; the same seed gives the same actions for the same observations."""
        ...

    def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
        """Action (act_dim,), dimensionless, for `observation` (obs_dim,) float32 at `step`, counted from 0."""
        ...


class RandomOperator:
    """Smoothed random actions: a_t = s a_(t-1) + sqrt(1 - s^2) n_t, clipped, with n_t normal."""

    def __init__(self, spec: RobotSpec, smoothness: float = 0.9) -> None:
        """Makes the operator.

        Args:
            spec: The robot.
            smoothness: s in [0, 1): 0 is white noise, near 1 moves slowly.

        Raises:
            OperatorError: `smoothness` outside [0, 1).
        """
        if not 0.0 <= smoothness < 1.0:
            raise OperatorError(f"smoothness {smoothness}; legal is 0 up to, but not including, 1")
        self.name = "random"
        self._act_dim, self._smoothness = spec.act_dim, smoothness
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Draws the first action's past, so that the first step is as random as any other."""
        self._rng = np.random.default_rng([seed, 0xAC7])
        self._state = self._rng.standard_normal(self._act_dim)

    def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
        """Action (act_dim,) in [-1, 1]; looks at nothing."""
        noise = self._rng.standard_normal(self._act_dim)
        self._state = self._smoothness * self._state + np.sqrt(1.0 - self._smoothness**2) * noise
        return np.clip(self._state, -1.0, 1.0)


class ScriptOperator:
    """Plays a table of actions, and holds the last one when the table ends."""

    def __init__(self, actions: np.ndarray, name: str = "script") -> None:
        """Takes the table.

        Args:
            actions: (T, act_dim) in [-1, 1]; `read_script` and `wave` make them.
            name: Kept with each episode.
        """
        self.name = name
        self.actions = actions

    def reset(self, seed: int) -> None:
        """Nothing: a script is the same each time."""

    def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
        """Row `step` of the table, (act_dim,)."""
        return self.actions[min(step, len(self.actions) - 1)]


class PolicyOperator:
    """A policy, with noise on its actions if wanted: demonstrations of recovery are worth more than perfect ones."""

    def __init__(self, act: Callable[[np.ndarray], np.ndarray], name: str, noise: float = 0.0) -> None:
        """Wraps a policy.

        Args:
            act: Action (act_dim,) for an observation (obs_dim,).
            name: Kept with each episode.
            noise: Standard deviation of what is added to each action, dimensionless, finite and at least 0.

        Raises:
            OperatorError: Other noise.
        """
        if not 0.0 <= noise < np.inf:
            raise OperatorError(f"noise {noise}; legal is a finite number, 0 or more")
        self.name = f"{name} noise {noise:g}" if noise else name
        self._act, self._noise = act, noise
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begins the noise anew, and lets a policy that remembers forget."""
        self._rng = np.random.default_rng([seed, 0x9015E])
        forget = getattr(self._act, "reset", None)
        if forget is not None:
            forget()

    def __call__(self, observation: np.ndarray, step: int) -> np.ndarray:
        """The policy's action (act_dim,), noise included; what is no numbers is left for whoever records to refuse."""
        action = self._act(observation)
        if not self._noise:
            return action
        try:
            return np.asarray(action) + self._noise * self._rng.standard_normal(np.shape(action))
        except (TypeError, ValueError, RuntimeError):
            return action


def wave(spec: RobotSpec, steps: int, amplitude: float = 0.5, hz: float = 1.0) -> np.ndarray:
    """A script for a first try: every actuator swings, each a little later than the one before.

    Args:
        spec: The robot.
        steps: T.
        amplitude: Of the action, dimensionless.
        hz: [1/s] swings per second.

    Returns:
        (T, act_dim) actions.
    """
    time = np.arange(steps)[:, None] * spec.control_dt
    phase = np.arange(spec.act_dim) * 2.0 * np.pi / spec.act_dim
    return amplitude * np.sin(2.0 * np.pi * hz * time - phase)


def read_script(path: str | Path, spec: RobotSpec) -> np.ndarray:
    """Reads a table of actions from a file.

    Args:
        path: `.npy` or `.csv` with one row a step, a column an actuator (a CSV's first line names them, in any order);
            or `.yaml` with keyframes, a list of `{time: 0.5, action: {bthigh: 1.0}}`, joined by straight lines; an
            actuator not named in a keyframe stays where it was.
        spec: The robot.

    Returns:
        (T, act_dim) actions in [-1, 1].

    Raises:
        OperatorError: Not readable, not the robot's actuators, not finite, or outside [-1, 1].
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv, ".yaml": _read_keyframes, ".yml": _read_keyframes}
    if path.suffix not in readers:
        raise OperatorError(f"{path}: a script is one of {', '.join(readers)}")
    try:
        actions = readers[path.suffix](path, spec)
    except _UNREADABLE as error:
        raise OperatorError(f"{path}: not readable as a script: {' '.join(str(error).split())}") from error
    if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] != spec.act_dim:
        raise OperatorError(
            f"{path}: a table of shape {actions.shape}; {spec.name} takes (steps, {spec.act_dim}): "
            f"{', '.join(spec.action_names)}"
        )
    wrong = np.argwhere(~(np.abs(actions) <= 1.0))
    if len(wrong):
        t, i = wrong[0]
        raise OperatorError(f"{path}: action {actions[t, i]:g} of {spec.action_names[i]} at step {t}; legal is -1 to 1")
    return actions


def _read_npy(path: Path, spec: RobotSpec) -> np.ndarray:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "fiub":
        came = loaded.dtype if isinstance(loaded, np.ndarray) else "several arrays"
        raise OperatorError(f"{path}: {came} where one array of numbers belongs")
    return loaded.astype(np.float64)


def _read_csv(path: Path, spec: RobotSpec) -> np.ndarray:
    names = [name.strip() for name in path.read_text(encoding="utf-8").partition("\n")[0].split(",")]
    if sorted(names) != sorted(spec.action_names):
        raise OperatorError(f"{path}: columns {', '.join(names)}; {spec.name} has {', '.join(spec.action_names)}")
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    if table.shape[1] != len(names):
        raise OperatorError(f"{path}: rows of {table.shape[1]} numbers under {len(names)} columns; {len(table)} rows")
    return table[:, [names.index(name) for name in spec.action_names]]


def _read_keyframes(path: Path, spec: RobotSpec) -> np.ndarray:
    frames: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(frames, list) or not frames:
        raise OperatorError(
            f"{path}: expected a list of keyframes such as {{time: 0.5, action: {{{spec.action_names[0]}: 1.0}}}}"
        )
    times, rows = [], [np.zeros(spec.act_dim)]
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or set(frame) != set(_SCRIPT_KEYS) or not isinstance(frame["action"], dict):
            raise OperatorError(f"{path}: keyframe {i} needs the keys {' and '.join(_SCRIPT_KEYS)}, and no other")
        row = rows[-1].copy()
        for name, value in frame["action"].items():
            if name not in spec.action_names:
                raise OperatorError(f"{path}: keyframe {i} moves {name!r}; legal are {', '.join(spec.action_names)}")
            row[spec.action_names.index(name)] = _number(path, i, value)
        times.append(_number(path, i, frame["time"]))
        rows.append(row)
    if times[0] < 0.0 or (np.diff(times) <= 0.0).any():
        raise OperatorError(f"{path}: keyframes at {times} s; their times must increase from 0")
    clock = np.arange(round(times[-1] / spec.control_dt) + 1) * spec.control_dt
    return np.stack([np.interp(clock, times, column) for column in np.array(rows[1:]).T], axis=1)


def _number(path: Path, i: int, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise OperatorError(f"{path}: keyframe {i} has {value!r} where a finite number belongs")
    return float(value)
