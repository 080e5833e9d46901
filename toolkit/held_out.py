"""Keeps a part of the demos from the learner, to see whether the reward knows the task or the recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demos.agreement import first_copies
from demos.episode import Episode
from demos.segments import SegmentSampler

_Piece = tuple[int, int, int]


@dataclass(frozen=True)
class Split:
    """Episodes to learn from and episodes to measure on, each with the weight of the one it comes from."""

    train: list[Episode]
    weights: list[float]  # of each in `train`
    held_out: list[Episode]  # possibly none
    held_out_weights: list[float]

    def samplers(self, segment: int, past_end: bool = False) -> tuple[SegmentSampler, SegmentSampler | None]:
        """Where to draw segments of `segment` steps: to learn from, and to measure on if there is anything."""
        rest = SegmentSampler(self.held_out, segment, self.held_out_weights, past_end) if self.held_out else None
        return SegmentSampler(self.train, segment, self.weights, past_end), rest


def split(episodes: Sequence[Episode], weights: Sequence[float], share: float, segment: int, seed: int) -> Split:
    """Splits episodes and their weights alike.

    Args:
        episodes: All of them.
        weights: Of each.
        share: As for `hold_out`.
        segment: As for `hold_out`.
        seed: As for `hold_out`.

    Returns:
        Both parts.
    """
    train, held_out = hold_out(episodes, share, segment, seed)
    train_weights, held_out_weights = hold_out_weights(episodes, weights, share, segment, seed)
    return Split(train, train_weights, held_out, held_out_weights)


def hold_out(episodes: Sequence[Episode], share: float, segment: int, seed: int) -> tuple[list[Episode], list[Episode]]:
    """Splits demos into a part to learn from and a part to measure on.

    Short segments: a random stretch of each demo is held out, so that even one demo can be split. Where a stretch would
    be shorter than a segment, whole demos are held out instead, and none if there is only one. Of a demo that is there
    twice, the same is held out of both: nothing is learned from what is measured on.

    Args:
        episodes: All demos.
        share: Part to hold out, in [0, 1).
        segment: L, steps per segment; what is held out is never shorter.
        seed: Picks the stretches.

    Returns:
        Episodes to learn from and episodes held out (possibly none).
    """
    train, held_out = _pieces(episodes, share, segment, seed)
    return [_taken(episodes, piece) for piece in train], [_taken(episodes, piece) for piece in held_out]


def hold_out_weights(
    episodes: Sequence[Episode], weights: Sequence[float], share: float, segment: int, seed: int
) -> tuple[list[float], list[float]]:
    """The weights of the parts that `hold_out` makes of demos: each part has that of the demo it comes from.

    Args:
        episodes: All demos.
        weights: Of each demo.
        share: As given to `hold_out`.
        segment: As given to `hold_out`.
        seed: As given to `hold_out`.

    Returns:
        A weight for each episode to learn from and for each held out, in the order of `hold_out`.
    """
    train, held_out = _pieces(episodes, share, segment, seed)
    return [float(weights[piece[0]]) for piece in train], [float(weights[piece[0]]) for piece in held_out]


def _pieces(episodes: Sequence[Episode], share: float, segment: int, seed: int) -> tuple[list[_Piece], list[_Piece]]:
    """What to learn from and what to hold out, as (demo, first step, step after the last)."""
    rng, lengths = np.random.default_rng([seed, 0x401D]), [episode.length for episode in episodes]
    whole = [(i, 0, length) for i, length in enumerate(lengths)]
    if share == 0.0:
        return whole, []
    if all(length >= 4 * segment for length in lengths):
        train: list[_Piece] = []
        held_out: list[_Piece] = []
        starts: list[int] = []
        for i, (steps, first) in enumerate(zip(lengths, first_copies(episodes), strict=True)):
            length = max(segment, round(share * steps))
            start = int(rng.integers(0, steps - length + 1))
            starts.append(start if first == i else starts[first])
            start = starts[i]
            held_out.append((i, start, start + length))
            train += [(i, a, b) for a, b in ((0, start), (start + length, steps)) if b - a >= segment]
        return train, held_out
    count = min(max(1, round(share * len(lengths))), len(lengths) - 1)
    copies = first_copies(episodes)
    chosen = {copies[i] for i in rng.permutation(len(lengths))[:count].tolist()}
    kept = [piece for piece in whole if copies[piece[0]] not in chosen]
    return (kept, [piece for piece in whole if copies[piece[0]] in chosen]) if kept else (whole, [])


def _taken(episodes: Sequence[Episode], piece: _Piece) -> Episode:
    i, start, stop = piece
    return episodes[i] if (start, stop) == (0, episodes[i].length) else episodes[i].cut(start, stop)
