"""The measures of likeness against numbers worked by hand, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from toolkit.judgement import auc, energy_distance, likelihood_gap, log_z_drift, standardize

numbers = st.lists(st.integers(-50, 50), min_size=1, max_size=12)
points = arrays.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(-20, 20).map(float))


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_auc_by_hand():
    """Expert 3, 1; policy 2, 1: of four pairs 3 > 2, 3 > 1, 1 < 2 and a tie, which is half a win: 2.5 / 4."""
    assert auc(vector(3.0, 1.0), vector(2.0, 1.0)) == 0.625
    assert auc(vector(5.0, 6.0), vector(1.0, 2.0, 3.0)) == 1.0
    assert auc(vector(0.0), vector(1.0)) == 0.0
    assert auc(vector(7.0, 7.0), vector(7.0)) == 0.5


@given(numbers, numbers)
def test_auc_knows_only_the_order(expert: list[int], policy: list[int]):
    """It equals the count over all pairs, swaps to its complement, and no increasing map changes it."""
    e, p = vector(*expert), vector(*policy)
    pairs = [(a > b) + 0.5 * (a == b) for a in expert for b in policy]
    assert auc(e, p) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(e, p) + auc(p, e) == pytest.approx(1.0, abs=1e-12)
    assert auc(3.0 * e**3 + 1.0, 3.0 * p**3 + 1.0) == auc(e, p)


def test_auc_refuses_what_has_no_order():
    """Empty, matrices and NaN are errors, not one half."""
    for bad in (torch.zeros(0), torch.zeros(2, 2), vector(math.nan)):
        with pytest.raises(ValueError, match=r"scores of shapes|NaN"):
            auc(bad, vector(1.0))


def test_energy_distance_by_hand():
    """x = {0, 3}, y = {4}: E|X-Y| = (4 + 1) / 2, E|X-X'| = 6 / 4, E|Y-Y'| = 0, so 5 - 1.5. In the plane: 3-4-5."""
    assert energy_distance(np.array([[0.0], [3.0]]), np.array([[4.0]])) == pytest.approx(3.5, abs=1e-12)
    assert energy_distance(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])) == pytest.approx(10.0, abs=1e-12)


@given(points, points)
def test_energy_distance_is_a_distance(x: np.ndarray, y: np.ndarray):
    """Zero to itself, symmetric, never negative, blind to order, shift and rotation, and it scales with the units."""
    d = energy_distance(x, y)
    assert energy_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert d >= 0.0
    assert energy_distance(y, x) == pytest.approx(d, abs=1e-9)
    assert energy_distance(x[::-1].copy(), y) == pytest.approx(d, abs=1e-9)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert energy_distance(x @ turn + 5.0, y @ turn + 5.0) == pytest.approx(d, abs=1e-9)
    assert energy_distance(2.0 * x, 2.0 * y) == pytest.approx(2.0 * d, abs=1e-9)


def test_energy_distance_sees_a_change_of_spread():
    """Equal means are not enough: a Gaussian twice as wide is told from noise of the sample."""
    rng = np.random.default_rng(0)
    x, same, wide = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)), 2.0 * rng.normal(size=(500, 3))
    assert energy_distance(x, wide) > 10.0 * energy_distance(x, same)


def test_long_sides_are_thinned_evenly_and_always_the_same_way():
    """10,000 rows cost no more than 2,000, and give nearly the distance of all."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10_000, 2)), rng.normal(size=(900, 2)) + 1.0
    thinned = energy_distance(x, y)
    assert thinned == energy_distance(x, y)
    assert thinned == pytest.approx(energy_distance(x, y, max_rows=10_000), rel=0.1)
    assert thinned != energy_distance(x, y, max_rows=10_000)


def test_energy_distance_refuses_what_it_cannot_compare():
    """Other widths, nothing at all, NaN."""
    good = np.zeros((2, 3))
    for bad in (np.zeros((2, 2)), np.zeros((0, 3)), np.zeros(3), np.full((1, 3), np.nan)):
        with pytest.raises(ValueError, match=r"rows"):
            energy_distance(good, bad)


def test_standardize_by_hand():
    """(5 - 1) / 2 = 2; what lies 50 deviations off counts as 10."""
    out = standardize(np.array([[5.0], [101.0], [-99.0]]), np.array([1.0]), np.array([2.0]))
    np.testing.assert_array_equal(out, [[2.0], [10.0], [-10.0]])


def test_likelihood_gap_by_hand():
    """Own actions -1 on average, the demos' -4: a gap of 3 nats a step."""
    assert likelihood_gap(vector(-0.5, -1.5), vector(-3.0, -5.0)) == 3.0


def test_log_z_drift_by_hand():
    """A line from 2 to 8 drifts by 6, in units of 3 by 2, up or down; a zigzag about it does not count."""
    line = np.array([2.0, 4.0, 6.0, 8.0])
    assert log_z_drift(line, 3.0) == pytest.approx(2.0, abs=1e-12)
    assert log_z_drift(-line, 3.0) == pytest.approx(2.0, abs=1e-12)
    assert log_z_drift(np.array([5.0, -5.0, -5.0, 5.0]), 1.0) == pytest.approx(0.0, abs=1e-12)
    for bad, unit in ((np.zeros(1), 1.0), (line, 0.0), (np.zeros((2, 2)), 1.0)):
        with pytest.raises(ValueError, match="log Z"):
            log_z_drift(bad, unit)
