"""Agreement: how alike demos are, and how much each is to count when some of them are bad.

Nobody says which demos are bad, and the true reward is not read. What can be known is which of them show the same
behaviour: a demo counts less the further it lies from what the majority does. The majority is believed. If most demos
are bad, or if there are as many of one kind as of another, the weights cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demos.episode import Episode, EpisodeError

LEAST_WEIGHT = 0.01  # an odd demo is never lost altogether: it may be the only one of its kind
_NOISE_FLOOR = 0.003  # H of two demos of one expert at one task is 0 to 0.002 where starts and goals are alike
_SLACK, _SMALL_CORE_SLACK = 2.0, 4.0  # how many times the majority's own spread is still agreement
_POINTS = 8_000  # steps compared over all demos: bounds the time to some seconds
_POINTS_EACH = 400
_CLIP = 10.0  # [spreads]; one broken sensor value must not be all there is


def demo_weights(episodes: Sequence[Episode], weighting: str = "agreement") -> np.ndarray:
    """Weight of each demo in learning; `weights_from_distances` of `energy_distances`, duplicates sharing one weight.

    Args:
        episodes: Demos of one robot, at least one.
        weighting: "agreement", or "equal" for all ones.

    Returns:
        (n,) float64 in (0, 1]: 1 for those who agree with the majority, and for one or two demos.

    Raises:
        EpisodeError: No demos, or demos of different sizes.
    """
    if weighting == "equal":
        return np.ones(len(episodes))
    originals = first_copies(episodes)
    chosen = sorted(set(originals))
    weights = weights_from_distances(energy_distances([episodes[i] for i in chosen]))
    copies = {i: originals.count(i) for i in chosen}
    return np.array([weights[chosen.index(i)] / copies[i] for i in originals])


def first_copies(episodes: Sequence[Episode]) -> list[int]:
    """For each demo the position of the first one with the same observations and actions: its own, or a smaller one."""
    seen: dict[tuple[bytes, bytes], int] = {}
    return [seen.setdefault((e.observations.tobytes(), e.actions.tobytes()), i) for i, e in enumerate(episodes)]


def energy_distances(episodes: Sequence[Episode]) -> np.ndarray:
    """How differently two demos visit states and act there, for each pair.

    The energy coefficient of inhomogeneity (Szekely and Rizzo 2013, "Energy statistics") of the two sets of (s, a):
    H = (2 E|x-y| - E|x-x'| - E|y-y'|) / (2 E|x-y|), 0 for equal distributions, 1 for two different points. Each element
    of s and a is counted in units of its spread over all demos, actions as the robot got them: clipped to [-1, 1]. If
    one demo has no actions, states alone are compared.

    Args:
        episodes: n demos of one robot.

    Returns:
        (n, n) symmetric, in [0, 1], 0 on the diagonal.

    Raises:
        EpisodeError: No demos, or demos of different sizes.
    """
    points = _features(episodes)
    count = len(points)
    mean = np.zeros((count, count))
    for i in range(count):
        for j in range(i, count):
            mean[i, j] = mean[j, i] = _mean_distance(points[i], points[j])
    # Over pairs of different steps: a step's distance to itself would make short demos look odd
    sizes = np.array([len(x) for x in points])
    own = np.diag(mean) * sizes / np.maximum(sizes - 1, 1)
    energy = np.maximum(2.0 * mean - own[:, None] - own, 0.0)
    np.fill_diagonal(energy, 0.0)
    return np.divide(energy, 2.0 * mean, out=np.zeros_like(mean), where=mean > 0.0)


def weights_from_distances(distance: np.ndarray) -> np.ndarray:
    """Weights from how far demos lie from the majority, after least median of squares (Rousseeuw 1984).

    The core is the tightest majority: of n demos, one demo and the n // 2 nearest to it, for the demo whose n // 2-th
    neighbour is nearest. Its spread s is the largest distance inside it, but at least that of two good demos of one
    expert. A demo at d, the median of its distances to the core, has the weight min(1, (k s / d)^2), not below 0.01.
    The slack k = 2 + 4 / (pairs in the core) is larger for few demos, of which s is a poor estimate. One or two demos
    have no majority and weigh 1.

    Args:
        distance: (n, n) symmetric, not negative, 0 on the diagonal.

    Returns:
        (n,) float64 in [0.01, 1].
    """
    if distance.ndim != 2 or distance.shape[0] != distance.shape[1]:
        raise ValueError(f"distances of shape {distance.shape}; expected (n, n)")
    if len(distance) < 3:
        return np.ones(len(distance))
    core, away = _core(distance), away_from_majority(distance)
    spread = max(float(distance[np.ix_(core, core)].max()), _NOISE_FLOOR)
    reach = spread * (_SLACK + _SMALL_CORE_SLACK / (len(core) * (len(core) - 1) // 2))  # k s
    return np.maximum((reach / np.maximum(away, reach)) ** 2, LEAST_WEIGHT)


def away_from_majority(distance: np.ndarray) -> np.ndarray:
    """How far each demo lies from the core of `weights_from_distances`.

    Args:
        distance: (n, n) symmetric, not negative, 0 on the diagonal.

    Returns:
        (n,) median distance to the demos of the core, itself left out; 0 for a single demo.
    """
    core = _core(distance)
    others = [core[core != i] for i in range(len(distance))]
    return np.array([np.median(distance[i, rest]) if len(rest) else 0.0 for i, rest in enumerate(others)])


def _core(distance: np.ndarray) -> np.ndarray:
    """Positions of the tightest majority, n // 2 + 1 demos."""
    half = len(distance) // 2
    medoid = int(np.sort(distance, axis=1)[:, half].argmin())  # column 0 is the demo itself
    return np.argsort(distance[medoid], kind="stable")[: half + 1]


def _features(episodes: Sequence[Episode]) -> list[np.ndarray]:
    """(points, obs_dim + act_dim) float64 of each demo: evenly spaced steps, in spreads from the middle."""
    if not episodes:
        raise EpisodeError("no demos to compare")
    sizes = sorted({(e.observations.shape[1], e.actions.shape[1]) for e in episodes})
    if len(sizes) > 1:
        raise EpisodeError(f"episodes of different (obs_dim, act_dim): {sizes}; expected one robot's")
    most = min(_POINTS_EACH, max(2, _POINTS // len(episodes)))
    with_actions = all(episode.actions_known for episode in episodes)
    rows: list[np.ndarray] = []
    for episode in episodes:
        steps = np.unique(np.linspace(0, episode.length - 1, min(most, episode.length)).round().astype(int))
        parts = [episode.observations[steps]]
        if with_actions:
            parts.append(np.clip(episode.actions[steps], -1.0, 1.0))
        rows.append(np.concatenate(parts, axis=1).astype(np.float64))
    everything = np.concatenate(rows)
    middle, spread = _middle_and_spread(everything)
    return [np.clip((x - middle) / spread, -_CLIP, _CLIP) for x in rows]


def _middle_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the central 68 % of each column; a column that hardly ever moves is measured by its deviation."""
    low, middle, high = np.quantile(values, [0.16, 0.5, 0.84], axis=0)
    spread = (high - low) / 2.0
    spread = np.where(spread > 0.0, spread, values.std(axis=0))
    return middle, np.where(spread > 0.0, spread, 1.0)


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    """E|x - y| over all pairs of rows."""
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2.0 * x @ y.T
    if x is y:
        np.fill_diagonal(squared, 0.0)  # rounding leaves 1e-14 there, of which the root is not small
    return float(np.sqrt(np.maximum(squared, 0.0)).mean())
