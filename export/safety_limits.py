"""What the safety layer knows of a robot, as arrays: limits of commands and joints, and what it means to hold still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robots.command import CommandMap
from robots.safety_spec import SafetySpec
from robots.spec import RobotSpec, ToolkitError

# A joint that stands beside its command range by less is let be: it sags, or rests at a stop, by about as much
_NEAR = 0.01  # of the range
_MOST_PERIODS = 1e6  # hours, at any rate: a drive that slow never comes to rest


class SafetyError(ToolkitError):
    """A safety layer that was set up or called wrongly."""


@dataclass(frozen=True, eq=False)
class SafetyLimits:
    """Limits of one robot, looked up once. An actuator's joint is `ActionTerm.moves`."""

    channels: tuple[str, ...]  # every raw measurement, as in spec.channels
    actuators: tuple[str, ...]  # (act_dim,) as in spec.action
    lower: np.ndarray  # (act_dim,) [unit] least command
    upper: np.ndarray  # (act_dim,) [unit] greatest command
    slew_step: (
        np.ndarray
    )  # (act_dim,) [unit] greatest change of the command in one control period; infinity = unlimited
    rest: np.ndarray  # (act_dim,) [unit] command of a robot at rest: zero effort, zero velocity, else the offset
    holds_position: np.ndarray  # (act_dim,) bool, the drive keeps a position by itself
    position_channel: np.ndarray  # (act_dim,) index of the joint's measured position, -1 where not measured
    velocity_channel: np.ndarray  # (act_dim,) index of the joint's measured velocity, 0 where not measured
    damps: np.ndarray  # (act_dim,) bool, effort drive with kd and a measured velocity
    damping: np.ndarray  # (act_dim,) [unit s/rad | unit s/m] kd
    watched: np.ndarray  # (n,) indices of channels with a limit
    watched_lower: np.ndarray  # (n,) [unit of the channel]
    watched_upper: np.ndarray  # (n,) [unit of the channel]
    watched_reason: tuple[str, ...]  # (n,) how a fault by this limit is named
    unwatched: tuple[str, ...]  # limits in the spec that no channel measures, so that nothing can watch them
    unmeasured: tuple[str, ...]  # position drives of which nobody knows where they stand, and nobody said so

    @classmethod
    def from_spec(cls, spec: RobotSpec, config: SafetySpec | None = None) -> SafetyLimits:
        """Collects the limits of a robot.

        Args:
            spec: The robot.
            config: What is watched beside its joints; None for what robot.yaml says.

        Returns:
            Its limits.
        """
        position = {name: i for i, name in enumerate(spec.channels)}
        command = CommandMap(spec)
        effort = np.array([term.kind == "effort" for term in spec.action])
        velocity = np.array([position.get(f"joint_vel/{term.moves}", -1) for term in spec.action])
        at = np.array([position.get(f"joint_pos/{term.moves}", -1) for term in spec.action])
        damping = np.array([term.kd or 0.0 for term in spec.action])
        config = config or spec.safety
        watched, unwatched = _watched(spec, config, position)
        lost = [term for term, channel in zip(spec.action, at, strict=True) if term.kind == "position" and channel < 0]
        return cls(
            channels=spec.channels,
            actuators=spec.action_names,
            lower=command.lower,
            upper=command.upper,
            slew_step=command.slew_step,
            rest=command.rest,
            holds_position=command.keeps_position,
            position_channel=at,
            velocity_channel=np.maximum(velocity, 0),
            damps=effort & (damping > 0) & (velocity >= 0),
            damping=damping,
            watched=np.array([index for index, *_ in watched], dtype=np.intp),
            watched_lower=np.array([low for _, low, _, _ in watched], dtype=float),
            watched_upper=np.array([high for _, _, high, _ in watched], dtype=float),
            watched_reason=tuple(reason for *_, reason in watched),
            unwatched=tuple(unwatched),
            unmeasured=tuple(term.actuator for term in lost if term.actuator not in config.unmeasured),
        )

    @property
    def rest_periods(self) -> int:
        """Control periods that the slowest drive takes to come to rest from either end of its range."""
        farthest = np.maximum(self.upper - self.rest, self.rest - self.lower)
        periods = np.where(self.holds_position, 0.0, farthest) / self.slew_step
        return int(np.ceil(np.minimum(periods, _MOST_PERIODS)).max())

    def pose(self, values: np.ndarray) -> np.ndarray:
        """Where the position drives stand.

        Args:
            values: (len(channels),) of a reading.

        Returns:
            (act_dim,) [unit]; NaN where a drive keeps no position, or none was measured that is a number.
        """
        known = self.holds_position & (self.position_channel >= 0)
        pose = np.where(known, values[self.position_channel], np.nan)
        return np.where(np.isfinite(pose), pose, np.nan)

    def outside_commands(self, pose: np.ndarray) -> str | None:
        """Which drive stands where no command may send it: its first one would be a jump that no slew limit stops.

        Borne are a hundredth of the range, by which a joint misses its command anyway, and one slew step, which it may
        be sent at once.

        Args:
            pose: (act_dim,) as `pose` returns it.

        Returns:
            One line for a person; None if there is no such drive.
        """
        borne = _NEAR * (self.upper - self.lower) + np.where(np.isfinite(self.slew_step), self.slew_step, 0.0)
        outside = np.flatnonzero((pose < self.lower - borne) | (pose > self.upper + borne))
        if not outside.size:
            return None
        i = outside[0]
        return (
            f"{self.actuators[i]} stands at {pose[i]:g}, and may be sent to [{self.lower[i]:g}, {self.upper[i]:g}] "
            f"(borne: {borne[i]:.2g} beside it); move it there by hand, or widen its lower and upper"
        )

    def legal_readings(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest legal value of every channel, (len(channels),) each.

        Returns:
            The bounds; of a channel that is not watched, the greatest numbers there are, so that infinity is outside.
        """
        least = np.full(len(self.channels), -np.finfo(float).max)
        most = -least
        np.maximum.at(least, self.watched, self.watched_lower)
        np.minimum.at(most, self.watched, self.watched_upper)
        return least, most

    def check_measured(self) -> None:
        """Refuses a robot with a drive that would have to begin from anywhere.

        Raises:
            SafetyError: Nobody knows where a position drive stands, and nobody said that this is known.
        """
        if self.unmeasured:
            drives = ", ".join(self.unmeasured)
            raise SafetyError(
                f"nothing measures where {drives} stands, so it would begin at its offset, wherever it is. In "
                "robot.yaml, name the `joint` that it moves and observe its joint_pos, or say that you know, under "
                f"`safety`: `unmeasured: [{drives}]`"
            )

    def channel_names(self, indices: np.ndarray) -> str:
        """Names of channels for a message."""
        return ", ".join(self.channels[i] for i in indices)


def _watched(
    spec: RobotSpec, config: SafetySpec, position: dict[str, int]
) -> tuple[list[tuple[int, float, float, str]], list[str]]:
    """(channel, lower, upper, reason) of every limit that can be watched, and names of those that cannot."""
    bounds = []
    for limit in spec.joint_limits:
        bounds.append((f"joint_pos/{limit.joint}", limit.lower, limit.upper, "limit_violation"))
        if limit.velocity is not None:
            bounds.append((f"joint_vel/{limit.joint}", -limit.velocity, limit.velocity, "limit_violation"))
    for watch in config.watch:
        low = -np.inf if watch.lower is None else watch.lower
        bounds.append((watch.channel, low, np.inf if watch.upper is None else watch.upper, watch.reason))
    watched = [(position[channel], *rest) for channel, *rest in bounds if channel in position]
    return watched, [channel for channel, *_ in bounds if channel not in position]
