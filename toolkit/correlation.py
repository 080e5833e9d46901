"""Does the learned reward rank behaviour as the true one does? For reports: nothing that learns imports this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robots.spec import RobotSpec
from robots.task import TaskEnv
from toolkit.evaluate import FIRST_EVALUATION_SEED, Act, EvaluationError
from toolkit.given_reward import FrozenReward


@dataclass(frozen=True)
class Graded:
    """One policy of a family that reaches from good to bad."""

    family: str  # how it was made
    level: float  # 0 = as trained, 1 = nothing left of it
    act: Act


@dataclass(frozen=True)
class ScoredEpisode:
    """One whole episode, seen by both rewards."""

    family: str
    level: float
    seed: int  # of the environment
    true_return: float  # sum of the task's reward
    learned_return: float  # sum of r_psi(s_t, a_t)


@dataclass(frozen=True)
class Correlation:
    """How the two returns go together, over episodes."""

    pearson: float
    spearman: float
    episodes: tuple[ScoredEpisode, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data."""
        return {
            "pearson": self.pearson,
            "spearman": self.spearman,
            "episodes": [dict(vars(episode)) for episode in self.episodes],
        }


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2), float64.

    Args:
        x: (n,).
        y: (n,).

    Returns:
        The correlation in [-1, 1]; nan if one of them does not vary.

    Raises:
        ValueError: Not two vectors of one length, 2 or more.
    """
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"shapes {x.shape} and {y.shape}; expected two vectors of one length, 2 or more")
    a, b = x.astype(np.float64) - x.mean(dtype=np.float64), y.astype(np.float64) - y.mean(dtype=np.float64)
    # Each is brought to unit length first: the product of two small sums of squares could underflow.
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if norms[0] == 0.0 or norms[1] == 0.0:
        return float("nan")
    return float(np.clip((a / norms[0]) @ (b / norms[1]), -1.0, 1.0))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of the ranks (Spearman 1904); equal values share the mean of their ranks.

    Args:
        x: (n,).
        y: (n,).

    Returns:
        The rank correlation in [-1, 1]; nan if one of them does not vary.

    Raises:
        ValueError: As `pearson`.
    """
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]


def graded_family(spec: RobotSpec, act: Act, count: int, seed: int = 0) -> list[Graded]:
    """Policies between `act` and useless, with no training.

    Half of them act at random now and then, half too weakly. A reward that only dislikes noise would pass with the
    first half alone.

    Args:
        spec: The robot.
        act: The trained policy.
        count: How many, at least 2.
        seed: Of the random actions.

    Returns:
        The policies: "random" draws a uniform action with probability `level`, "weak" multiplies the action by
        1 - `level`.

    Raises:
        EvaluationError: Fewer than two.
    """
    if count < 2:
        raise EvaluationError(f"a graded family of {count}; a correlation needs at least 2 policies")
    rng = np.random.default_rng(seed)
    halves = (("random", count - count // 2, _randomized), ("weak", count // 2, _weakened))
    family = []
    for name, size, make in halves:
        # "weak" leaves out level 0, which is the trained policy again
        levels = np.linspace(0.0, 1.0, size) if name == "random" else np.linspace(0.0, 1.0, size + 1)[1:]
        family += [Graded(name, float(level), make(spec, act, float(level), rng)) for level in levels]
    return family


def _randomized(spec: RobotSpec, act: Act, level: float, rng: np.random.Generator) -> Act:
    def mixed(observation: np.ndarray) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, spec.act_dim) if rng.random() < level else act(observation)

    return mixed


def _weakened(spec: RobotSpec, act: Act, level: float, rng: np.random.Generator) -> Act:
    return lambda observation: (1.0 - level) * act(observation)


def correlate(
    spec: RobotSpec,
    family: Sequence[Graded],
    reward: FrozenReward,
    episodes: int = 3,
    seed: int = 0,
    on_episode: Callable[[], None] = lambda: None,
) -> Correlation:
    """Runs every policy of a family in dm_control and sums both rewards over each episode.

    Args:
        spec: The robot; must have a task.
        family: The policies; all meet the same beginnings.
        reward: r_psi, on the CPU.
        episodes: Of each policy.
        seed: Offset into the evaluation seeds.
        on_episode: Called after each, for a progress bar.

    Returns:
        The correlation over all episodes.

    Raises:
        EvaluationError: The robot has no task.
    """
    if spec.task is None:
        raise EvaluationError(f"{spec.name} has no task in its robot.yaml, so there is no true reward to compare with")
    scored = []
    for graded in family:
        for i in range(episodes):
            episode_seed = FIRST_EVALUATION_SEED + seed + i
            true, learned = _returns(spec, graded.act, reward, episode_seed)
            scored.append(ScoredEpisode(graded.family, graded.level, episode_seed, true, learned))
            on_episode()
    x, y = np.array([e.true_return for e in scored]), np.array([e.learned_return for e in scored])
    return Correlation(pearson(x, y), spearman(x, y), tuple(scored))


@torch.no_grad()
def _returns(spec: RobotSpec, act: Act, reward: FrozenReward, seed: int) -> tuple[float, float]:
    """True and learned return of one episode."""
    env = TaskEnv(spec, seed=seed)
    observation, total, ended = env.reset(), 0.0, False
    observations, actions = [], []
    while not ended:
        action = np.clip(act(observation), -1.0, 1.0)
        observations.append(observation)
        actions.append(action)
        observation, true_reward, termination, truncation = env.step(action)
        total += true_reward
        ended = termination or truncation
    s, a = (torch.from_numpy(np.stack(rows)).float() for rows in (observations, actions))
    absorbing = getattr(reward, "absorbing", None)  # the true reward after the end is 0
    after = 0.0 if absorbing is None else (spec.episode_steps - len(actions)) * float(absorbing.detach())
    return total, float(reward(s, a).double().sum()) + after


def plot_correlation(path: Path, correlation: Correlation) -> Path:
    """Draws learned over true return, one point an episode.

    Args:
        path: The PNG to write.
        correlation: What to draw.

    Returns:
        `path`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    markers = {"random": ("o", "acts at random now and then"), "weak": ("s", "acts too weakly")}
    figure, axes = plt.subplots(figsize=(7, 5.5), constrained_layout=True)
    scatter = None
    for family in dict.fromkeys(episode.family for episode in correlation.episodes):
        points = [episode for episode in correlation.episodes if episode.family == family]
        marker, label = markers.get(family, ("^", family))
        scatter = axes.scatter(
            [p.true_return for p in points], [p.learned_return for p in points], c=[p.level for p in points],
            vmin=0.0, vmax=1.0, cmap="viridis", marker=marker, edgecolors="0.3", linewidths=0.5, label=label,
        )  # fmt: skip
    if scatter is not None:
        figure.colorbar(scatter, ax=axes, label="level: 0 = as trained, 1 = nothing left of it")
    axes.set_xlabel("true return in dm_control")
    axes.set_ylabel("learned return, sum of r(s, a)")
    axes.set_title(f"Pearson {correlation.pearson:.3f}, Spearman {correlation.spearman:.3f}")
    axes.legend(loc="best")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
