"""Overlap is 1 for the same behaviour, 0 for another place, and the refusal says by how much it falls short."""

import numpy as np
import pytest
import torch

from demos.episode import Episode
from toolkit.overlap import (
    NEEDED_ESS,
    NEEDED_SUPPORT,
    Overlap,
    effective_share,
    measure_overlap,
    shared_ess,
    support_share,
)


def episodes(count: int, centre: float = 0.0, length: int = 200, seed: int = 0) -> list[Episode]:
    """Slow random walks around `centre`: neighbours in time are near."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        state = np.zeros((length + 1, 2))
        for t in range(length):
            state[t + 1] = 0.9 * state[t] + rng.normal(size=2)
        made.append(
            Episode(
                (state + centre).astype(np.float32),
                np.zeros((length, 3), np.float32),
                np.arange(length + 1) * 0.01,
                ended_by="truncation",
            )
        )
    return made


def test_effective_share_by_hand():
    """Weights 1, 2, 3: 36 / (3 * 14). Equal ones: all. One that outweighs the rest: one of N."""
    assert effective_share(torch.tensor([1.0, 2.0, 3.0]).log()) == pytest.approx(36.0 / 42.0)
    assert effective_share(torch.full((7,), -900.0)) == pytest.approx(1.0)
    assert effective_share(torch.tensor([0.0, -800.0, -900.0, -1000.0])) == pytest.approx(0.25)


def test_shared_ess_by_hand():
    """Ratios 1 and 3 in the background, 3 in the demos: weights 1, 3/2; (5/4)^2 / ((9/4 + 13/8) / 2)."""
    ess = shared_ess(torch.tensor([3.0, 3.0]).log(), torch.tensor([1.0, 3.0]).log())
    assert ess == pytest.approx((25.0 / 16.0) / (31.0 / 16.0))
    assert shared_ess(torch.zeros(3), torch.zeros(5)) == pytest.approx(1.0)


def test_equally_tiny_weights_are_no_overlap():
    """Kish's share of such a background would be 1."""
    assert shared_ess(torch.full((4,), 5.0), torch.full((4,), -20.0)) < 1e-8


def test_the_weights_of_a_segment_are_per_step_and_element():
    """Segments of 2 steps with 3 action elements count with a sixth of their log ratio."""
    near, ratios = episodes(2), (6.0 * torch.tensor([3.0, 3.0]).log(), 6.0 * torch.tensor([1.0, 3.0]).log())
    assert measure_overlap(near, near, 2, ratios, 0).ess == pytest.approx(25.0 / 31.0)


def test_support_tells_here_from_there():
    """The same walk from another seed is inside; one shifted by many spreads is outside."""
    background = episodes(6)
    assert support_share(episodes(3, seed=1), background, 10, 0) > 0.9
    assert support_share(episodes(3, centre=30.0, seed=1), background, 10, 0) == 0.0


def test_support_of_half():
    """Two demos inside and two outside: one half of the segments."""
    demos = episodes(2, seed=1) + episodes(2, centre=30.0, seed=2)
    assert support_share(demos, episodes(6), 10, 0) == pytest.approx(0.5, abs=0.1)


def test_a_lone_background_episode_is_not_its_own_neighbour():
    """Neighbours in time would make the radius so small that nothing is inside."""
    assert support_share(episodes(2, seed=1), episodes(1, length=2000), 10, 0) > 0.8


def test_the_refusal_has_measured_and_needed():
    """Enough is no fault; each lack is named with both numbers, in one line, with what to do."""
    assert Overlap(NEEDED_SUPPORT, NEEDED_ESS).fault() is None
    fault = Overlap(0.004, NEEDED_ESS).fault()
    assert fault is not None and "0.4% of the demos" in fault and f"{NEEDED_SUPPORT:.1%} are needed" in fault
    assert "effective sample size" not in fault and "gcl record" in fault and "\n" not in fault
    fault = Overlap(1.0, 0.0007).fault()
    assert fault is not None and "0.07% of the background" in fault and "segments pass" not in fault
