"""The true reward, in dm_control's own environments: to evaluate and to make experts, never to learn from demos."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from robots.batch import BatchSim
from robots.channels import FULL_STATE, ChannelMap, ControlMap
from robots.command import CommandMap
from robots.model import compile_model, field_row, sensor_arguments
from robots.model_source import log_physics_warnings
from robots.observation import make_observation
from robots.spec import RobotSpec, RobotSpecError, ToolkitError
from robots.termination import Termination

_FORMS = "dm_control.suite:<domain>/<task> or dm_control.manipulation:<name>"


class TaskError(ToolkitError):
    """A task that cannot go on: its physics broke, or it was stepped when it could not be."""


class TaskEnv:
    """dm_control's environment of `spec.task`: its beginnings, its reward; model and observation are the robot's.

    The model is the spec's, with its added sensors, overrides and stretched bones: a variant is judged by the task of
    the original.
    """

    def __init__(self, spec: RobotSpec, seed: int = 0) -> None:
        """Loads the task.

        Args:
            spec: The robot; `spec.task` says which task.
            seed: Decides the beginnings of all episodes, in order.

        Raises:
            RobotSpecError: No task, a task that dm_control lacks, or one with another control step than the robot.
        """
        self.spec = spec
        self._environment = _load(spec, seed)
        self._command, self._terminates = CommandMap(spec), Termination(spec)
        self._wired_to: Any = None
        self._running = False

    @property
    def physics(self) -> Any:
        """dm_control's Physics, for drawing pictures."""
        return self._environment.physics

    def reset(self) -> np.ndarray:
        """Begins an episode as the task does.

        Returns:
            (obs_dim,) float64 observation.

        Raises:
            TaskError: The robot's own `terminate` ends it there.
        """
        self._environment.reset()
        observation = self._observe()
        self._running = not self._terminates(observation)
        if not self._running:
            reason = self._terminates.reason(observation)
            raise TaskError(f"an episode of {self.spec.task} is over as it begins: {reason}; change `terminate`")
        return observation

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """One control step.

        Args:
            action: (act_dim,) dimensionless, clipped to [-1, 1].

        Returns:
            (obs_dim,) float64 observation, true reward, termination, truncation.

        Raises:
            TaskError: Wrong shape or not finite, the episode is over, or the physics broke.
        """
        if not self._running:
            raise TaskError("the episode is over or was never begun: reset first")
        if np.shape(action) != (self.spec.act_dim,) or not np.isfinite(action).all():
            raise TaskError(f"action {np.asarray(action)}; expected {self.spec.act_dim} finite numbers")
        self._wire()
        ctrl = self._controls.ctrl(self._command.command(action), np.zeros(self._controls.num_ctrl))
        from dm_control.rl.control import PhysicsError

        try:
            timestep = self._environment.step(ctrl)
        except PhysicsError as error:
            self._running = False
            raise TaskError(f"the physics of {self.spec.task} broke: {error}") from error
        observation = self._observe()
        termination = bool(self._terminates(observation)) or (timestep.last() and timestep.discount == 0.0)
        self._running = not (termination or timestep.last())
        return observation, float(timestep.reward), termination, timestep.last() and not termination

    def _observe(self) -> np.ndarray:
        self._wire()
        physics = self._environment.physics
        return make_observation(self.spec, self._channels.read_data(physics.model.ptr, physics.data.ptr))

    def _wire(self) -> None:
        # dm_control's manipulation compiles its model anew for each episode.
        model = self._environment.physics.model.ptr
        if model is not self._wired_to:
            self._wired_to = model
            self._channels, self._controls = ChannelMap(self.spec, model), ControlMap(self.spec, model)


class TaskReward:
    """dm_control's reward of `spec.task`, computed for each environment of a BatchSim. Makes experts, nothing else."""

    def __init__(self, spec: RobotSpec) -> None:
        """Loads the task.

        Args:
            spec: The robot; `spec.task` says which task.

        Raises:
            RobotSpecError: As for `TaskEnv`.
        """
        # Kept, because dm_control's own references to it are weak.
        self._environment = environment = _load(spec, seed=0)
        # An episode is begun once, because that is when tasks adjust their model.
        environment.reset()
        self._task, self._physics = environment.task, environment.physics
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        self._rows = [field_row(self._model, item.field, item.name, "reset.world") for item in spec.reset.world]

    def __call__(self, sim: BatchSim) -> np.ndarray:
        """Rewards of the states the environments are in, to be asked from `BatchSim.step`'s `before_reset`.

        Args:
            sim: The simulator, just stepped.

        Returns:
            [B] float64 reward of reaching these states with the last ctrl.
        """
        reward = np.empty(sim.num_envs)
        model, data, physics, rows = self._model, self._data, self._physics, self._rows
        ctrl, get_reward = data.ctrl, self._task.get_reward
        for i in range(sim.num_envs):
            for j, row in enumerate(rows):
                row[:] = sim.placement[i, j]
            mujoco.mj_setState(model, data, sim.physics_state[i], FULL_STATE)
            ctrl[:] = sim.ctrl[i]
            mujoco.mj_step1(model, data)
            reward[i] = get_reward(physics)
        return reward


def _load(spec: RobotSpec, seed: int) -> Any:
    """dm_control's environment with the sensors of the spec."""
    if spec.task is None:
        raise RobotSpecError(f"{spec.name} has no task; in robot.yaml it reads task: {_FORMS}")
    kind, _, name = spec.task.partition(":")
    if kind == "dm_control.suite":
        environment = _load_suite(spec, name, seed)
    elif kind == "dm_control.manipulation":
        environment = _load_manipulation(spec, name, seed)
    else:
        raise RobotSpecError(f"task {spec.task!r}; expected {_FORMS}")
    log_physics_warnings()
    if abs(environment.control_timestep() - spec.control_dt) > 1e-9:
        own = environment.control_timestep()
        raise RobotSpecError(f"{spec.name}: control_dt {spec.control_dt:g} s, but {spec.task} runs at {own:g} s")
    return environment


def _load_suite(spec: RobotSpec, name: str, seed: int) -> Any:
    from dm_control import suite
    from dm_control.mujoco import wrapper
    from dm_control.rl import control

    domain, _, task = name.partition("/")
    if (domain, task) not in suite.ALL_TASKS:
        legal = ", ".join(f"{d}/{t}" for d, t in suite.ALL_TASKS if d == domain) or ", ".join(sorted(suite._DOMAINS))
        raise RobotSpecError(f"task {spec.task!r}: dm_control's suite has no {name!r}; it has {legal}")
    log_physics_warnings()
    original = suite.load(domain, task, task_kwargs={"random": seed})
    physics = type(original.physics).from_model(wrapper.MjModel(compile_model(spec)))
    return control.Environment(
        physics, original.task, time_limit=spec.episode_seconds, control_timestep=original.control_timestep()
    )


def _load_manipulation(spec: RobotSpec, name: str, seed: int) -> Any:
    from dm_control import composer, manipulation

    if name not in manipulation.ALL:
        raise RobotSpecError(f"task {spec.task!r}: dm_control has {', '.join(sorted(manipulation.ALL))}")
    if spec.stretch or spec.overrides:
        raise RobotSpecError(
            f"task {spec.task!r}: its model is dm_control's own; stretch and overrides cannot reach it"
        )
    log_physics_warnings()
    task = manipulation.load(name).task
    root = task.root_entity.mjcf_model
    bare = mujoco.MjModel.from_xml_string(root.to_xml_string(), root.get_assets())
    for sensor in spec.sensors:
        sensor_arguments(bare, sensor)  # names checked
        optional = {"reftype": sensor.reference_type, "refname": sensor.reference_name}
        root.sensor.add(
            sensor.type, name=sensor.name, objtype=sensor.object_type, objname=sensor.object_name,
            **{key: value for key, value in optional.items() if value is not None},
        )  # fmt: skip
    return composer.Environment(task, time_limit=spec.episode_seconds, random_state=seed)
