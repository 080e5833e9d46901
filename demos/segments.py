"""Segments: stretches of L steps drawn from demonstrations.

None crosses the end of an episode. Where it is asked for, one may reach past the end of a task, where nothing more can
happen: its rows then stay at the last observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demos.episode import Episode, EpisodeError


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """B segments of L steps, time first."""

    observations: np.ndarray  # [L+1, B, obs_dim] float32; the last one is s' of the segment's last step
    actions: np.ndarray  # [L, B, act_dim] float32, dimensionless; NaN past the end of a task


class SegmentSampler:
    """Draws segments uniformly over every place where one fits, or by weight, with all index work done once."""

    def __init__(
        self, episodes: Sequence[Episode], length: int, weights: Sequence[float] | None = None, past_end: bool = False
    ) -> None:
        """Lays the episodes end to end and lists where segments may begin.

        Args:
            episodes: Where to draw from; those shorter than a segment are passed over.
            length: L, steps in a segment, at least 1.
            weights: One an episode, positive: how likely its places are to be drawn, against those of others. None, or
                all the same, draws every place alike.
            past_end: Whether segments may reach past the end of a task (`ended_by` "termination"), from its last step
                on. Then an episode that ended so is never too short.

        Raises:
            EpisodeError: `length` below 1, no episode that long, episodes of different sizes, or impossible weights.
        """
        if length < 1:
            raise EpisodeError(f"a segment of {length} steps; at least 1 is needed")
        weights = [1.0] * len(episodes) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(episodes) or not all(0.0 < weight < np.inf for weight in weights):
            raise EpisodeError(f"weights {weights} for {len(episodes)} episodes; expected a positive number for each")
        # How many segments begin in each episode
        counts = [e.length if past_end and e.ended_by == "termination" else e.length - length + 1 for e in episodes]
        fits = [each for each in zip(episodes, weights, counts, strict=True) if each[2] > 0]
        if not fits:
            longest = max((episode.length for episode in episodes), default=0)
            raise EpisodeError(
                f"no episode has {length} steps: the longest of {len(episodes)} has {longest}; use shorter segments"
            )
        fitting, kept, counts = zip(*fits, strict=True)
        sizes = sorted({(e.observations.shape[1], e.actions.shape[1]) for e in fitting})
        if len(sizes) > 1:
            raise EpisodeError(f"episodes of different (obs_dim, act_dim): {sizes}; expected one robot's")
        self.length = length
        self.observations = np.concatenate([episode.observations for episode in fitting])  # (sum(T+1), obs_dim)
        # A row of padding an episode gives actions the row numbers of their observations; no segment reaches it.
        padding = np.full((1, sizes[0][1]), np.nan, np.float32)
        self.actions = np.concatenate([part for episode in fitting for part in (episode.actions, padding)])
        ends = [np.arange(e.length + 1) == (e.length - 1 if e.ended_by == "termination" else -1) for e in fitting]
        self.terminations = np.concatenate(ends)  # (sum(T+1),) bool, the task ended with this row's action
        first_rows = np.cumsum([0, *(episode.length + 1 for episode in fitting[:-1])])
        self.starts = np.concatenate(
            [row + np.arange(count) for row, count in zip(first_rows, counts, strict=True)]
        )  # (number of places,) row where a segment may begin
        last_rows = np.repeat(first_rows + [episode.length for episode in fitting], counts)
        # (number of places,) row of the last observation that a segment holds
        self.stops = np.minimum(self.starts + length, last_rows)
        # (number of places,) share of the places up to each; None draws by a single integer
        self._shares: np.ndarray | None = None
        if len(set(kept)) > 1:
            self._shares = np.cumsum(np.repeat(np.array(kept) / max(kept), counts))
            self._shares /= self._shares[-1]
        self._offsets = np.arange(length + 1)[:, None]

    def step_shares(self) -> np.ndarray:
        """How much of what is drawn is which step.

        Returns:
            (sum(T+1),) float64, the probability that a step of a drawn segment is this row's; 0 for padding. What is
            missing to 1 is past the end.
        """
        count, places = len(self.actions), len(self.starts)
        share = np.full(places, 1.0 / places) if self._shares is None else np.diff(self._shares, prepend=0.0)
        # A row belongs to the segments that have begun by then and have not ended yet
        begun = np.bincount(self.starts, share, count + 1) - np.bincount(self.stops, share, count + 1)
        return np.cumsum(begun)[:count] / self.length

    def draw_rows(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        """Draws places, with replacement.

        Args:
            batch: B, how many.
            rng: Source of randomness.

        Returns:
            [L+1, B] int64 row numbers into `observations`; all but the last are rows of `actions` too, past an end of
            its padding.
        """
        if self._shares is None:
            places = rng.integers(len(self.starts), size=batch)
        else:
            places = np.searchsorted(self._shares, rng.random(batch), side="right")
        return np.minimum(self._offsets + self.starts[places], self.stops[places])

    def sample(self, batch: int, rng: np.random.Generator) -> SegmentBatch:
        """Draws segments, with replacement.

        Args:
            batch: B, how many.
            rng: Source of randomness.

        Returns:
            The segments; the arrays are the caller's own.
        """
        rows = self.draw_rows(batch, rng)
        # np.take with a mode is several times faster than indexing, which checks every row number
        return SegmentBatch(
            np.take(self.observations, rows, axis=0, mode="clip"), np.take(self.actions, rows[:-1], axis=0, mode="clip")
        )


def sample_segments(episodes: Sequence[Episode], batch: int, length: int, rng: np.random.Generator) -> SegmentBatch:
    """Draws segments once; a loop keeps a `SegmentSampler` instead.

    Args:
        episodes: Where to draw from.
        batch: B, how many.
        length: L, steps in a segment.
        rng: Source of randomness.

    Returns:
        observations [L+1, B, obs_dim], actions [L, B, act_dim].

    Raises:
        EpisodeError: No episode is long enough.
    """
    return SegmentSampler(episodes, length).sample(batch, rng)
