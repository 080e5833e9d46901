"""Actions to commands and back: command = clip(offset + scale * clip(action, -1, 1), lower, upper)."""

from __future__ import annotations

import numpy as np

from robots.spec import RobotSpec


class CommandMap:
    """The action terms of a robot as arrays, so that mapping costs no look-ups."""

    def __init__(self, spec: RobotSpec) -> None:
        """Collects the arrays.

        Args:
            spec: The robot.
        """
        self.scale = np.array([term.scale for term in spec.action], dtype=np.float64)  # [unit]
        self.offset = np.array([term.offset for term in spec.action], dtype=np.float64)  # [unit]
        self.lower = np.array([term.lower for term in spec.action], dtype=np.float64)  # [unit]
        self.upper = np.array([term.upper for term in spec.action], dtype=np.float64)  # [unit]
        self.keeps_position = np.array([term.kind == "position" for term in spec.action])  # (act_dim,) bool
        zero = np.array([term.kind in ("effort", "velocity") for term in spec.action])
        # (act_dim,) [unit] what a drive that keeps no position is sent at rest; of one that does, its offset
        self.rest = np.clip(np.where(zero, 0.0, self.offset), self.lower, self.upper)
        slew = [np.inf if term.slew is None else term.slew for term in spec.action]
        self.slew_step = np.array(slew) * spec.control_dt  # (act_dim,) [unit] in one period; infinity = unlimited
        # offset + scale * a grows or falls with a, so clipping the action is clipping the command at its images of -1
        # and 1: one clip does for both, to the last bit.
        reach = np.abs(self.scale)
        self._least = np.minimum(np.maximum(self.offset - reach, self.lower), self.upper)
        self._most = np.maximum(np.minimum(self.offset + reach, self.upper), self.lower)

    def command(self, action: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Command for an action.

        Args:
            action: (..., act_dim), dimensionless; clipped to [-1, 1].
            out: (..., act_dim) float64 buffer to fill, or None for a new one.

        Returns:
            (..., act_dim) float64 command in SI units, within each actuator's limits. NaN stays NaN: catching it is
            the safety layer's business, hiding it would be worse.
        """
        if out is None:
            out = np.empty(np.shape(action), dtype=np.float64)
        np.multiply(action, self.scale, out=out)
        out += self.offset
        # maximum and minimum rather than clip, whose wrapper costs more than its work on so few elements
        return np.minimum(np.maximum(out, self._least, out=out), self._most, out=out)

    def action(self, command: np.ndarray) -> np.ndarray:
        """The action that gives a command; used to label what a person teleoperated.

        Args:
            command: (..., act_dim) SI units.

        Returns:
            (..., act_dim) dimensionless, in [-1, 1] for a command within reach.
        """
        return (np.asarray(command, dtype=np.float64) - self.offset) / self.scale


def make_command(spec: RobotSpec, action: np.ndarray) -> np.ndarray:
    """Command for an action, the plain form of `CommandMap.command`.

    Args:
        spec: The robot.
        action: (..., act_dim), dimensionless.

    Returns:
        (..., act_dim) float64 command in SI units.
    """
    return CommandMap(spec).command(np.asarray(action, dtype=np.float64))
