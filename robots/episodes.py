"""When episodes begin and end in a batch, and which beginning each gets, as a pure function of the seed."""

from __future__ import annotations

import numpy as np


class EpisodeSchedule:
    """Clocks and random choices of B environments. The choices are hashes, so there is no generator state to save."""

    def __init__(self, num_envs: int, seed: int, episode_steps: int, num_beginnings: int) -> None:
        """Starts with no episode begun.

        Args:
            num_envs: B.
            seed: Environment i has the same choices under the same seed, whatever B is.
            episode_steps: Control steps in a whole episode.
            num_beginnings: How many beginnings there are to choose from.
        """
        self.seed, self.episode_steps, self.num_beginnings = seed, episode_steps, num_beginnings
        self.steps = np.zeros(num_envs, dtype=np.int64)  # [B] control steps since the episode began
        self.limit = np.zeros(num_envs, dtype=np.int64)  # [B] control steps at which it is truncated
        self.episode = np.zeros(num_envs, dtype=np.int64)  # [B] episodes begun

    def begin(self, index: np.ndarray) -> np.ndarray:
        """Begins the next episode of some environments.

        Args:
            index: (n,) environments.

        Returns:
            (n,) the beginning that each gets, in [0, num_beginnings).
        """
        self.episode[index] += 1
        self.steps[index] = 0
        self.limit[index] = self.episode_steps
        return self._choose(index, self.episode[index], self.num_beginnings)

    def stagger(self) -> None:
        """Shortens the episodes under way to random lengths, so that later resets do not come all at once."""
        everyone = np.arange(len(self.steps))
        self.limit[:] = 1 + self._choose(everyone, np.full(everyone.shape, -1), self.episode_steps)

    def tick(self) -> np.ndarray:
        """Counts one control step.

        Returns:
            [B] bool, whose time limit is reached.
        """
        self.steps += 1
        return self.steps >= self.limit

    def _choose(self, index: np.ndarray, episode: np.ndarray, options: int) -> np.ndarray:
        """SplitMix64 of (seed, environment, episode), reduced to [0, options)."""
        with np.errstate(over="ignore"):
            mixed = np.full(index.shape, self.seed % 2**64, dtype=np.uint64)
            for word in (index, episode):
                mixed = (mixed ^ word.astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
                mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                mixed = mixed ^ (mixed >> np.uint64(31))
        return (mixed % np.uint64(options)).astype(np.int64)
