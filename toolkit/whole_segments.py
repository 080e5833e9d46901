"""Whole segments of experience: stretches of L steps that cross no episode end and hold no broken step."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.expert_segments import Segments
from toolkit.rollout import Rollout


def whole_places(ended: Tensor, broken: Tensor, length: int) -> Tensor:
    """Places where a segment is whole: nothing ended in its first L - 1 steps, and nothing broke in any of them.

    Args:
        ended: [T, B] bool, the next row of this environment belongs to another episode.
        broken: [T, B] bool, the simulation broke in this step.
        length: L; may be more than T.

    Returns:
        (K, 2) int64: first row and environment of each, the earliest first.
    """
    first = torch.arange(max(0, len(ended) - length + 1), device=ended.device)
    clean = (_count_within(ended, first, length - 1) == 0) & (_count_within(broken, first, length) == 0)
    return clean.nonzero()


def whole_segments(rollout: Rollout, length: int) -> Tensor:
    """Places in a rollout where a segment is whole.

    Args:
        rollout: [T, B] experience, T >= L.
        length: L.

    Returns:
        (K, 2) int64: first step and environment of each.

    Raises:
        ValueError: There is none.
    """
    whole = whole_places(rollout.ended, rollout.quarantined, length)
    if len(whole) == 0:
        steps = len(rollout.log_prob)
        raise ValueError(f"no environment ran {length} steps without an episode end in a rollout of {steps}")
    return whole


def draw_segments(experience: Segments, whole: Tensor, length: int, count: int, generator: torch.Generator) -> Segments:
    """Draws segments with replacement.

    Args:
        experience: [T, B, .] steps as the reward sees them.
        whole: (K, 2) places, from `whole_segments`.
        length: L.
        count: N.
        generator: Draws.

    Returns:
        [L, N, .] segments.
    """
    device = whole.device
    pick = whole[torch.randint(len(whole), (count,), generator=generator, device=device)]
    t, environment = pick[:, 0] + torch.arange(length, device=device)[:, None], pick[:, 1]  # [L, N], (N,)
    return Segments(*(x[t, environment] for x in vars(experience).values()))


def _count_within(flag: Tensor, first: Tensor, length: int) -> Tensor:
    """[K, B] how many of the `length` rows from each `first` have the flag, by differences of a running sum."""
    total = torch.cat([torch.zeros_like(flag[:1], dtype=torch.int32), flag.cumsum(0, dtype=torch.int32)])
    return total[first + length] - total[first]
