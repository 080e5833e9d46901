"""The simulated robots are dm_control's: same transition and same observation, one control step at a time."""

import mujoco
import numpy as np
import pytest
from dm_control import suite
from dm_observation import flat_observation

from robots import load_robot
from robots.batch import BatchSim
from robots.channels import ControlMap
from robots.command import make_command
from robots.spec import RobotSpec
from robots.task import TaskEnv

SUITE_ROBOTS = ("cheetah", "walker", "hopper", "reacher", "cartpole", "finger", "humanoid", "quadruped")
VARIANTS = ("cheetah-long", "cheetah-lame", "walker-long", "walker-weak", "hopper-long")
STEPS = 1_000
VARIANT_STEPS = 200
TOLERANCE = 1e-6


def dm_environment(spec: RobotSpec, seed: int):
    if spec.name in VARIANTS:
        return TaskEnv(spec, seed)._environment  # dm_control's task and observation, on the variant's model
    domain, _, task = (spec.task or "").removeprefix("dm_control.suite:").partition("/")
    return suite.load(domain, task, task_kwargs={"random": seed})


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


@pytest.mark.parametrize("name", SUITE_ROBOTS + VARIANTS)
def test_each_step_equals_dm_control(name: str) -> None:
    """From dm_control's state, warm start included, one step gives dm_control's next state and observation to 1e-6."""
    spec = load_robot(name)
    environment = dm_environment(spec, seed=1)
    sim = BatchSim(spec, 1, num_threads=1, reset_pool=1, stagger=False)
    sim.reset()
    rng, reached = np.random.default_rng(2), np.empty(sim.physics_state.shape[1])
    nq, nv = sim.model.nq, sim.model.nv
    worst = {"observation": 0.0, "qpos": 0.0, "qvel": 0.0}
    timestep = environment.reset()
    for _ in range(VARIANT_STEPS if name in VARIANTS else STEPS):
        if timestep.last():
            timestep = environment.reset()
        copy_state(environment.physics, sim)
        action = rng.uniform(-1.0, 1.0, (1, spec.act_dim))
        timestep = environment.step(dm_action(spec, sim.model, action[0]))
        step = sim.step(action, before_reset=lambda: np.copyto(reached, sim.physics_state[0]))
        assert not step.quarantined[0]
        differences = {
            "observation": step.final_observation[0] - flat_observation(spec, timestep.observation),
            "qpos": reached[1 : 1 + nq] - environment.physics.data.qpos,
            "qvel": reached[1 + nq : 1 + nq + nv] - environment.physics.data.qvel,
        }
        for key, difference in differences.items():
            worst[key] = max(worst[key], float(np.abs(difference).max()))
    sim.close()
    print(name, worst)
    assert max(worst.values()) <= TOLERANCE, worst


@pytest.mark.parametrize(("name", "steps"), [("cartpole", 500), ("reacher", 500), ("cheetah", 20), ("hopper", 10)])
def test_running_free_equals_dm_control(name: str, steps: int) -> None:
    """Copied once and then left alone, both stay together: long without contacts, for some steps with them."""
    spec = load_robot(name)
    environment = dm_environment(spec, seed=3)
    sim = BatchSim(spec, 1, num_threads=1, reset_pool=1, stagger=False)
    sim.reset()
    environment.reset()
    copy_state(environment.physics, sim)
    rng = np.random.default_rng(4)
    for _ in range(steps):
        action = rng.uniform(-1.0, 1.0, (1, spec.act_dim))
        expected = environment.step(dm_action(spec, sim.model, action[0])).observation
        np.testing.assert_allclose(
            sim.step(action).final_observation[0], flat_observation(spec, expected), rtol=0, atol=TOLERANCE
        )


@pytest.mark.parametrize("name", SUITE_ROBOTS)
def test_first_observation_is_of_dm_control_s_kind(name: str) -> None:
    """Beginnings come from dm_control's distribution: each element's mean and spread over many resets agree."""
    spec = load_robot(name)
    environment = dm_environment(spec, seed=5)
    theirs = np.array([flat_observation(spec, environment.reset().observation) for _ in range(60)])
    ours = BatchSim(spec, 400, reset_pool=400, num_threads=1).reset()
    # Six standard errors of the difference of two means, for heavy tails and many elements
    error = 6 * np.sqrt(theirs.var(axis=0) / len(theirs) + ours.var(axis=0) / len(ours)) + 1e-6
    np.testing.assert_array_less(np.abs(theirs.mean(axis=0) - ours.mean(axis=0)), error)
    wide = ours.std(axis=0) > 1e-3
    ratio = theirs.std(axis=0)[wide] / ours.std(axis=0)[wide]
    # A touch sensor that fires once in many resets has no stable spread
    dense = (np.abs(ours[:, wide] - np.median(ours[:, wide], axis=0)) > 1e-6).mean(axis=0) > 0.5
    assert ((ratio[dense] > 0.4) & (ratio[dense] < 2.5)).all(), ratio
