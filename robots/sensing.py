"""Sensors of position and velocity of many states at once, for no more than the forward kinematics they need."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch

from robots.channels import ChannelMap
from robots.model import sensing_model


class SensorBatch:
    """What the sensors show in B states. A rollout's own are those before its last physics step."""

    def __init__(
        self,
        model: mujoco.MjModel,
        own: Sequence[mujoco.MjModel] | None,
        channels: ChannelMap,
        count: int,
        threads: int,
    ) -> None:
        """Makes the threads.

        Args:
            model: The model of all states.
            own: A model for each of them instead, copied; None where they are all the same.
            channels: Says which sensors are read, and so how far to compute.
            count: B.
            threads: How many threads.
        """
        self._batch = Batch(sensing_model(model), count, threads)
        self.models: list[mujoco.MjModel] = []  # the copies of `own`; whoever edits them calls `models_changed`
        if own is not None:
            self.models = [sensing_model(each) for each in own]
            self.models_changed()
        self._stage = int(channels.fresh_stage)
        # Time, position, velocity and activation lead both this row and FULLPHYSICS; no such sensor needs the rest.
        self._prefix = channels.act.stop
        self._state, self._sensordata = self._batch.state, self._batch.bind("sensordata")

    def __call__(self, physics_state: np.ndarray) -> np.ndarray:
        """Computes the sensors.

        Args:
            physics_state: [B, num_state] mjSTATE_FULLPHYSICS.

        Returns:
            [B, nsensordata], valid until the next call; elements of later stages than the channels need mean nothing.
        """
        self._state[:, : self._prefix] = physics_state[:, : self._prefix]
        self._batch.forward(stage=self._stage)
        return self._sensordata

    def models_changed(self) -> None:
        """Takes notice of what was written to `models`."""
        self._batch.set_models(self.models)
