"""The simulated robots are dm_control's: same transition and same observation, one control step at a time."""

import mujoco
import numpy as np
import pytest
from dm_control import suite

from robots import load_robot
from robots.batch import BatchSim
from robots.channels import ControlMap
from robots.command import make_command
from robots.spec import RobotSpec

SUITE_ROBOTS = ("cheetah", "walker", "hopper", "reacher", "cartpole", "finger", "humanoid", "quadruped")
STEPS = 1_000
TOLERANCE = 1e-6


def dm_environment(spec: RobotSpec, seed: int):
    domain, _, task = (spec.task or "").removeprefix("dm_control.suite:").partition("/")
    return suite.load(domain, task, task_kwargs={"random": seed})


def flat(observation) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in observation.values()])


def placement(spec: RobotSpec, model) -> np.ndarray:
    """Where dm_control put what `reset.world` moves."""
    return np.array([model.geom_pos[model.geom(item.name).id] for item in spec.reset.world]).reshape(-1, 3)


def copy_state(physics, sim: BatchSim) -> None:
    model, data = physics.model.ptr, physics.data.ptr
    sim.set_state(
        data.qpos, data.qvel, data.act, data.time, data.qacc_warmstart, placement(sim.spec, model)
    )  # fmt: skip


def dm_action(spec: RobotSpec, model: mujoco.MjModel, action: np.ndarray) -> np.ndarray:
    return ControlMap(spec, model).ctrl(make_command(spec, action), np.zeros(model.nu))


@pytest.mark.parametrize("name", SUITE_ROBOTS)
def test_each_step_equals_dm_control(name: str) -> None:
    """From dm_control's state, warm start included, one step gives dm_control's next state and observation to 1e-6."""
    spec = load_robot(name)
    environment = dm_environment(spec, seed=1)
    rng = np.random.default_rng(2)
    sim = BatchSim(spec, 1, num_threads=1, reset_pool=1)
    sim.reset()
    timestep = environment.reset()
    worst = {"observation": 0.0, "qpos": 0.0, "qvel": 0.0}
    compared = 0
    while compared < STEPS:
        if timestep.last():
            timestep = environment.reset()
        copy_state(environment.physics, sim)
        action = rng.uniform(-1.0, 1.0, (1, spec.act_dim))
        timestep = environment.step(dm_action(spec, sim.model, action[0]))
        step = sim.step(action)
        data, nq = environment.physics.data, sim.model.nq
        differences = {
            "observation": step.final_observation[0] - flat(timestep.observation),
            "qpos": sim.physics_state[0, 1 : 1 + nq] - data.qpos if not step.truncation[0] else 0.0,
            "qvel": sim.physics_state[0, 1 + nq : 1 + nq + sim.model.nv] - data.qvel if not step.truncation[0] else 0.0,
        }
        assert not step.quarantined[0]
        for key, difference in differences.items():
            worst[key] = max(worst[key], float(np.abs(difference).max()))
        compared += 1
    sim.close()
    assert max(worst.values()) <= TOLERANCE, worst
