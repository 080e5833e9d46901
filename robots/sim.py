"""MujocoBackend: one simulated robot behind the same four methods as a real one."""

from __future__ import annotations

import time

import mujoco
import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.channels import FULL_STATE, ChannelMap, ControlMap
from robots.model import compile_model, stepping_model, substeps
from robots.model_source import log_physics_warnings
from robots.reset import draw_states, place
from robots.spec import RobotSpec


class MujocoBackend(Backend):
    """A robot in MuJoCo. Its time is its own: `step` returns as soon as the physics is computed."""

    def __init__(self, spec: RobotSpec, seed: int = 0) -> None:
        """Compiles the model.

        Args:
            spec: The robot.
            seed: Decides the beginnings of all episodes, in order.

        Raises:
            RobotSpecError: The robot's description does not fit its model.
        """
        self.spec = spec
        self.model = stepping_model(compile_model(spec), sensors=True)  # readable for drawing pictures
        self.data = mujoco.MjData(self.model)  # readable for drawing pictures
        log_physics_warnings()
        self._substeps = substeps(spec, self.model)
        self._channels, self._controls = ChannelMap(spec, self.model), ControlMap(spec, self.model)
        self._rng = np.random.default_rng(seed)
        self._sequence = -1  # of the last reading; -1 before the first reset
        self._looks = 0  # before any reset
        self._closed = False

    def reset(self) -> SensorReading:
        """Begins an episode as `spec.reset` says."""
        self._check_open()
        states = draw_states(self.spec, self.model, 1, self._rng)
        place(self.spec, self.model, states.placement[0])
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, states.state[0], FULL_STATE)
        mujoco.mj_forward(self.model, self.data)
        self.data.qacc_warmstart[:] = states.warmstart[0]
        self.data.sensordata[:] = states.sensordata[0]
        self._sequence = -1
        return self._measure()

    def reseed(self, seed: int) -> None:
        """Begins the episodes anew from another seed, as if just made with it.

        Args:
            seed: Decides the beginnings of all episodes, in order.
        """
        self._rng = np.random.default_rng(seed)
        self._sequence = -1

    def step(self, command: np.ndarray) -> SensorReading:
        """Simulates one control period with the command held."""
        self._check_open()
        if self._sequence < 0:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        self._controls.ctrl(command, self.data.ctrl)
        mujoco.mj_step(self.model, self.data, self._substeps)
        # Positions, velocities and their sensors are those before the last physics step until this is called.
        mujoco.mj_step1(self.model, self.data)
        return self._measure()

    def measure(self) -> SensorReading:
        """Measures again; before the first reset, the model's own default state."""
        self._check_open()
        if self._sequence < 0:
            mujoco.mj_forward(self.model, self.data)
            self._looks += 1
            values = self._channels.read_data(self.model, self.data)
            return SensorReading(values, time.monotonic_ns(), self._looks - 1)
        return self._measure()

    def close(self) -> None:
        """Ends the simulation. Closing twice is allowed."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the simulated robot is closed")

    def _measure(self) -> SensorReading:
        values = self._channels.read_data(self.model, self.data)
        if not np.isfinite(values).all():
            self._sequence = -1
            raise BackendError(f"the simulation of {self.spec.name} diverged; reset it")
        self._sequence += 1
        return SensorReading(values, time.monotonic_ns(), self._sequence)
