"""Keeps a part of the demos from the learner, to see whether the reward knows the task or the recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from demos.episode import Episode


def hold_out(episodes: Sequence[Episode], share: float, segment: int, seed: int) -> tuple[list[Episode], list[Episode]]:
    """Splits demos into a part to learn from and a part to measure on.

    Short segments: a random stretch of each demo is held out, so that even one demo can be split. Where a stretch would
    be shorter than a segment, whole demos are held out instead, and none if there is only one.

    Args:
        episodes: All demos.
        share: Part to hold out, in [0, 1).
        segment: L, steps per segment; what is held out is never shorter.
        seed: Picks the stretches.

    Returns:
        Episodes to learn from and episodes held out (possibly none).
    """
    rng = np.random.default_rng([seed, 0x401D])
    if share == 0.0:
        return list(episodes), []
    if all(episode.length >= 4 * segment for episode in episodes):
        train: list[Episode] = []
        held_out: list[Episode] = []
        for episode in episodes:
            length = max(segment, round(share * episode.length))
            start = int(rng.integers(0, episode.length - length + 1))
            held_out.append(_stretch(episode, start, start + length))
            pieces = ((0, start), (start + length, episode.length))
            train += [_stretch(episode, a, b) for a, b in pieces if b - a >= segment]
        return train, held_out
    count = min(max(1, round(share * len(episodes))), len(episodes) - 1)
    chosen = set(rng.permutation(len(episodes))[:count].tolist())
    return (
        [episode for i, episode in enumerate(episodes) if i not in chosen],
        [episode for i, episode in enumerate(episodes) if i in chosen],
    )


def _stretch(episode: Episode, start: int, stop: int) -> Episode:
    """Steps [start, stop) of an episode."""
    return dataclasses.replace(
        episode,
        observations=episode.observations[start : stop + 1],
        actions=episode.actions[start:stop],
        timestamps=episode.timestamps[start : stop + 1] - episode.timestamps[start],
        rewards=None,
        ended_by=episode.ended_by if stop == episode.length else "truncation",
    )
