"""The one function that turns measurements into an observation.

Its three callers are the simulator (`batch.py`, for all environments at once), the recorder (`demos/record.py`) and the
control loop (`export/loop.py`): whatever the policy was trained on is what the robot computes.
"""

from __future__ import annotations

import numpy as np

from robots.spec import RobotSpec, RobotSpecError

_UFUNC = {"sin": np.sin, "cos": np.cos, "log1p": np.log1p, "arcsinh": np.arcsinh}


class ObservationMap:
    """`observation_i = transform_i((raw[index_i] - offset_i) * scale_i)`, with everything looked up once."""

    def __init__(self, spec: RobotSpec) -> None:
        """Looks up indices, offsets and scales.

        Args:
            spec: The robot; its `observation` terms say what is computed, its `channels` from what.
        """
        position = {channel: i for i, channel in enumerate(spec.channels)}
        terms = [(term, i) for term in spec.observation for i in range(len(term.channels))]
        self.num_channels = len(spec.channels)
        self.index = np.array([position[term.channels[i]] for term, i in terms], dtype=np.intp)
        self.offset = np.array([term.offset[i] for term, i in terms], dtype=np.float64)
        self.scale = np.array([term.scale[i] for term, i in terms], dtype=np.float64)
        transforms = np.array([term.transform for term, _ in terms])
        self.transformed = [
            (ufunc, np.flatnonzero(transforms == name)) for name, ufunc in _UFUNC.items() if (transforms == name).any()
        ]

    def __call__(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Computes observations.

        Args:
            values: (..., num_channels) float64 raw measurements.
            out: (..., obs_dim) float64 buffer to fill, or None for a new one.

        Returns:
            (..., obs_dim) float64; `out` if it was given.

        Raises:
            RobotSpecError: The last axis of `values` is not the robot's number of channels.
        """
        if values.shape[-1] != self.num_channels:
            raise RobotSpecError(f"{values.shape[-1]} sensor values came, the robot has {self.num_channels} channels")
        out = np.take(values, self.index, axis=-1, out=out, mode="clip")
        out -= self.offset
        out *= self.scale
        for ufunc, columns in self.transformed:
            out[..., columns] = ufunc(out[..., columns])
        return out


def make_observation(spec: RobotSpec, values: np.ndarray) -> np.ndarray:
    """Observation from raw sensor values, the plain form of `ObservationMap`.

    Args:
        spec: The robot.
        values: (..., len(spec.channels)) float64, in the order and units of `spec.channels`.

    Returns:
        (..., obs_dim) float64 observation.

    Raises:
        RobotSpecError: Wrong number of values.
    """
    return ObservationMap(spec)(np.asarray(values, dtype=np.float64))
