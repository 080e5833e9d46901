"""Measures of likeness that need no reward: how near is what the policy does to what the demos show?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MAX_ROWS = 2000  # rows of each side an energy distance looks at: its cost grows with their product


def auc(score_expert: Tensor, score_policy: Tensor) -> float:
    """Area under the ROC curve: how often a random expert segment scores above a random policy segment.

    Mann and Whitney 1947: AUC = (#{e > p} + 1/2 #{e = p}) / (N M). It depends on the order of the scores only, so log Z
    and the temper, which shift and scale all of them, do not matter.

    Args:
        score_expert: (N,) scores of expert segments.
        score_policy: (M,) scores of policy segments.

    Returns:
        1/2 if the scores cannot tell them apart, 1 if every expert segment scores higher.

    Raises:
        ValueError: Not vectors, an empty one, or a NaN.
    """
    if score_expert.ndim != 1 or score_policy.ndim != 1 or not len(score_expert) or not len(score_policy):
        raise ValueError(f"scores of shapes {tuple(score_expert.shape)}, {tuple(score_policy.shape)}; expected vectors")
    expert, policy = score_expert.detach().double(), score_policy.detach().double().sort().values
    if bool(expert.isnan().any()) or bool(policy.isnan().any()):
        raise ValueError("a score is NaN")
    below = torch.searchsorted(policy, expert, right=False)
    below_or_equal = torch.searchsorted(policy, expert, right=True)
    return float((below + below_or_equal).double().mean() / (2 * len(policy)))


def energy_distance(x: np.ndarray, y: np.ndarray, max_rows: int = MAX_ROWS) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, with Euclidean norms; zero only for equal distributions.

    Szekely and Rizzo 2013, "Energy statistics: a class of statistics based on distances", equation 6.1: means over all
    pairs, a row with itself included, so that it is never negative. Features must have been brought to one scale.

    Args:
        x: (N, d) rows.
        y: (M, d) rows.
        max_rows: Of a longer side this many rows are used, evenly spaced, so that the same input gives the same number.

    Returns:
        The distance, in units of the features.

    Raises:
        ValueError: Shapes that do not fit, an empty side, or a number that is not finite.
    """
    _check_rows(x, y)
    a, b = spaced_rows(x, max_rows), spaced_rows(y, max_rows)
    return max(0.0, 2.0 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b))


def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """E|X - Y| over all pairs of rows of `x` (N, d) and `y` (M, d)."""
    # The quick way, by a matrix product, loses half of the digits where rows nearly coincide.
    exact = "donot_use_mm_for_euclid_dist"
    return float(torch.cdist(torch.from_numpy(x).double(), torch.from_numpy(y).double(), compute_mode=exact).mean())


def spaced_rows(x: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows of `x` (N, d), evenly spaced from the first to the last."""
    if len(x) <= count:
        return x
    return x[np.linspace(0, len(x) - 1, count).round().astype(np.int64)]


def standardize(x: np.ndarray, mean: np.ndarray, std: np.ndarray, limit: float = 10.0) -> np.ndarray:
    """clip((x - mean) / std, -limit, limit), float64: one wild row must not outweigh all others.

    Args:
        x: (N, d) rows.
        mean: (d,).
        std: (d,), positive.
        limit: In standard deviations.

    Returns:
        (N, d) rows of one scale.
    """
    return np.clip((x.astype(np.float64) - mean) / std, -limit, limit)


def likelihood_gap(log_q_policy: Tensor, log_q_demos: Tensor) -> float:
    """E_q[log q(a|s)] - E_p[log q(a|s)] [nats per step]: how much less likely the demos' actions are than its own.

    With equal states it is KL(p || q) + H(p) - H(q), so a policy that is surer than it is right has a large one.

    Args:
        log_q_policy: (...) log density of the policy's own actions, one number a step.
        log_q_demos: (...) log density, under the policy, of actions of demos it did not learn from.

    Returns:
        The gap; near zero or negative if the demos' actions are as likely as its own.
    """
    return float(log_q_policy.detach().double().mean() - log_q_demos.detach().double().mean())


def log_z_drift(log_z: np.ndarray, unit: float) -> float:
    """|slope of log Z| x span / unit: how far log Z moved along its least-squares line.

    With unit = L std(r) / alpha, 1 means that the level of the reward moved by one of its own standard deviations.

    Args:
        log_z: (n,) of successive iterations [nats], n at least 2.
        unit: [nats] to measure in, positive.

    Returns:
        The drift, dimensionless, zero if log Z only fluctuates.

    Raises:
        ValueError: Fewer than two numbers, or a unit that is not positive.
    """
    if log_z.ndim != 1 or len(log_z) < 2 or not unit > 0.0:
        raise ValueError(f"log Z of shape {log_z.shape} and unit {unit}; expected a vector of 2 or more, unit > 0")
    t = np.arange(len(log_z)) - 0.5 * (len(log_z) - 1)
    slope = float(t @ log_z.astype(np.float64) / (t @ t))
    return abs(slope) * (len(log_z) - 1) / unit


def _check_rows(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1:] != y.shape[1:] or not len(x) or not len(y):
        raise ValueError(f"rows of shapes {x.shape} and {y.shape}; expected (N, d) and (M, d), neither empty")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("rows with numbers that are not finite")
