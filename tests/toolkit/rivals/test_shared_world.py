"""The world as plain files is our world: the same observation, the same ctrl, the same demos."""

import json
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from demos.episode import Episode
from robots.robot_yaml import load_robot
from robots.task import TaskEnv
from toolkit.rivals.shared_world import RivalError, control_matrix, write_demos, write_world


def episode(obs_dim: int, act_dim: int, steps: int = 1000, fill: float = 0.5) -> Episode:
    return Episode(
        observations=np.full((steps + 1, obs_dim), fill, np.float32),
        actions=np.full((steps, act_dim), fill, np.float32),
        timestamps=np.arange(steps + 1.0),
        ended_by="truncation",
        rewards=np.ones(steps, np.float32),
    )


@pytest.mark.parametrize("robot", ["cheetah", "cartpole", "hopper"])
def test_files_alone_give_our_observation(robot: str, tmp_path: Path) -> None:
    """Index, offset, scale and transform, as the worker uses them, make what TaskEnv observes; the model is in them."""
    spec = load_robot(robot)
    write_world(tmp_path, spec, [episode(spec.obs_dim, spec.act_dim, spec.episode_steps)])
    facts, arrays = json.loads((tmp_path / "world.json").read_text()), np.load(tmp_path / "world.npz")
    env = TaskEnv(spec, seed=7)
    env.reset()
    expected = env.step(np.linspace(-0.9, 0.9, spec.act_dim))[0]
    model, data = env.physics.model.ptr, env.physics.data.ptr
    state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    raw = np.concatenate((state, data.sensordata))[arrays["index"]]
    plain = (raw - arrays["offset"]) * arrays["scale"]
    for i, name in enumerate(facts["transforms"]):
        plain[i] = plain[i] if name == "identity" else getattr(np, name)(plain[i])
    np.testing.assert_allclose(plain, expected, atol=1e-12)
    assert np.abs(expected).max() > 0.0
    read = mujoco.MjModel.from_binary_path(str(tmp_path / "model.mjb"))
    assert (read.nq, read.nu, read.nsensordata) == (model.nq, model.nu, model.nsensordata)
    np.testing.assert_allclose(
        arrays["ctrl_offset"] + arrays["ctrl_gain"] @ np.linspace(-0.9, 0.9, spec.act_dim), data.ctrl
    )


def test_the_probe_is_what_our_environment_does(tmp_path: Path) -> None:
    """Played again from its seed, the probe repeats itself; it moves, and some of its actions are beyond the limits."""
    spec = load_robot("cheetah")
    write_world(tmp_path, spec, [episode(spec.obs_dim, spec.act_dim)])
    probe = np.load(tmp_path / "probe.npz")
    env = TaskEnv(spec, seed=int(probe["seed"]))
    np.testing.assert_array_equal(probe["observations"][0], env.reset().astype(np.float32))
    rewards = [env.step(action)[1] for action in probe["actions"]]
    np.testing.assert_array_equal(probe["rewards"], rewards)
    assert max(rewards) > 0.0 and np.abs(probe["actions"]).max() > 1.0


def test_demos_go_without_their_true_reward(tmp_path: Path) -> None:
    """Observations one longer than actions, float32, in order, and nothing else in the file."""
    write_demos(tmp_path / "demos.npz", [episode(3, 2, 4, fill) for fill in (0.1, 0.2)])
    arrays = np.load(tmp_path / "demos.npz")
    assert set(arrays) == {"observations", "actions"}
    assert arrays["observations"].shape == (2, 5, 3) and arrays["actions"].shape == (2, 4, 2)
    assert arrays["actions"].dtype == np.float32
    assert arrays["actions"][:, 0, 0].tolist() == pytest.approx([0.1, 0.2])


def test_what_the_rivals_cannot_take_is_refused(tmp_path: Path) -> None:
    """Demos of other lengths, no demos, or a robot without a task of the suite."""
    spec = load_robot("cheetah")
    with pytest.raises(RivalError, match=r"\[900, 1000\] steps.*1000"):
        write_world(tmp_path, spec, [episode(17, 6), episode(17, 6, 900)])
    with pytest.raises(RivalError, match="1000"):
        write_world(tmp_path, spec, [])
    with pytest.raises(RivalError, match="task None"):
        write_world(tmp_path, replace(spec, task=None), [episode(17, 6)])


def test_a_clipped_command_has_no_matrix() -> None:
    """A command that its limits cut within [-1, 1] is no linear function of the action."""
    from robots.model import compile_source

    spec = load_robot("cheetah")
    first = replace(spec.action[0], upper=spec.action[0].scale / 2)
    with pytest.raises(RivalError, match="clipped"):
        control_matrix(replace(spec, action=(first, *spec.action[1:])), compile_source(spec))
