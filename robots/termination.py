"""Where a task ends for good: observations beyond `terminate` of robot.yaml, such as a torso near the ground."""

from __future__ import annotations

import numpy as np

from robots.spec import RobotSpec


class Termination:
    """Whether an observation is beyond a limit; a robot without limits has no end but the time limit."""

    def __init__(self, spec: RobotSpec) -> None:
        """Looks up the elements.

        Args:
            spec: The robot; its `terminate` says the limits.
        """
        cases = [(i, limit) for limit in spec.terminate for i in spec.elements(limit.observation)]
        self._index = np.array([i for i, _ in cases], dtype=np.intp)
        self._lower = np.array([-np.inf if limit.lower is None else limit.lower for _, limit in cases])
        self._upper = np.array([np.inf if limit.upper is None else limit.upper for _, limit in cases])
        self._names = [spec.observation_names[i] for i in self._index]

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Judges observations.

        Args:
            observation: (..., obs_dim), each finite.

        Returns:
            (...) bool, the task is over in that state.
        """
        if not self._names:  # as of most robots, at every step of the simulator
            return np.zeros(observation.shape[:-1], dtype=bool)
        return np.asarray(self._beyond(observation).any(-1))

    def reason(self, observation: np.ndarray) -> str:
        """Says which limits one observation, (obs_dim,), is beyond, as "height 0.412 (limits 0.7 to inf)"."""
        value, beyond = observation[self._index], self._beyond(observation)
        rows = zip(self._names, value, self._lower, self._upper, beyond, strict=True)
        return ", ".join(f"{name} {x:.3g} (limits {low:g} to {high:g})" for name, x, low, high, out in rows if out)

    def _beyond(self, observation: np.ndarray) -> np.ndarray:
        value = observation[..., self._index]
        # What was within a limit is so in single precision too, where the limit is rounded as it was
        lower, upper = (limit.astype(value.dtype, copy=False) for limit in (self._lower, self._upper))
        return (value < lower) | (value > upper)
