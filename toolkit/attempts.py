"""Several policies tried one after another on a reward that is given; that which earned most of it is kept.

A policy that begins with random actions may end in a place from which every small change is for the worse, such as a
walker that has learned to walk in a crouch. Which one does depends on chance; the reward itself tells them apart.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from torch import Tensor

from robots.spec import ToolkitError
from toolkit.networks import GaussianPolicy

_JUDGED = 0.1  # share of an attempt, at its end, over which its reward is averaged


class AttemptsError(ToolkitError):
    """A run that cannot go on with its attempts as they were planned."""


def equal_parts(count: int, iterations: int) -> list[int]:
    """Where the parts of a run begin and end, in iterations: 0, ..., `iterations`; `count` + 1 numbers."""
    return [round(part * iterations / count) for part in range(count + 1)]


class Attempts:
    """Judges the policies that equal parts of a run belong to, and keeps the best."""

    def __init__(self, count: int, iterations: int) -> None:
        """Nothing has been tried yet.

        Args:
            count: Policies to try.
            iterations: In the whole run.
        """
        self.iterations = iterations
        self.earned: list[float] = []  # mean reward of a step, of the attempts that have ended
        self._parts = equal_parts(count, iterations)
        self._best: dict[str, Tensor] = {}
        self._sum, self._count = 0.0, 0  # of the iterations by which the present one is judged

    def judge(self, iterations: int, reward: float, policy: GaussianPolicy) -> None:
        """Looks at what an iteration earned; after the last one the best policy is put back in place.

        Args:
            iterations: Done so far, this one included.
            reward: Mean reward of this iteration's steps.
            policy: Of the present attempt.
        """
        after = bisect_left(self._parts, iterations)
        begin, end = self._parts[after - 1], self._parts[after]
        if iterations > end - max(round(_JUDGED * (end - begin)), 1):
            self._sum += reward
            self._count += 1
        if iterations < end:
            return
        self.earned.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if self.earned[-1] == max(self.earned):
            self._best = {name: value.clone() for name, value in policy.state_dict().items()}
        if end == self.iterations:
            policy.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """What has been tried so far."""
        return {
            "iterations": self.iterations, "earned": list(self.earned), "best": self._best,
            "sum": self._sum, "count": self._count,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts everything back where `state_dict` found it.

        Raises:
            AttemptsError: Of a run of another length, whose parts were others.
        """
        if state["iterations"] != self.iterations:
            raise AttemptsError(
                f"attempts share a run of {state['iterations']} iterations in equal parts; it cannot go on as one of "
                f"{self.iterations}: give the same --steps, or begin a new run"
            )
        self.earned, self._best = list(state["earned"]), state["best"]
        self._sum, self._count = state["sum"], state["count"]
