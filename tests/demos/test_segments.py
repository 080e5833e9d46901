import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.episode import Episode, EpisodeError
from demos.segments import SegmentSampler, sample_segments


def numbered(lengths: list[int]) -> list[Episode]:
    """Episodes whose every row says where it is: observation (episode, step), action (episode, step)."""

    def rows(episode: int, count: int) -> np.ndarray:
        return np.stack([np.full(count, episode), np.arange(count)], axis=1).astype(np.float32)

    return [
        Episode(rows(i, length + 1), rows(i, length), np.arange(length + 1.0), "truncation")
        for i, length in enumerate(lengths)
    ]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    length=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_segments_never_cross_an_end(lengths: list[int], length: int, seed: int) -> None:
    """Every segment is a stretch of one episode, with actions beside the observations they were taken at."""
    episodes, rng = numbered(lengths), np.random.default_rng(seed)
    if max(lengths) < length:
        with pytest.raises(EpisodeError, match=f"no episode has {length} steps: the longest of {len(lengths)}"):
            sample_segments(episodes, 8, length, rng)
        return
    batch = sample_segments(episodes, 8, length, rng)
    assert batch.observations.shape == (length + 1, 8, 2) and batch.actions.shape == (length, 8, 2)
    assert (batch.observations[:, :, 0] == batch.observations[0, :, 0]).all()
    assert (np.diff(batch.observations[:, :, 1], axis=0) == 1).all()
    assert (batch.actions == batch.observations[:-1]).all()


def test_every_place_is_as_likely(rng_draws: int = 60_000) -> None:
    """All start positions come, in equal measure: 3 + 1 places of 3 steps in episodes of 5 and 3 steps, none in 2."""
    sampler = SegmentSampler(numbered([5, 2, 3]), 3)
    batch = sampler.sample(rng_draws, np.random.default_rng(0))
    starts, counts = np.unique(batch.observations[0], axis=0, return_counts=True)
    assert starts.tolist() == [[0, 0], [0, 1], [0, 2], [2, 0]]
    assert np.allclose(counts / rng_draws, 0.25, atol=0.01)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    length=st.integers(1, 9),
    heavy=st.floats(0.25, 4.0),
)
def test_step_shares_are_how_often_each_step_is_drawn(lengths: list[int], length: int, heavy: float) -> None:
    """Counted one place after the other: each is one segment, drawn by its episode's weight."""
    if max(lengths) < length:
        return
    weights = [heavy if i == 0 else 1.0 for i in range(len(lengths))]
    sampler = SegmentSampler(numbered(lengths), length, weights)
    expected = np.zeros(len(sampler.actions))
    for start in sampler.starts:
        expected[start : start + length] += weights[int(sampler.observations[start, 0])] / length
    shares = sampler.step_shares()
    assert np.allclose(shares, expected / expected.sum(), atol=1e-12)
    assert np.allclose(shares[np.isnan(sampler.actions[:, 0])], 0.0, atol=1e-12)


def test_same_generator_same_segments() -> None:
    """A seed decides the batch."""
    sampler = SegmentSampler(numbered([9, 9]), 4)
    first, second = (sampler.sample(16, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.observations, second.observations)


def test_refuses_what_cannot_be_sampled(make_episode: Callable[..., Episode]) -> None:
    """No episodes, no length and mixed robots are refused."""
    with pytest.raises(EpisodeError, match="longest of 0"):
        SegmentSampler([], 1)
    with pytest.raises(EpisodeError, match="at least 1"):
        SegmentSampler(numbered([3]), 0)
    with pytest.raises(EpisodeError, match="different"):
        SegmentSampler([*numbered([7]), make_episode(7)], 2)


def test_batch_is_the_callers_own() -> None:
    """Changing a batch changes no later one."""
    sampler = SegmentSampler(numbered([4]), 4)
    sampler.sample(1, np.random.default_rng(0)).observations[:] = -1
    assert (sampler.sample(1, np.random.default_rng(0)).observations >= 0).all()


def test_draws_in_proportion_to_weight(rng_draws: int = 60_000) -> None:
    """Each place is as likely as its episode weighs: 3 places of weight 1, 1 of weight 3, none in what is too short."""
    sampler = SegmentSampler(numbered([5, 2, 3]), 3, [1.0, 50.0, 3.0])
    batch = sampler.sample(rng_draws, np.random.default_rng(0))
    starts, counts = np.unique(batch.observations[0], axis=0, return_counts=True)
    assert starts.tolist() == [[0, 0], [0, 1], [0, 2], [2, 0]]
    assert np.allclose(counts / rng_draws, np.array([1, 1, 1, 3]) / 6, atol=0.01)


@given(
    lengths=st.lists(st.integers(3, 12), min_size=1, max_size=6),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_weighted_segments_are_segments(lengths: list[int], data: st.DataObject, seed: int) -> None:
    """Whatever the weights, no segment crosses an end or holds padding."""
    weights = data.draw(st.lists(st.floats(1e-300, 1e300), min_size=len(lengths), max_size=len(lengths)))
    batch = SegmentSampler(numbered(lengths), 3, weights).sample(8, np.random.default_rng(seed))
    assert (batch.observations[:, :, 0] == batch.observations[0, :, 0]).all()
    assert (np.diff(batch.observations[:, :, 1], axis=0) == 1).all() and (
        batch.actions == batch.observations[:-1]
    ).all()


def test_equal_weights_are_no_weights() -> None:
    """Weights that are all the same draw the very segments that none draw."""
    plain, equal = SegmentSampler(numbered([9, 7]), 4), SegmentSampler(numbered([9, 7]), 4, [0.3, 0.3])
    first, second = (sampler.sample(64, np.random.default_rng(3)) for sampler in (plain, equal))
    assert np.array_equal(first.observations, second.observations)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_refuses_impossible_weights(weights: list[float]) -> None:
    """As many as episodes, and each a positive number."""
    with pytest.raises(EpisodeError, match="weights .* for 2 episodes"):
        SegmentSampler(numbered([4, 4]), 2, weights)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    length=st.integers(1, 9),
    ended=st.lists(st.booleans(), min_size=4, max_size=4),
    heavy=st.floats(0.25, 4.0),
)
def test_past_the_end_of_a_task(lengths: list[int], length: int, ended: list[bool], heavy: float) -> None:
    """An episode that ended its task has a place at every step; rows stay at the last observation, with no action."""
    episodes = [
        dataclasses.replace(episode, ended_by="termination" if over else "truncation")
        for episode, over in zip(numbered(lengths), ended, strict=False)
    ]
    places = {
        (i, t): min(length, e.length - t)
        for i, e in enumerate(episodes)
        for t in range(e.length)
        if e.ended_by == "termination" or t + length <= e.length
    }
    if not places:
        return
    weights = [heavy if i == 0 else 1.0 for i in range(len(lengths))]
    sampler = SegmentSampler(episodes, length, weights, past_end=True)
    assert [tuple(row) for row in sampler.observations[sampler.starts].astype(int)] == list(places)
    expected = np.zeros(len(sampler.actions))
    for start, ((i, _), taken) in zip(sampler.starts, places.items(), strict=True):
        expected[start : start + taken] += weights[i] / length
    total = sum(weights[i] for i, _ in places)
    assert np.allclose(sampler.step_shares(), expected / total, atol=1e-12)
    batch = sampler.sample(40, np.random.default_rng(0))
    for n in range(40):
        i, t = batch.observations[0, n].astype(int)
        taken = places[i, t]
        assert (batch.observations[:, n, 1] == t + np.minimum(np.arange(length + 1), taken)).all()
        assert (batch.actions[:taken, n] == batch.observations[:taken, n]).all()
        assert np.isnan(batch.actions[taken:, n]).all()
