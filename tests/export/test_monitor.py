"""The reward monitor: a sliding mean against the demos' quantiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.monitor import MonitorError, RewardMonitor
from robots.safety_spec import MonitorSpec

QUANTILES = {"0.001": -3.0, "0.01": -2.0, "0.05": -1.0, "0.5": 1.0}


def monitor(**config: object) -> RewardMonitor:
    """A monitor of one step per 0.1 s; window 5 steps, patience 3."""
    return RewardMonitor(QUANTILES, 0.1, MonitorSpec(**{"window_seconds": 0.5, "patience_seconds": 0.3, **config}))


def test_patience_runs_out_once_a_streak() -> None:
    """Below the threshold for the patience gives the reason once; recovery and relapse give it again."""
    m = monitor()
    said = [m.update(-2.5) for _ in range(12)]
    assert [i for i, reason in enumerate(said) if reason] == [6]  # window full at step 4, third such step is 6
    assert all(m.update(5.0) is None for _ in range(5))
    said = [m.update(-9.0) for _ in range(10)]
    assert said.count("reward_below_threshold") == 1
    assert m.report().warnings == 2


def test_single_bad_steps_are_forgiven() -> None:
    """Steps far below the threshold do not matter while the mean is above it."""
    m = monitor()
    assert all(m.update(-7.0 if i % 5 == 0 else 1.0) is None for i in range(100))
    assert m.report().below_fraction == 0.0


def test_a_reward_that_is_not_finite_counts_as_bad_and_poisons_nothing() -> None:
    """NaN wears the patience down; the mean afterwards is of the finite rewards only."""
    m = monitor()
    for _ in range(5):
        m.update(1.0)
    assert [m.update(value) for value in (math.nan, math.inf, math.nan)] == [None, None, "reward_below_threshold"]
    assert m.update(1.0) is None and m.window_mean == 1.0
    report = m.report()
    assert report.mean == 1.0 and report.steps == 9 and report.below_fraction == pytest.approx(3 / 9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_window_mean_is_the_mean_of_the_window(rewards: list[float]) -> None:
    """The running sum equals the plain mean of the last steps, and the report the plain mean of all."""
    m = monitor()
    means = []
    for i, reward in enumerate(rewards):
        m.update(reward)
        if i >= 4:
            means.append(np.mean(rewards[i - 4 : i + 1]))
            assert m.window_mean == pytest.approx(means[-1], rel=1e-9, abs=1e-6)
    report = m.report()
    assert report.mean == pytest.approx(np.mean(rewards), rel=1e-9, abs=1e-6)
    if means:
        assert report.lowest_window_mean == pytest.approx(min(means), rel=1e-9, abs=1e-6)
    else:
        assert math.isnan(report.lowest_window_mean)


def test_thresholds_are_the_demos_own() -> None:
    """The threshold is the chosen quantile, and the report carries the demos' median beside it."""
    m = monitor(quantile="0.05")
    assert m.threshold == -1.0 and m.report().demo_median == 1.0 and math.isnan(m.report().mean)


@pytest.mark.parametrize("config", [{"quantile": "0.02"}, {"response": "panic"}, {"window_seconds": 0.0}])
def test_a_wrong_config_is_refused(config: dict) -> None:
    """A quantile, response or window that does not exist is refused with what is legal."""
    with pytest.raises(MonitorError):
        monitor(**config)
