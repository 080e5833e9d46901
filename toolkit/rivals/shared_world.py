"""A robot's world as plain files, so that a program which knows nothing of ours can learn and be measured in it.

`world/` holds the compiled model, which numbers of the physics are observed, what an action does to ctrl, the demos,
and a probe: what our own environment did for one seed and some actions. The other program plays the probe first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from demos.episode import Episode
from robots.channels import ChannelMap, ControlMap
from robots.command import CommandMap
from robots.model import compile_source
from robots.observation import ObservationMap
from robots.spec import RobotSpec, ToolkitError
from robots.task import TaskEnv

_SUITE = "dm_control.suite:"
_PROBE_SEED = 999_999  # between the training seeds, which are small, and the evaluation seeds
_PROBE_STEPS = 100


class RivalError(ToolkitError):
    """A comparison that cannot be made, or a rival that did not run."""


def write_world(folder: Path, spec: RobotSpec, episodes: Sequence[Episode]) -> None:
    """Writes all that a rival needs to know.

    Args:
        folder: Where to; made if missing.
        spec: The robot; must have a task of dm_control's suite.
        episodes: The demos, all of the task's full length.

    Raises:
        RivalError: Another kind of task, no demos, or demos of other lengths: the rivals refuse those.
    """
    if spec.task is None or not spec.task.startswith(_SUITE):
        raise RivalError(f"{spec.name}: task {spec.task!r}; rivals can be run on tasks {_SUITE}<domain>/<task>")
    lengths = sorted({episode.length for episode in episodes})
    if lengths != [spec.episode_steps]:
        raise RivalError(f"demos of {lengths} steps; the rivals need all of them to last {spec.episode_steps} steps")
    folder.mkdir(parents=True, exist_ok=True)
    model = compile_source(spec)
    mujoco.mj_saveModel(model, str(folder / "model.mjb"), None)
    domain, _, task = spec.task.removeprefix(_SUITE).partition("/")
    transforms = [term.transform for term in spec.observation for _ in term.channels]
    facts = {"domain": domain, "task": task, "episode_seconds": spec.episode_seconds, "transforms": transforms}
    (folder / "world.json").write_text(json.dumps(facts, indent=2) + "\n")
    observation = ObservationMap(spec)
    index = observed_columns(spec, model)[observation.index]
    ctrl_offset, ctrl_gain = control_matrix(spec, model)
    np.savez(
        folder / "world.npz",
        index=index,
        offset=observation.offset,
        scale=observation.scale,
        ctrl_offset=ctrl_offset,
        ctrl_gain=ctrl_gain,
    )
    write_demos(folder / "demos.npz", episodes)
    _write_probe(folder / "probe.npz", spec)


def write_demos(path: Path, episodes: Sequence[Episode]) -> None:
    """Writes demos of one length as two arrays; their true rewards stay behind.

    Args:
        path: The .npz file: observations (N, T+1, obs_dim) and actions (N, T, act_dim), float32.
        episodes: The demos.
    """
    observations, actions = (np.stack([getattr(e, name) for e in episodes]) for name in ("observations", "actions"))
    np.savez(path, observations=observations, actions=actions)


def observed_columns(spec: RobotSpec, model: mujoco.MjModel) -> np.ndarray:
    """Where each channel is found in the full physics state followed by sensordata.

    Args:
        spec: The robot.
        model: Its model.

    Returns:
        (num_channels,) indices.
    """
    channels = ChannelMap(spec, model)
    # Reading from arrays that hold their own indices tells which ones are read.
    state = np.arange(channels.num_state, dtype=np.float64)
    sensordata = channels.num_state + np.arange(model.nsensordata, dtype=np.float64)
    return channels.read(state, sensordata).astype(np.intp)


def control_matrix(spec: RobotSpec, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """What an action in [-1, 1] does: ctrl = offset + gain @ action.

    Args:
        spec: The robot.
        model: Its model.

    Returns:
        offset (nu,) and gain (nu, act_dim).

    Raises:
        RivalError: The command is clipped within [-1, 1], so that there is no such matrix.
    """
    command, controls = CommandMap(spec), ControlMap(spec, model)

    def ctrl(action: np.ndarray) -> np.ndarray:
        return controls.ctrl(command.command(action), np.zeros(controls.num_ctrl))

    offset = ctrl(np.zeros(spec.act_dim))
    gain = np.stack([ctrl(unit) - offset for unit in np.eye(spec.act_dim)], axis=1)
    for corner in (-np.ones(spec.act_dim), np.ones(spec.act_dim)):
        if not np.allclose(offset + gain @ corner, ctrl(corner)):
            raise RivalError(
                f"{spec.name}: commands are clipped for actions within [-1, 1]; rivals cannot be told that"
            )
    return offset, gain


def _write_probe(path: Path, spec: RobotSpec) -> None:
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (_PROBE_STEPS, spec.act_dim))  # some of them to be clipped
    env = TaskEnv(spec, seed=_PROBE_SEED)
    observations, rewards = [env.reset()], []
    for action in actions:
        observation, reward, _, _ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    np.savez(path, seed=_PROBE_SEED, actions=actions, observations=np.array(observations, np.float32), rewards=rewards)
