"""Domain randomisation: each environment's own masses, friction, gains, action delay and sensor noise."""

from __future__ import annotations

import copy
import json
import zlib

import mujoco
import numpy as np

from robots.command import CommandMap
from robots.spec import RobotSpec, RobotSpecError

_BEGINNING, _STEP, _DRAWS = 0, 1, 2  # streams of random numbers


class RandomizedEnvs:
    """What B environments drew from `spec.randomize`, as a pure function of the seed.

    Masses, friction, gains and delay are drawn once and stay for the life of the simulator. Environment i draws the
    same whatever B is. The noise is a function of (seed, step), so there is no generator state to save.
    """

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel, num_envs: int, seed: int) -> None:
        """Draws.

        Args:
            spec: The robot.
            model: Its compiled model, left as it came.
            num_envs: B.
            seed: Decides all draws.

        Raises:
            RobotSpecError: The robot does not say how far to randomise, or an actuator's force is not linear in its
                parameters.
        """
        if spec.randomize is None:
            raise RobotSpecError(
                f"{spec.name} has no section randomize; its keys are mass, friction, gains, delay, noise"
            )
        linear = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)
        if spec.randomize.gains != (1.0, 1.0) and not np.isin(model.actuator_gaintype, [int(k) for k in linear]).all():
            raise RobotSpecError("randomize.gains: only motors and servos are supported, the model has other actuators")
        self.ranges, self._model, self._seed = spec.randomize, model, seed
        self.mass = np.empty((num_envs, model.nbody))  # [B, nbody] factors
        self.friction = np.empty(num_envs)  # [B] factors
        self.gains = np.empty((num_envs, model.nu))  # [B, nu] factors
        self.delay = np.empty(num_envs, dtype=np.int64)  # [B] control steps
        for i in range(num_envs):
            rng = np.random.default_rng([seed, i, _DRAWS])
            self.mass[i] = rng.uniform(*self.ranges.mass, model.nbody)
            self.friction[i] = rng.uniform(*self.ranges.friction)
            self.gains[i] = rng.uniform(*self.ranges.gains, model.nu)
            self.delay[i] = rng.integers(self.ranges.delay[0], self.ranges.delay[1], endpoint=True)
        stds = dict(self.ranges.noise)
        self._std = np.concatenate([np.full(len(term.channels), stds.get(term.name, 0.0)) for term in spec.observation])
        self._idle = CommandMap(spec).command(np.zeros(spec.act_dim))
        self._everyone = np.arange(num_envs)
        # [B, 1 + longest delay, act_dim] commands, the latest first
        self._commands = np.tile(self._idle, (num_envs, 1 + self.ranges.delay[1], 1))
        self._steps = np.zeros(1, dtype=np.int64)

    def model_of(self, index: int) -> mujoco.MjModel:
        """The model with what one environment drew.

        Args:
            index: The environment.

        Returns:
            A fresh copy.
        """
        model = copy.copy(self._model)
        model.body_mass[:] *= self.mass[index]
        model.body_inertia[:] *= self.mass[index, :, None]
        for field in ("geom_friction", "pair_friction"):
            getattr(model, field)[:] *= self.friction[index]
        for field in ("actuator_gainprm", "actuator_biasprm"):
            getattr(model, field)[:] *= self.gains[index, :, None]
        # Subtree masses and inverse inertias follow from the masses.
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    def begin(self, index: np.ndarray, observation: np.ndarray) -> None:
        """Forgets the commands under way and adds noise to first observations.

        Args:
            index: (n,) the environments that begin an episode.
            observation: [B, obs_dim], its rows `index` are written to.
        """
        self._commands[index] = self._idle
        observation[index] += self._noise(_BEGINNING)[index]

    def delayed(self, command: np.ndarray) -> None:
        """Replaces each environment's command by the one of `delay` control steps ago.

        Args:
            command: [B, act_dim], written to. Before an episode's first command there was that of action 0.
        """
        self._commands[:, 1:] = self._commands[:, :-1].copy()
        self._commands[:, 0] = command
        command[:] = self._commands[self._everyone, self.delay]

    def measured(self, observation: np.ndarray) -> None:
        """Adds the noise of the next control step.

        Args:
            observation: [B, obs_dim], written to.
        """
        self._steps += 1
        observation += self._noise(_STEP)

    def state_arrays(self) -> dict[str, np.ndarray]:
        """What changes from step to step, by name; the arrays themselves and not copies."""
        return {"delayed_commands": self._commands, "noise_steps": self._steps}

    def fingerprint(self) -> int:
        """CRC-32 of the ranges, to tell apart simulators that drew from different ones."""
        return zlib.crc32(json.dumps(vars(self.ranges), sort_keys=True).encode())

    def _noise(self, stream: int) -> np.ndarray:
        """[B, obs_dim]. Row by row from one stream, so that a row does not depend on how many follow."""
        key = np.array([self._seed % 2**64, stream], dtype=np.uint64)
        counter = np.array([0, 0, 0, self._steps[0]], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        return generator.standard_normal((len(self.delay), len(self._std))) * self._std
