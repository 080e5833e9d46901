"""Episode: one demonstration from reset to end, as one frozen record that checks itself."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robots.spec import RobotSpec, ToolkitError

ENDINGS = ("truncation", "termination", "interrupted")  # the position is the code a store keeps


class EpisodeError(ToolkitError):
    """A demonstration that cannot be used as it stands."""


@dataclass(frozen=True, eq=False, repr=False)
class Episode:
    """What an expert did. T is its number of steps; equality is by `sha256`.

    Raises:
        EpisodeError: A shape, type or value that a demonstration cannot have, named with its step and element.
    """

    observations: np.ndarray  # (T+1, obs_dim) float32; the last one is s' of the last step
    actions: np.ndarray  # (T, act_dim) float32, dimensionless: what was really sent; all NaN = nobody knows
    timestamps: np.ndarray  # (T+1,) float64 [s] since the episode began, when each observation was measured
    ended_by: str  # "truncation" (time limit) | "termination" (of the task) | "interrupted" (by a person or a fault)
    rewards: np.ndarray | None = None  # (T,) float32 true task reward, NaN = unknown; for reports, never for learning
    operator: str = ""  # who or what acted
    task: str = ""  # what was to be done
    seed: int = -1  # of the reset, -1 = unknown
    start_time_ns: int = 0  # [ns] since the Unix epoch, 0 = unknown
    success: bool | None = None  # None = unknown

    def __post_init__(self) -> None:
        """Checks everything."""
        if self.ended_by not in ENDINGS:
            raise EpisodeError(f"ended_by {self.ended_by!r}; legal are {', '.join(ENDINGS)}")
        for name, dtype, ndim in (
            ("observations", "float32", 2),
            ("actions", "float32", 2),
            ("timestamps", "float64", 1),
        ):
            _check_array(name, getattr(self, name), dtype, ndim, unknown=name == "actions")
        steps = len(self.actions)
        if steps == 0 or self.actions.shape[1] == 0 or self.observations.shape[1] == 0:
            raise EpisodeError("an episode needs at least one step, one observation element and one action element")
        for name in ("observations", "timestamps"):
            if len(getattr(self, name)) != steps + 1:
                raise EpisodeError(f"{len(getattr(self, name))} {name} for {steps} actions; expected {steps + 1}")
        backwards = np.flatnonzero(np.diff(self.timestamps) <= 0.0)
        if len(backwards):
            t = int(backwards[0]) + 1
            before, after = self.timestamps[t - 1 : t + 1]
            raise EpisodeError(f"timestamps must increase: {before:.9g} s is followed by {after:.9g} s at step {t}")
        if self.rewards is not None:
            if self.rewards.dtype != np.float32 or self.rewards.shape != (steps,):
                raise EpisodeError(
                    f"rewards of shape {self.rewards.shape} and type {self.rewards.dtype}; expected ({steps},) float32"
                )
            if np.isinf(self.rewards).any():
                raise EpisodeError(f"rewards: infinite at step {int(np.flatnonzero(np.isinf(self.rewards))[0])}")

    def __repr__(self) -> str:
        """Shapes instead of numbers."""
        return (
            f"Episode(observations={self.observations.shape}, actions={self.actions.shape}, return={self.return_:.6g}, "
            f"ended_by={self.ended_by!r}, operator={self.operator!r}, seed={self.seed})"
        )

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.actions)

    @property
    def actions_known(self) -> bool:
        """False for a demo of observations only, such as motion capture: then all its actions are NaN."""
        return not np.isnan(self.actions[0, 0])

    @property
    def return_(self) -> float:
        """Sum of the true rewards; NaN if any is unknown."""
        return float("nan") if self.rewards is None else float(self.rewards.sum(dtype=np.float64))

    @property
    def sha256(self) -> bytes:
        """(32,) bytes: digest of all that was recorded, whatever file format it passes through.

        `success` is left out: it is a verdict, which may be passed or revised afterwards.
        """
        rewards = np.full(self.length, np.nan, np.float32) if self.rewards is None else self.rewards
        entries = {
            # A NaN has many bit patterns and one meaning
            "action": _fingerprint(np.where(np.isnan(self.actions), np.float32(np.nan), self.actions)),
            "observation": _fingerprint(self.observations),
            "reward": _fingerprint(np.where(np.isnan(rewards), np.float32(np.nan), rewards)),
            "timestamp": _fingerprint(self.timestamps),
            "ended_by": self.ended_by.encode(),
            "operator": self.operator.encode(),
            "seed": str(self.seed).encode(),
            "start_time_ns": str(self.start_time_ns).encode(),
            "task": self.task.encode(),
        }
        digest = hashlib.sha256()
        for name in sorted(entries):
            digest.update(f"{name}|{len(entries[name])}|".encode())
            digest.update(entries[name])
        return digest.digest()

    def cut(self, start: int, stop: int) -> Episode:
        """Steps [start, stop) as an episode of their own, without true rewards; a time limit ended all but the last."""
        return dataclasses.replace(
            self,
            observations=self.observations[start : stop + 1],
            actions=self.actions[start:stop],
            timestamps=self.timestamps[start : stop + 1] - self.timestamps[start],
            rewards=None,
            ended_by=self.ended_by if stop == self.length else "truncation",
        )

    def check_robot(self, spec: RobotSpec) -> None:
        """Refuses an episode that cannot be this robot's.

        Args:
            spec: The robot.

        Raises:
            EpisodeError: Other sizes of observation or action.
        """
        for what, came, expected, names in (
            ("observation", self.observations.shape[1], spec.obs_dim, spec.observation_names),
            ("action", self.actions.shape[1], spec.act_dim, spec.action_names),
        ):
            if came != expected:
                raise EpisodeError(f"{what}s of {came} elements; {spec.name} has {expected}: {', '.join(names)}")


def require_actions(episodes: Sequence[Episode], purpose: str, instead: str = "") -> None:
    """Refuses demos of observations only, for what has to know how the expert acted.

    Args:
        episodes: Demos.
        purpose: Who asks, such as 'objective "gan-gcl"', for the message.
        instead: What can do without, for the message.

    Raises:
        EpisodeError: The actions of a demo are unknown.
    """
    unknown = [i for i, episode in enumerate(episodes) if not episode.actions_known]
    if unknown:
        numbers = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        said = f"{purpose} needs the expert's actions, which demo {numbers} lacks (of {len(episodes)})"
        raise EpisodeError(f"{said}; {instead}" if instead else said)


def _check_array(name: str, array: object, dtype: str, ndim: int, unknown: bool) -> None:
    """`unknown`: NaN throughout is legal and means that nobody knows; here and there it is a fault."""
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype) or array.ndim != ndim:
        came = f"{array.ndim}-dimensional {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise EpisodeError(f"{name}: expected a {ndim}-dimensional {dtype} array, got {came}")
    if not np.isfinite(array).all() and not (unknown and np.isnan(array).all()):
        where = np.argwhere(~np.isfinite(array))[0]
        element = f", element {where[1]}" if ndim == 2 else ""
        raise EpisodeError(f"{name}: {array[tuple(where)]} at step {where[0]}{element}; every value must be finite")


def _fingerprint(array: np.ndarray) -> bytes:
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return f"{little_endian.dtype.str}|{little_endian.shape}|".encode() + little_endian.tobytes()
