"""How much of what the demos did the background also did; below a limit, nothing can be learned by comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demos.episode import Episode
from robots.spec import ToolkitError
from toolkit.losses import effective_sample_size

# Measured on cheetah (one seed, 5 demos, 400 gradient steps; correlation of learned with true return over 25 episodes,
# random to expert; ESS from density fits of 400 steps). Background of random actions: support 2 %, ESS 0.002 %,
# correlation 0.91. A cloned policy with noise 1.5: 2 %, 2 %, 0.99. Random and noise 0.3 to 1.5 together: 100 %, 23 %,
# 0.99. The limits lie between the first two; that they hold on other robots was not measured.
NEEDED_SUPPORT = 0.01  # of demo segments: with less, the background was somewhere else
NEEDED_ESS = 0.002  # of background segments, before learning and after
_RADIUS_QUANTILE = 0.95  # of the background's own nearest-neighbour distances
_REFERENCE = 8192  # background states compared with
_QUERIES = 1024  # states of each kind compared
_CHUNK = 128  # queries at once, which bounds the memory
_MIN_STD = 1e-2  # feature units, as in the normaliser


class OverlapError(ToolkitError):
    """Demos and background that have too little in common."""


@dataclass(frozen=True)
class Overlap:
    """What demos and background have in common; both numbers are in [0, 1]."""

    support: float
    """Share of demo segments most of whose states lie where the background has been (`support_share`)."""
    ess: float
    """Effective share of the background in what demos and background have in common (`shared_ess`); 1 if they act
    alike."""

    def fault(self) -> str | None:
        """Says in one line what is missing, or None if it is enough."""
        low = []
        if self.support < NEEDED_SUPPORT:
            low.append(
                f"{self.support:.1%} of the demos' segments pass where the background has been, "
                f"{NEEDED_SUPPORT:.1%} are needed"
            )
        if self.ess < NEEDED_ESS:
            low.append(f"the effective sample size is {self.ess:.2%} of the background, {NEEDED_ESS:.1%} are needed")
        return f"demos and background overlap too little: {'; '.join(low)}; {WHAT_TO_DO}" if low else None


WHAT_TO_DO = (
    "record background nearer to the demos, such as `gcl record --operator policy --policy RUN --noise 0.3` "
    "with a policy cloned from them"
)


def measure_overlap(
    demos: Sequence[Episode], background: Sequence[Episode], length: int, log_ratios: tuple[Tensor, Tensor], seed: int
) -> Overlap:
    """Both measures.

    Args:
        demos: The expert's episodes.
        background: The others.
        length: L, steps in a segment.
        log_ratios: (N,) log p(tau) - log q(tau) of demo segments, and (M,) of background segments [nats].
        seed: Picks the states.

    Returns:
        The overlap.
    """
    elements = length * demos[0].actions.shape[1]
    ess = shared_ess(log_ratios[0] / elements, log_ratios[1] / elements)
    return Overlap(support_share(demos, background, length, seed), ess)


def shared_ess(demo_ratio: Tensor, background_ratio: Tensor) -> float:
    """mean_b(w)^2 / mean(w^2), w = p / mu = 2 sigmoid(log p - log q) with mu = (p + q) / 2.

    The mean below is over demos and background in equal parts. Kish's formula over the background alone would call it
    whole where all its weights are equally tiny; measured against the demos' weights, which are near 2, it comes to 0.
    The ratios are means over a segment's steps and action elements, so that the number does not depend on how many
    there are; of whole segments about one would be left for any two policies that differ.

    Args:
        demo_ratio: (N,) log p - log q of demo segments, mean over steps and action elements [nats].
        background_ratio: (M,) the same of background segments.

    Returns:
        The effective share.
    """
    demo, other = 2.0 * torch.sigmoid(demo_ratio.double()), 2.0 * torch.sigmoid(background_ratio.double())
    return float(other.mean().square() / (0.5 * (demo.square().mean() + other.square().mean())))


def effective_share(log_weight: Tensor) -> float:
    """Kish's effective sample size as a share, (sum w)^2 / (N sum w^2), in [1 / N, 1].

    Args:
        log_weight: (N,) log of each unnormalised weight.

    Returns:
        The share.
    """
    return float(effective_sample_size(log_weight.double()) / len(log_weight))


def support_share(demos: Sequence[Episode], background: Sequence[Episode], length: int, seed: int) -> float:
    """Share of demo segments most of whose states are near a background state; no classifier is trained.

    Distances are Euclidean in features standardised by the background. Near means within the distance that 95 % of the
    background's own states have to their nearest neighbour in *another* episode; neighbours in time are always near and
    say nothing. A lone episode is compared between its quarters.

    Args:
        demos: The expert's episodes.
        background: The others.
        length: L; demo episodes are cut into segments end to end, a shorter rest is dropped.
        seed: Picks which states are compared where there are many.

    Returns:
        The share.
    """
    generator = torch.Generator().manual_seed(seed)
    state = torch.cat([torch.from_numpy(e.observations[:-1]) for e in background]).double()
    group = torch.cat([torch.full((e.length,), i) for i, e in enumerate(background)])
    if len(background) == 1:
        group = torch.arange(len(state)) * 4 // len(state)
    mean, std = state.mean(0), state.std(0).clamp_min(_MIN_STD)
    order = torch.randperm(len(state), generator=generator)
    reference, reference_group = ((state - mean) / std)[order[:_REFERENCE]], group[order[:_REFERENCE]]
    own = _nearest(reference[:_QUERIES], reference, reference_group[:_QUERIES], reference_group)
    radius = own.quantile(_RADIUS_QUANTILE)
    pieces = [
        torch.from_numpy(e.observations[start : start + length])
        for e in demos
        for start in range(0, e.length - length + 1, length)
    ]
    picked = torch.randperm(len(pieces), generator=generator)[: max(1, _QUERIES * 4 // length)]
    segments = (torch.stack([pieces[i] for i in picked.tolist()]).double() - mean) / std  # (segments, L, obs_dim)
    near = _nearest(segments.flatten(0, 1), reference, None, reference_group) <= radius
    return float((near.reshape(len(segments), length).double().mean(1) > 0.5).double().mean())


def _nearest(query: Tensor, reference: Tensor, query_group: Tensor | None, reference_group: Tensor) -> Tensor:
    """(Q,) distance of each query to the nearest reference, of another group if groups are given."""
    nearest = []
    for start in range(0, len(query), _CHUNK):
        distance = torch.cdist(query[start : start + _CHUNK], reference)
        if query_group is not None:
            distance[query_group[start : start + _CHUNK, None] == reference_group] = torch.inf
        nearest.append(distance.amin(1))
    return torch.cat(nearest)
