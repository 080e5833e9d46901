"""Correlation of learned with true return: hand-worked numbers, and a reward whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robots.robot_yaml import load_robot
from toolkit.correlation import correlate, graded_family, pearson, plot_correlation, spearman
from toolkit.evaluate import EvaluationError, evaluate

SPEC = dataclasses.replace(load_robot("cartpole"), episode_seconds=0.3)  # 30 steps: the arithmetic is the same


class SquaredAction(torch.nn.Module):
    """A reward known in closed form: minus the squared action."""

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -action.square().sum(-1)


def test_pearson_and_spearman_by_hand():
    """x = 1, 2, 3; y = 1, 2, 6: covariance 5, variances 2 and 14. Ranks agree. Two equal values share rank 1.5."""
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0])
    assert pearson(x, y) == pytest.approx(5.0 / math.sqrt(28.0), abs=1e-12)
    assert spearman(x, y) == pytest.approx(1.0, abs=1e-12)
    # ranks 1.5, 1.5, 3 against 1, 2, 3: 1.5 / sqrt(1.5 * 2)
    assert spearman(np.array([4.0, 4.0, 9.0]), x) == pytest.approx(math.sqrt(3.0) / 2.0, abs=1e-12)
    assert math.isnan(pearson(x, np.ones(3)))
    for bad in (np.zeros(1), np.zeros(2)):
        with pytest.raises(ValueError, match="two vectors"):
            pearson(bad, np.zeros(len(bad) + 1) if len(bad) > 1 else bad)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=20))
def test_correlation_ignores_shift_and_scale(pairs: list[tuple[int, int]]):
    """Both are blind to units, change sign with one side, and agree with numpy."""
    x, y = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    if x.std() == 0.0 or y.std() == 0.0:
        return
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    for measure in (pearson, spearman):
        assert measure(3.0 * x - 7.0, y) == pytest.approx(measure(x, y), abs=1e-9)
        assert measure(x, -y) == pytest.approx(-measure(x, y), abs=1e-9)
    assert spearman(x**3, y) == pytest.approx(spearman(x, y), abs=1e-12)


def test_family_reaches_from_the_policy_to_nothing():
    """Level 0 is the policy; "random" at 1 draws uniformly, "weak" at 1 does nothing; levels are not repeated."""
    act = lambda observation: np.array([0.5])  # noqa: E731
    family = graded_family(SPEC, act, 6)
    assert [(g.family, g.level) for g in family] == [
        ("random", 0.0), ("random", 0.5), ("random", 1.0), ("weak", pytest.approx(1 / 3)),
        ("weak", pytest.approx(2 / 3)), ("weak", 1.0),
    ]  # fmt: skip
    nothing = np.zeros(SPEC.obs_dim)
    assert family[0].act(nothing) == 0.5
    drawn = np.array([family[2].act(nothing)[0] for _ in range(500)])
    assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(1 / math.sqrt(3), abs=0.05)
    half = np.array([family[1].act(nothing)[0] for _ in range(500)])
    assert np.mean(half == 0.5) == pytest.approx(0.5, abs=0.1)
    assert family[3].act(nothing)[0] == pytest.approx(1 / 3)
    assert family[5].act(nothing) == 0.0
    with pytest.raises(EvaluationError, match="at least 2"):
        graded_family(SPEC, act, 1)


def test_both_returns_are_sums_over_the_same_episode():
    """The true one is that of `evaluate`; the learned one, with r = -a^2 and a = 0.5 (1 - level), is known."""
    act = lambda observation: np.array([0.5])  # noqa: E731
    family = graded_family(SPEC, act, 4)
    found = correlate(SPEC, family, SquaredAction(), episodes=2, seed=5)  # pyright: ignore[reportArgumentType]
    assert len(found.episodes) == 8
    assert [e.true_return for e in found.episodes[:2]] == pytest.approx(evaluate(SPEC, act, 2, seed=5).returns)
    weak = {e.level: e.learned_return for e in found.episodes if e.family == "weak"}
    assert weak == {0.5: pytest.approx(-30 * 0.0625, rel=1e-5), 1.0: 0.0}
    x, y = (np.array([getattr(e, name) for e in found.episodes]) for name in ("true_return", "learned_return"))
    assert (found.pearson, found.spearman) == (pearson(x, y), spearman(x, y))
    assert set(found.to_dict()["episodes"][0]) == {"family", "level", "seed", "true_return", "learned_return"}


def test_picture_is_drawn(tmp_path: Path):
    """A PNG, in the place asked for."""
    act = lambda observation: np.array([0.5])  # noqa: E731
    found = correlate(SPEC, graded_family(SPEC, act, 2), SquaredAction(), 1)  # pyright: ignore[reportArgumentType]
    path = plot_correlation(tmp_path / "correlation.png", found)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_robot_without_a_task_cannot_be_compared():
    """Said so, not reported as zero."""
    spec = dataclasses.replace(SPEC, task=None)
    with pytest.raises(EvaluationError, match="no true reward"):
        correlate(spec, [], SquaredAction())  # pyright: ignore[reportArgumentType]
