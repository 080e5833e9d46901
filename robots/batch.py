"""BatchSim: many copies of one robot, stepped together by MuJoCo's thread pool.

Each environment is a row of arrays, never a Python object, so a step costs little more than its physics.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from robots.channels import ChannelMap, ControlMap
from robots.command import CommandMap
from robots.episodes import EpisodeSchedule
from robots.model import compile_model, scene_matters, stepping_model, substeps
from robots.model_source import log_physics_warnings
from robots.observation import ObservationMap
from robots.processors import available_cpus
from robots.randomize import RandomizedEnvs
from robots.reset import draw_states, place
from robots.sensing import SensorBatch
from robots.spec import RobotSpec, RobotSpecError, ToolkitError
from robots.termination import Termination

_LARGEST = 1e6  # [SI] a position or velocity beyond this is a diverged simulation, not a robot


class BatchSimError(ToolkitError):
    """The batched simulator was used wrongly: an array of a wrong shape, or another simulator's state."""


@dataclass(frozen=True)
class BatchStep:
    """One control step of all environments."""

    observation: np.ndarray  # [B, obs_dim] float64, what the policy acts on next: after a reset where one was due
    final_observation: np.ndarray  # [B, obs_dim] float64 s_{t+1}, before any reset; always finite
    termination: np.ndarray  # [B] bool, the task ended for good: s_{t+1} is beyond `terminate` of robot.yaml
    truncation: np.ndarray  # [B] bool, the time limit was reached, and nothing else ended the episode
    quarantined: np.ndarray  # [B] bool, the physics broke: learn nothing from this transition


class BatchSim:
    """B environments of one robot with auto-reset. Not thread-safe; `step` itself uses `num_threads` threads."""

    def __init__(
        self,
        spec: RobotSpec,
        num_envs: int,
        *,
        seed: int = 0,
        num_threads: int | None = None,
        reset_pool: int = 1024,
        stagger: bool = True,
        randomize: bool = False,
    ) -> None:
        """Compiles the model and draws the states that episodes begin with.

        Args:
            spec: The robot.
            num_envs: B.
            seed: Decides every episode's beginning; environment i has the same episodes whatever B is.
            num_threads: Physics threads, None for as many as the process may use.
            reset_pool: How many different beginnings there are.
            stagger: Whether each environment's first episode gets a random shorter time limit, so that resets spread
                out over time instead of coming all at once.
            randomize: Whether each environment draws its own physics, delay and sensor noise from `spec.randomize`.
                The states that episodes begin in are drawn with the robot as described.

        Raises:
            RobotSpecError: The robot's description does not fit its model, says nothing about randomising, or ends
                episodes where they begin.
            BatchSimError: Fewer than one environment or beginning.
        """
        if num_envs < 1 or reset_pool < 1:
            raise BatchSimError(f"num_envs {num_envs} and reset_pool {reset_pool}: both must be at least 1")
        self.spec, self.num_envs, self._stagger = spec, num_envs, stagger
        self.obs_dim, self.act_dim = spec.obs_dim, spec.act_dim
        self.model = compile_model(spec, textures=False)
        self.n_substeps = substeps(spec, self.model)
        log_physics_warnings()
        threads = max(1, min(num_threads or available_cpus(), num_envs))
        self._channels, self._controls = ChannelMap(spec, self.model), ControlMap(spec, self.model)
        self._commands, self._observe = CommandMap(spec), ObservationMap(spec)
        self._schedule = EpisodeSchedule(num_envs, seed, spec.episode_steps, reset_pool)
        self._pool = pool = draw_states(
            spec, self.model, reset_pool, np.random.default_rng([seed, reset_pool]), threads
        )
        self._pool_observation = self._observe(self._channels.read(pool.state, pool.sensordata))
        self._terminates = Termination(spec)
        self._check_beginnings()
        self._random = RandomizedEnvs(spec, self.model, num_envs, seed) if randomize else None
        self._make_models(threads)
        self._rollout: rollout.Rollout | None = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._allocate()

    def _check_beginnings(self) -> None:
        over = np.flatnonzero(self._terminates(self._pool_observation))
        if len(over):
            reason = self._terminates.reason(self._pool_observation[over[0]])
            raise RobotSpecError(
                f"{len(over)} of {len(self._pool_observation)} episodes of {self.spec.name} would be over as they "
                f"begin: {reason}; change `reset` or `terminate` in its robot.yaml"
            )

    def _make_models(self, threads: int) -> None:
        stepped, fresh = self._channels.needs_stepped_sensors, self._channels.needs_fresh_sensors
        # One model per environment only where a difference shows: each costs memory, and cache misses.
        moves = bool(self.spec.reset.world)
        scene_dynamics = moves and (stepped or scene_matters(self.spec, self.model))
        models = [self.model] * self.num_envs
        if self._random is not None:
            models = [self._random.model_of(i) for i in range(self.num_envs)]
        self._dynamics = [stepping_model(self.model, sensors=stepped)] * self.num_envs
        if scene_dynamics or self._random is not None:
            self._dynamics = [stepping_model(model, sensors=stepped) for model in models]
        self._sensors = None
        if fresh:
            own = models if moves or self._random is not None else None
            self._sensors = SensorBatch(self.model, own, self._channels, self.num_envs, threads)
        self._scenes = [self._dynamics] * scene_dynamics
        if moves and self._sensors is not None:
            self._scenes.append(self._sensors.models)

    def _allocate(self) -> None:
        count, model, num_state = self.num_envs, self.model, self._channels.num_state
        self.physics_state = np.empty((count, num_state))  # [B, num_state] mjSTATE_FULLPHYSICS
        self.ctrl = np.zeros((count, model.nu))  # [B, nu] of the last step
        self.placement = np.empty((count, len(self.spec.reset.world), 3))  # [B, n, 3] [m]
        self._warmstart = np.zeros((count, model.nv))
        self._observation = np.empty((count, self.obs_dim))
        self._trajectory = np.empty((count, self.n_substeps, num_state))
        self._control = np.zeros((count, self.n_substeps, model.nu))
        self._command = np.empty((count, self.act_dim))
        self._values = np.empty((count, self._channels.num_channels))
        self._stepped_sensors = None
        if self._channels.needs_stepped_sensors:
            self._stepped_sensors = np.empty((count, self.n_substeps, model.nsensordata))
        self._everyone = np.arange(count)

    def reset(self) -> np.ndarray:
        """Begins a new episode in every environment.

        Returns:
            [B, obs_dim] float64 observations.
        """
        self._begin(self._everyone)
        if self._stagger:
            self._schedule.stagger()
        return self._observation.copy()

    def step(self, action: np.ndarray, before_reset: Callable[[], None] | None = None) -> BatchStep:
        """Advances every environment by one control step, and resets those whose episode ended.

        Args:
            action: [B, act_dim], dimensionless; clipped to [-1, 1].
            before_reset: Called when the physics has advanced and before any reset, so that it may look at
                `physics_state`, `ctrl` and `placement`. A quarantined environment shows the state before the step.

        Returns:
            What happened.

        Raises:
            BatchSimError: `action` has a wrong shape, `reset` was never called, or the simulator is closed.
        """
        if np.shape(action) != (self.num_envs, self.act_dim):
            raise BatchSimError(f"action of shape {np.shape(action)}; expected ({self.num_envs}, {self.act_dim})")
        if not self._schedule.episode.all():
            raise BatchSimError("step before reset")
        self._commands.command(action, out=self._command)
        sane = np.isfinite(self._command).all(axis=1)
        if not sane.all():
            self._command[~sane] = 0.0
        if self._random is not None:
            self._random.delayed(self._command)
        self._controls.ctrl(self._command, self.ctrl)
        sane &= self._advance()
        final_observation = self._sense(sane)
        termination = self._terminates(final_observation)  # what is so, whatever a noisy sensor says
        if self._random is not None:
            self._random.measured(final_observation)
        sane &= np.isfinite(final_observation).all(axis=1)
        quarantined = ~sane
        if quarantined.any():
            final_observation[quarantined] = self._observation[quarantined]
        termination &= sane
        truncation = self._schedule.tick() & sane & ~termination
        if before_reset is not None:
            before_reset()
        self._observation = final_observation.copy()
        ended = np.flatnonzero(termination | truncation | quarantined)
        if ended.size:
            self._begin(ended)
        return BatchStep(self._observation.copy(), final_observation, termination, truncation, quarantined)

    def model_of(self, index: int) -> mujoco.MjModel:
        """A copy of the model, with scene and drawn physics as environment `index` has them.

        Args:
            index: The environment.

        Returns:
            A fresh copy; writing to it changes nothing here.
        """
        model = copy.copy(self.model) if self._random is None else self._random.model_of(index)
        place(self.spec, model, self.placement[index])
        return model

    def set_state(
        self,
        qpos: np.ndarray,
        qvel: np.ndarray,
        act: np.ndarray | None = None,
        time: np.ndarray | float = 0.0,
        warmstart: np.ndarray | None = None,
        placement: np.ndarray | None = None,
    ) -> None:
        """Puts every environment into a given state; the episode clocks run on. For tests and replays.

        Args:
            qpos: [B, nq] or (nq,).
            qvel: [B, nv] or (nv,).
            act: [B, na] or (na,) activations, None for zero.
            time: [B] or scalar [s] of the physics.
            warmstart: [B, nv] or (nv,) exact accelerations to start the solver from, None for zero.
            placement: [B, n, 3] or (n, 3) [m] of what `spec.reset.world` moves, None to leave it.
        """
        channels = self._channels
        self.physics_state[:, 0] = time
        self.physics_state[:, channels.qpos] = qpos
        self.physics_state[:, channels.qvel] = qvel
        self.physics_state[:, channels.act] = 0.0 if act is None else act
        self._warmstart[:] = 0.0 if warmstart is None else warmstart
        if placement is not None:
            self.placement[:] = placement
            self._place(self._everyone)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs, as plain arrays and numbers."""
        schedule = self._schedule
        state = {"seed": schedule.seed, "reset_pool": schedule.num_beginnings}
        if self._random is not None:
            state["randomize"] = self._random.fingerprint()
        return state | {key: array.copy() for key, array in self._state_arrays().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the simulator back where `state_dict` found it.

        Args:
            state: From a simulator of the same robot, number of environments, seed and reset pool.

        Raises:
            BatchSimError: It is from another simulator.
        """
        expected = self.state_dict()
        if set(state) != set(expected):
            raise BatchSimError(f"simulator state with the keys {sorted(state)}; expected {sorted(expected)}")
        for key, value in expected.items():
            same = np.shape(state[key]) == value.shape if isinstance(value, np.ndarray) else state[key] == value
            if not same:
                raise BatchSimError(f"simulator state from another simulator: its {key} does not fit")
        for key, array in self._state_arrays().items():
            array[:] = state[key]
        self._place(self._everyone)

    def _state_arrays(self) -> dict[str, np.ndarray]:
        schedule = self._schedule
        arrays = {
            "physics_state": self.physics_state, "warmstart": self._warmstart, "placement": self.placement,
            "observation": self._observation, "ctrl": self.ctrl, "steps": schedule.steps, "limit": schedule.limit,
            "episode": schedule.episode,
        }  # fmt: skip
        return arrays if self._random is None else arrays | self._random.state_arrays()

    def close(self) -> None:
        """Ends the threads. Closing twice is allowed."""
        if self._rollout is not None:
            self._rollout.close()
            self._rollout = None

    def _advance(self) -> np.ndarray:
        """Runs the physics of one control step; returns [B] bool, which environments survived it."""
        if self._rollout is None:
            raise BatchSimError("the simulator is closed")
        self._control[:] = self.ctrl[:, None, :]
        self._rollout.rollout(
            self._dynamics, self._data, self.physics_state, self._control, skip_checks=True, nstep=self.n_substeps,
            initial_warmstart=self._warmstart, state=self._trajectory, sensordata=self._stepped_sensors,
        )  # fmt: skip
        channels, dt = self._channels, self.model.opt.timestep
        after = self._trajectory[:, -1]
        before = self._trajectory[:, -2] if self.n_substeps > 1 else self.physics_state
        # A NaN makes the comparison false; a rollout that broke off lags behind in time.
        sane = np.abs(after[:, 1:]).max(axis=1) < _LARGEST
        sane &= after[:, 0] > self.physics_state[:, 0] + (self.n_substeps - 0.5) * dt
        # The solver's real starting point stays inside the rollout; this differs from it only by implicit damping.
        with np.errstate(invalid="ignore"):
            np.subtract(after[:, channels.qvel], before[:, channels.qvel], out=self._warmstart)
        self._warmstart /= dt
        if sane.all():
            self.physics_state[:] = after
        else:
            self.physics_state[sane] = after[sane]
            self._warmstart[~sane] = 0.0
        return sane

    def _sense(self, sane: np.ndarray) -> np.ndarray:
        """Observations [B, obs_dim] of the states after the step."""
        stepped = None if self._stepped_sensors is None else self._stepped_sensors[:, -1]
        fresh = None if self._sensors is None else self._sensors(self.physics_state)
        self._channels.read(self.physics_state, fresh, stepped, out=self._values)
        if not sane.all():
            self._values[~sane] = 0.0
        return self._observe(self._values)

    def _begin(self, index: np.ndarray) -> None:
        """Begins an episode in the environments `index`."""
        pick = self._schedule.begin(index)
        self.physics_state[index] = self._pool.state[pick]
        self._warmstart[index] = self._pool.warmstart[pick]
        self._observation[index] = self._pool_observation[pick]
        if self._random is not None:
            self._random.begin(index, self._observation)
        self.placement[index] = self._pool.placement[pick]
        self._place(index)

    def _place(self, index: np.ndarray) -> None:
        for models in self._scenes:
            for i in index:
                place(self.spec, models[i], self.placement[i])
        if self._scenes and self._sensors is not None:
            self._sensors.models_changed()
