"""Quality of demos as humans give them: what is odd about each, and what to do about it, without the true reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from demos.agreement import away_from_majority, demo_weights, energy_distances, first_copies
from demos.episode import Episode
from demos.idle import find_idle

_ODD = 0.5  # a weight below this is worth a word
_MOSTLY = 0.5  # share of saturated actions, or of idle time, worth a word
_SHORT = 0.5  # of the median length


@dataclass(frozen=True)
class EpisodeQuality:
    """Facts about one demo."""

    index: int  # in its store
    operator: str
    length: int  # steps
    seconds: float  # [s]
    saturated: float  # share of action elements at a limit or beyond: |a| >= 1; NaN = actions unknown
    outside: float  # share beyond, |a| > 1: the robot got, and the learner sees, the limit instead; NaN = unknown
    idle: tuple[tuple[int, int], ...]  # stretches [start, stop) in steps in which nothing happened
    duplicate_of: int | None  # index of an earlier demo with the same observations and actions
    away: float  # median energy distance H to the demos of the majority, 0 to 1; 0 if there is no other demo
    weight: float  # (0, 1], of `agreement.demo_weights`

    @property
    def idle_share(self) -> float:
        """Share of the steps that are idle."""
        return sum(stop - start for start, stop in self.idle) / self.length


@dataclass(frozen=True, eq=False)
class QualityReport:
    """What there is to know about n demos without knowing what they are worth."""

    episodes: tuple[EpisodeQuality, ...]
    distance: np.ndarray  # (n, n) energy distance H between demos, 0 to 1

    def operators(self) -> dict[str, tuple[int, float]]:
        """By operator: how many demos and the mean of their weights."""
        names = dict.fromkeys(episode.operator for episode in self.episodes)
        weights = {name: [e.weight for e in self.episodes if e.operator == name] for name in names}
        return {name: (len(w), float(np.mean(w))) for name, w in weights.items()}

    def advice(self) -> list[str]:
        """What a person should look at, one line each, the gravest first; empty if nothing is odd."""
        lines = [*self._about_agreement()]
        for e in self.episodes:
            if e.duplicate_of is not None:
                lines.append(f"episode {e.index} repeats episode {e.duplicate_of}: together they count as one")
        lines += self._each("outside", lambda e: e.outside > 0.0, "has actions outside [-1, 1], clipped in learning")
        lines += self._each("saturated", lambda e: e.saturated > _MOSTLY, "is at its limits most of the time")
        idle = "is idle for a while, which is learned too; `gcl demos copy --trim` cuts off idle ends"
        lines += self._each("idle_share", lambda e: e.idle_share > 0.0, idle)
        median = float(np.median([e.length for e in self.episodes])) if self.episodes else 0.0
        lines += self._each("length", lambda e: e.length < _SHORT * median, "is less than half as long as most")
        return lines

    def _about_agreement(self) -> list[str]:
        odd = [e for e in self.episodes if e.weight < _ODD and e.duplicate_of is None]
        if not odd:
            return []
        numbers = ", ".join(str(e.index) for e in odd)
        lines = [f"episode {numbers}: unlike what most do, and counts less; see the weights, and exclude what is bad"]
        for name, (count, weight) in self.operators().items():
            if count > 1 and weight < _ODD and len(self.operators()) > 1:
                lines.append(
                    f"operator {name!r}: all in all {count} demos of weight {weight:.2f}. If that is another style and "
                    "not a worse one, learn from it by itself, or train with weighting=equal"
                )
        return lines

    def _each(self, fact: str, concerns: Callable[[EpisodeQuality], bool], words: str) -> list[str]:
        found = [e for e in self.episodes if concerns(e)]
        if not found:
            return []
        values = ", ".join(f"{e.index} ({_short(getattr(e, fact))})" for e in found)
        return [f"episode {values}: {words}"]


def judge_demos(episodes: Sequence[Episode], indices: Sequence[int] | None = None) -> QualityReport:
    """Looks at demos side by side.

    Args:
        episodes: Demos of one robot, at least one; those that are to be learned from.
        indices: Their numbers in their store; None counts from 0.

    Returns:
        The report.

    Raises:
        EpisodeError: No demos, or demos of different sizes.
    """
    numbers = list(range(len(episodes))) if indices is None else list(indices)
    distance, weights = energy_distances(episodes), demo_weights(episodes)
    away = away_from_majority(distance)
    originals, idle = first_copies(episodes), find_idle(episodes)
    rows: list[EpisodeQuality] = []
    for i, episode in enumerate(episodes):
        size = np.abs(episode.actions) if episode.actions_known else None
        rows.append(
            EpisodeQuality(
                index=numbers[i],
                operator=episode.operator,
                length=episode.length,
                seconds=float(episode.timestamps[-1] - episode.timestamps[0]),
                saturated=float("nan") if size is None else float((size >= 1.0).mean()),
                outside=float("nan") if size is None else float((size > 1.0).mean()),
                idle=tuple(idle[i]),
                duplicate_of=None if originals[i] == i else numbers[originals[i]],
                away=float(away[i]),
                weight=float(weights[i]),
            )
        )
    return QualityReport(tuple(rows), distance)


def _short(value: float) -> str:
    return f"{value:.0%}" if isinstance(value, float) else str(value)
