"""Whole segments of experience: stretches of L steps that cross no episode end and hold no broken step.

One may reach past the end of a task, where nothing more can happen: its rows then stay at the last step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.expert_segments import Segments
from toolkit.rollout import Rollout


def whole_places(ended: Tensor, broken: Tensor, length: int, termination: Tensor | None = None) -> Tensor:
    """Places where a segment is whole: nothing ended in its first L - 1 steps, and nothing broke in any of them.

    Args:
        ended: [T, B] bool, the next row of this environment belongs to another episode.
        broken: [T, B] bool, the simulation broke in this step.
        length: L; may be more than T.
        termination: [T, B] bool, the task ended with this step: places from which L steps reach past it count too.
            None where that is not wanted.

    Returns:
        (K, 3) int64: first row, environment and number of steps taken, L or fewer; the earliest first.
    """
    first = torch.arange(max(0, len(ended) - length + 1), device=ended.device)
    clean = (_count_within(ended, first, length - 1) == 0) & (_count_within(broken, first, length) == 0)
    if termination is None or not bool(termination.any()):
        place = clean.nonzero()
        return torch.cat([place, torch.full_like(place[:, :1], length)], 1)
    taken = _steps_to_end(ended)
    end = (torch.arange(len(ended), device=ended.device)[:, None] + taken - 1).clamp_max(len(ended) - 1)
    whole = (taken < length) & (termination & ~broken).gather(0, end)
    whole[: len(first)] |= clean
    place = whole.nonzero()
    return torch.cat([place, taken[whole][:, None].clamp_max(length)], 1)


def steps_of(place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Where the steps of segments are.

    Args:
        place: (N, 3), from `whole_places`.
        length: L.

    Returns:
        [L, N] rows, which stay at the last step taken, and (N,) environments.
    """
    step = torch.arange(length, device=place.device)[:, None]
    return place[:, 0] + torch.minimum(step, place[:, 2] - 1), place[:, 1]


def whole_segments(rollout: Rollout, length: int, past_end: bool = False) -> Tensor:
    """Places in a rollout where a segment is whole.

    Args:
        rollout: [T, B] experience, T >= L.
        length: L.
        past_end: Whether segments may reach past the end of a task.

    Returns:
        (K, 3) int64: first step, environment and number of steps taken of each.

    Raises:
        ValueError: There is none.
    """
    whole = whole_places(rollout.ended, rollout.quarantined, length, rollout.termination if past_end else None)
    if len(whole) == 0:
        steps = len(rollout.log_prob)
        raise ValueError(f"no environment ran {length} steps without an episode end in a rollout of {steps}")
    return whole


def draw_segments(experience: Segments, whole: Tensor, length: int, count: int, generator: torch.Generator) -> Segments:
    """Draws segments with replacement.

    Args:
        experience: [T, B, .] steps as the reward sees them.
        whole: (K, 3) places, from `whole_segments`.
        length: L.
        count: N.
        generator: Draws.

    Returns:
        [L, N, .] segments.
    """
    pick = whole[torch.randint(len(whole), (count,), generator=generator, device=whole.device)]
    t, environment = steps_of(pick, length)
    return Segments(*(x[t, environment] for x in vars(experience).values()))


def _steps_to_end(ended: Tensor) -> Tensor:
    """[T, B] int64 steps from each row to the first that ended an episode, both included; one too many if none did."""
    row = torch.arange(len(ended), device=ended.device)[:, None].expand_as(ended)
    end = torch.where(ended, row, len(ended)).flip(0).cummin(0).values.flip(0)
    return end - row + 1


def _count_within(flag: Tensor, first: Tensor, length: int) -> Tensor:
    """[K, B] how many of the `length` rows from each `first` have the flag, by differences of a running sum."""
    total = torch.cat([torch.zeros_like(flag[:1], dtype=torch.int32), flag.cumsum(0, dtype=torch.int32)])
    return total[first + length] - total[first]
