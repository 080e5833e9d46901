"""The interquartile mean and its interval, against numbers worked by hand."""

import itertools

import numpy as np
import pytest

from toolkit.seed_statistics import StatisticsError, bootstrap_interval, interquartile_mean


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([0.7], 0.7),
        ([1.0, 2.0], 1.5),  # half of each
        ([3.0, 0.0, 1.2], (0.25 * 0.0 + 1.0 * 1.2 + 0.25 * 3.0) / 1.5),  # cuts at 0.75 and 2.25
        ([9.0, 1.0, 2.0, -5.0], 1.5),  # the outer two are gone
        ([1.0, 2.0, 3.0, 4.0, 10.0], (0.75 * 2.0 + 3.0 + 0.75 * 4.0) / 2.5),  # cuts at 1.25 and 3.75
        ([-100.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0], 2.5),
    ],
)
def test_interquartile_mean_by_hand(x: list[float], expected: float) -> None:
    """The middle half, whatever n is and in whatever order the values come."""
    assert interquartile_mean(x) == pytest.approx(expected, abs=1e-12)


def test_interquartile_mean_is_rliables_where_four_divides_n() -> None:
    """There it is scipy's trim_mean with a quarter cut at each end, over all tasks pooled."""
    trim_mean = pytest.importorskip("scipy.stats").trim_mean
    x = np.random.default_rng(0).normal(size=(4, 5))
    assert interquartile_mean(x) == pytest.approx(trim_mean(x, 0.25, axis=None), abs=1e-12)


def test_interval_of_two_runs_is_that_of_all_their_draws() -> None:
    """Of (0, 1) drawn twice: 0 and 1 with probability 1/4 each, 1/2 else. The middle 40 % is 0.5; 90 % is all."""
    assert bootstrap_interval([[0.0, 1.0]], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([[0.0, 1.0]], level=0.9) == (0.0, 1.0)


def test_interval_of_three_runs_against_every_draw() -> None:
    """The percentiles of all 27 equally likely draws, up to the noise of 20,000 random ones."""
    x = [0.2, 0.9, 1.0]
    every = [interquartile_mean(draw) for draw in itertools.product(x, repeat=3)]
    expected = np.percentile(every, [10.0, 90.0])
    assert bootstrap_interval([x], level=0.8, draws=20_000) == pytest.approx(tuple(expected), abs=0.02)


def test_draws_stay_within_their_task() -> None:
    """Tasks whose runs agree have no spread, however far apart they are: pooled draws would have."""
    assert bootstrap_interval([[0.0, 0.0], [1.0, 1.0]]) == (0.5, 0.5)


def test_interval_is_repeatable_and_ordered() -> None:
    """The same seed gives the same interval, and the mean lies in it."""
    tasks = [[0.9, 1.0, 1.1], [0.2, 1.0, 0.97]]
    low, high = bootstrap_interval(tasks, seed=3)
    assert (low, high) == bootstrap_interval(tasks, seed=3)
    assert low <= interquartile_mean(np.concatenate(tasks)) <= high and low < high


@pytest.mark.parametrize("x", [[], [float("nan"), 1.0]])
def test_nothing_to_say_is_said(x: list[float]) -> None:
    """No value, or no number, is an error and not a NaN in a table."""
    with pytest.raises(StatisticsError, match="at least one value, all of them finite"):
        interquartile_mean(x)
    with pytest.raises(StatisticsError):
        bootstrap_interval([x])


def test_impossible_level() -> None:
    """A level outside (0, 1) and an empty list of tasks are refused."""
    with pytest.raises(StatisticsError, match="level 95"):
        bootstrap_interval([[1.0]], level=95)
    with pytest.raises(StatisticsError, match="no task"):
        bootstrap_interval([])
