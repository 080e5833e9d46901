"""Measuring a policy by the true reward, in dm_control's own environment, on seeds no training run uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robots.spec import RobotSpec, ToolkitError

FIRST_EVALUATION_SEED = 1_000_000  # training seeds are small numbers; these never meet them
_LAST_SEED = 2**32 - 1  # that an environment takes

Act = Callable[[np.ndarray], np.ndarray]  # observation (obs_dim,) -> action (act_dim,) dimensionless


class EvaluationError(ToolkitError):
    """A robot that has no task to be measured on, or seeds that are none of evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """Returns of whole episodes."""

    returns: tuple[float, ...]  # sum of the true reward over each episode
    seeds: tuple[int, ...]  # seed of each episode's environment

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))


def evaluate(
    spec: RobotSpec, act: Act, episodes: int, seed: int = 0, on_episode: Callable[[float], None] | None = None
) -> Evaluation:
    """Runs whole episodes of `spec.task`.

    Args:
        spec: The robot; must have a task.
        act: The policy; if it has a method `reset`, as one with a memory does, that is called before each episode.
        episodes: How many.
        seed: Offset into the evaluation seeds, at least 0; episode i uses FIRST_EVALUATION_SEED + seed + i.
        on_episode: Called with each return, for a progress bar.

    Returns:
        The returns.

    Raises:
        EvaluationError: The robot has no task, or a seed would be one of training's or none at all.
    """
    last = FIRST_EVALUATION_SEED + seed + episodes - 1
    if seed < 0 or last > _LAST_SEED:
        most = _LAST_SEED - FIRST_EVALUATION_SEED - episodes + 1
        raise EvaluationError(f"offset {seed} into the evaluation seeds; for {episodes} episodes legal are 0 to {most}")
    if spec.task is None:
        raise EvaluationError(f"{spec.name} has no task in its robot.yaml, so there is no true reward to measure")
    from robots.task import TaskEnv

    seeds = tuple(FIRST_EVALUATION_SEED + seed + i for i in range(episodes))
    returns = []
    forget = getattr(act, "reset", None)
    for episode_seed in seeds:
        env = TaskEnv(spec, seed=episode_seed)
        observation, total, ended = env.reset(), 0.0, False
        if forget is not None:
            forget()
        while not ended:
            observation, reward, termination, truncation = env.step(act(observation))
            total += reward
            ended = termination or truncation
        returns.append(total)
        if on_episode is not None:
            on_episode(total)
    return Evaluation(tuple(returns), seeds)


def random_policy(spec: RobotSpec, seed: int = 0) -> Act:
    """A policy that draws every action uniformly from [-1, 1]: the zero mark of every table.

    Args:
        spec: The robot.
        seed: Of the draws.

    Returns:
        The policy.
    """
    rng = np.random.default_rng(seed)
    return lambda observation: rng.uniform(-1.0, 1.0, spec.act_dim)
