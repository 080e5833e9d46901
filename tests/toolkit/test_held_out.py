"""A split keeps each part's weight, and no step is on both sides."""

import numpy as np
import pytest

from demos.episode import Episode
from toolkit.held_out import split


def episode(number: int, length: int = 100) -> Episode:
    """Its first action element is its number, so that a part of it is known."""
    return Episode(
        np.arange(length + 1, dtype=np.float32)[:, None],
        np.full((length, 1), number, np.float32),
        np.arange(length + 1) * 0.01,
        "truncation",
    )


@pytest.mark.parametrize(("segment", "whole"), [(8, False), (60, True)])
def test_parts_carry_the_weight_of_their_episode(segment: int, whole: bool):
    """Stretches of each where segments are short, whole episodes where they are long; the weight goes along."""
    parts = split([episode(i) for i in range(4)], [0.1, 0.2, 0.3, 0.4], 0.25, segment, seed=0)
    for episodes, weights in ((parts.train, parts.weights), (parts.held_out, parts.held_out_weights)):
        assert weights == [pytest.approx(0.1 + 0.1 * e.actions[0, 0]) for e in episodes]
    assert all(e.length == 100 for e in parts.held_out) is whole
    # What a stretch leaves before or behind it is dropped where it is shorter than a segment.
    lost = 400 - sum(e.length for e in parts.train + parts.held_out)
    assert lost == 0 if whole else 0 <= lost <= 4 * 2 * (segment - 1)
    assert min(e.length for e in parts.train + parts.held_out) >= segment
    train, rest = parts.samplers(8)
    assert train.length == 8 and rest is not None and len(rest.starts) == sum(e.length - 7 for e in parts.held_out)


def test_nothing_held_out_is_no_sampler():
    parts = split([episode(0)], [1.0], 0.0, 8, seed=0)
    assert parts.held_out == [] and parts.samplers(8)[1] is None


@pytest.mark.parametrize("segment", [8, 60])
def test_of_a_demo_that_is_there_twice_nothing_is_on_both_sides(segment: int):
    """The same stretch of each copy is held out, or all copies; of copies of one demo alone nothing."""
    parts = split([episode(i) for i in (0, 1, 0, 2, 1)], [0.2] * 5, 0.25, segment, seed=0)
    learned, kept = (
        {(e.actions[0, 0], step) for e in part for step in e.observations[:-1, 0]}
        for part in (parts.train, parts.held_out)
    )
    assert kept and not learned & kept
    assert split([episode(0), episode(0)], [0.5, 0.5], 0.25, 60, seed=0).held_out == []
