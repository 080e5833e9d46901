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
        broken: [T, B] bool, the simulation broke in this step, which ends an episode too.
        length: L; may be more than T.
        termination: [T, B] bool, the task ended with this step: places from which L steps reach past it count too.
            None where that is not wanted.

    Returns:
        (K, 3) int64: first row, environment and number of steps taken, L or fewer; the earliest first.
    """
    row = torch.arange(len(ended), device=ended.device)[:, None].expand_as(ended)
    end = torch.where(ended, row, len(ended)).flip(0).cummin(0).values.flip(0)  # row of the next end; T: none any more
    last = torch.minimum(row + length - 1, end)
    taken, seen = last - row + 1, last < len(ended)
    last = last.clamp_max(len(ended) - 1)
    whole = taken == length
    if termination is not None:
        whole |= termination.gather(0, last)
    place = (seen & whole & ~broken.gather(0, last)).nonzero()
    return torch.cat([place, taken[place[:, 0], place[:, 1], None]], 1)


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
    place = t * experience.log_q.shape[1] + environment  # [L, N] among all steps, row by row
    # Whole rows are copied several times faster than by two indices an element
    return Segments(
        *(x.flatten(0, 1).index_select(0, place.flatten()).unflatten(0, place.shape) for x in vars(experience).values())
    )
