"""SentActions: what a robot says it really sent, against what it was asked."""

from __future__ import annotations

import numpy as np

from robots.spec import RobotSpec

_LONG_SECONDS = 1.0  # [s] in a row by which a difference is worth a word; a clamp on one jump is not


class SentActions:
    """Counts, for each actuator, the steps in which something else was sent than was asked."""

    def __init__(self, spec: RobotSpec, tolerance: float) -> None:
        """Begins to count.

        Args:
            spec: The robot.
            tolerance: [unit of the command] what may differ.
        """
        self.last = np.full(spec.act_dim, np.nan)  # (act_dim,) [unit] what was sent last, NaN before the first
        self.steps = 0
        self._names, self._units = spec.action_names, tuple(term.unit for term in spec.action)
        self._tolerance, self._long = tolerance, max(1, round(_LONG_SECONDS / spec.control_dt))
        self._streak, self._longest, self._count = (np.zeros(spec.act_dim, dtype=np.int64) for _ in range(3))
        self._worst = np.zeros(spec.act_dim)

    def add(self, asked: np.ndarray, sent: np.ndarray) -> None:
        """Takes one step.

        Args:
            asked: (act_dim,) [unit] the command.
            sent: (act_dim,) [unit] what the robot says it was.
        """
        self.last = sent
        self.steps += 1
        away = np.abs(sent - asked)
        differs = ~(away <= self._tolerance)  # NaN differs
        self._streak = np.where(differs, self._streak + 1, 0)
        self._longest = np.maximum(self._longest, self._streak)
        self._count += differs
        self._worst = np.fmax(self._worst, away)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each actuator that was sent something else for a second or longer."""
        return tuple(
            f"{self._names[i]} was sent up to {self._worst[i]:.3g} {self._units[i]} away from what was asked, in "
            f"{self._count[i]} of {self.steps} steps, {self._longest[i]} of them in a row"
            for i in np.flatnonzero(self._longest >= self._long)
        )
