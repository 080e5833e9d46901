"""What a handful of seeds says: the interquartile mean, and how far it could be off.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice" (arXiv 2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robots.spec import ToolkitError


class StatisticsError(ToolkitError):
    """Numbers that nothing can be said about."""


def interquartile_mean(x: Sequence[float] | np.ndarray) -> float:
    """The mean of the middle half: a quarter of the n values is cut off at each end.

        IQM = sum_i w_i x_(i) / (n / 2),   w_i = |[i - 1, i] intersected with [n/4, 3n/4]|,   x_(1) <= ... <= x_(n)

    n/4 is seldom whole: a value astride a cut counts with the part of it that is inside. rliable's `aggregate_iqm` cuts
    floor(n/4) whole values instead (scipy's `trim_mean`): the same where 4 divides n, but the plain mean for n = 3.

    Args:
        x: Values, any shape, pooled; at least one.

    Returns:
        The interquartile mean.

    Raises:
        StatisticsError: No value, or one that is not finite.
    """
    return float(_interquartile_means(_checked(x)[None])[0])


def bootstrap_interval(
    x_by_task: Sequence[Sequence[float]], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the interquartile mean, stratified: each task's runs are drawn anew from that task's.

    With very few seeds it comes out too narrow; with one seed a task it has no width at all.

    Args:
        x_by_task: The runs of each task.
        level: Share of the draws inside the interval, in (0, 1).
        draws: How often to draw.
        seed: Of the draws.

    Returns:
        Lower and upper end.

    Raises:
        StatisticsError: No task, a task without runs, a value that is not finite, or an impossible level.
    """
    if not 0.0 < level < 1.0 or draws < 1:
        raise StatisticsError(f"level {level}, draws {draws}; level must be in (0, 1), draws at least 1")
    tasks = [_checked(runs) for runs in x_by_task]
    if not tasks:
        raise StatisticsError("no task; expected the runs of at least one")
    rng = np.random.default_rng(seed)
    drawn = [runs[rng.integers(len(runs), size=(draws, len(runs)))] for runs in tasks]
    means = _interquartile_means(np.concatenate(drawn, axis=1))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)


def _checked(x: Sequence[float] | np.ndarray) -> np.ndarray:
    """(n,) float64."""
    values = np.asarray(x, dtype=np.float64).ravel()
    if len(values) == 0 or not np.isfinite(values).all():
        raise StatisticsError(f"{values.tolist()}: expected at least one value, all of them finite")
    return values


def _interquartile_means(x: np.ndarray) -> np.ndarray:
    """(draws,) from (draws, n)."""
    n = x.shape[1]
    edges = np.clip(np.arange(n + 1), n / 4.0, 3.0 * n / 4.0)
    return np.sort(x, axis=1) @ np.diff(edges) / (n / 2.0)
