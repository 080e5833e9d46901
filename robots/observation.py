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
        # Most robots measure what they observe: what leaves every number as it is need not be computed.
        self._offsets, self._scales = bool(self.offset.any()), bool((self.scale != 1.0).any())
        in_order = len(terms) == self.num_channels and bool((self.index == np.arange(len(terms))).all())
        transforms = np.array([term.transform for term, _ in terms])
        self.transformed = [
            (ufunc, np.flatnonzero(transforms == name)) for name, ufunc in _UFUNC.items() if (transforms == name).any()
        ]
        self._plain = in_order and not (self._offsets or self._scales or self.transformed)
        self._scratch = np.empty(len(terms))

    def __call__(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Computes observations.

        Args:
            values: (..., num_channels) float64 raw measurements.
            out: (..., obs_dim) float64 buffer to fill, or None for a new one; for a single reading, (num_channels,),
                a float32 one will do, such as a policy's own input.

        Returns:
            (..., obs_dim); `out` if it was given, else float64.

        Raises:
            RobotSpecError: The last axis of `values` is not the robot's number of channels.
        """
        if values.shape[-1] != self.num_channels:
            raise RobotSpecError(f"{values.shape[-1]} sensor values came, the robot has {self.num_channels} channels")
        if out is not None and values.ndim == 1:
            if self._plain:
                np.copyto(out, values)
            else:
                np.copyto(out, self._compute(values, self._scratch))
            return out
        return self._compute(values, out)

    def _compute(self, values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        out = values.take(self.index, -1, out, "clip")
        if self._offsets:
            out -= self.offset
        if self._scales:
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
