"""TaskEnv is dm_control's own environment with our observation; TaskReward is its reward in our simulator."""

import dataclasses

import numpy as np
import pytest
from dm_control import manipulation, suite
from dm_observation import flat_observation

from robots import RobotSpecError, load_robot
from robots.batch import BatchSim
from robots.channels import ControlMap
from robots.command import make_command
from robots.task import TaskEnv, TaskError, TaskReward

SUITE_ROBOTS = ("cheetah", "walker", "hopper", "reacher", "cartpole", "finger", "humanoid", "quadruped")


@pytest.mark.parametrize("name", SUITE_ROBOTS)
def test_equals_dm_control(name: str) -> None:
    """Of one seed, observations, rewards and endings are those of dm_control's environment."""
    spec = load_robot(name)
    domain, _, task = (spec.task or "").removeprefix("dm_control.suite:").partition("/")
    theirs, ours = suite.load(domain, task, task_kwargs={"random": 5}), TaskEnv(spec, seed=5)
    rng = np.random.default_rng(6)
    for _ in range(2):
        timestep, observation = theirs.reset(), ours.reset()
        np.testing.assert_allclose(observation, flat_observation(spec, timestep.observation), rtol=0, atol=1e-9)
        for _ in range(30):
            action = rng.uniform(-1.2, 1.2, spec.act_dim)
            model = theirs.physics.model.ptr
            timestep = theirs.step(ControlMap(spec, model).ctrl(make_command(spec, action), np.zeros(model.nu)))
            observation, reward, termination, truncation = ours.step(action)
            np.testing.assert_allclose(observation, flat_observation(spec, timestep.observation), rtol=0, atol=1e-9)
            assert reward == pytest.approx(timestep.reward, abs=1e-9)
            assert not (termination or truncation)


@pytest.mark.parametrize("name", SUITE_ROBOTS)
def test_robot_has_the_task_s_numbers(name: str) -> None:
    """Control step, episode length and the reach of actions in robot.yaml are dm_control's."""
    spec = load_robot(name)
    domain, _, task = (spec.task or "").removeprefix("dm_control.suite:").partition("/")
    environment = suite.load(domain, task)
    model, bounds = environment.physics.model.ptr, environment.action_spec()
    assert environment.control_timestep() == pytest.approx(spec.control_dt)
    assert environment._step_limit == spec.episode_steps
    for action, bound in ((-1.0, bounds.minimum), (1.0, bounds.maximum)):
        ctrl = ControlMap(spec, model).ctrl(make_command(spec, np.full(spec.act_dim, action)), np.zeros(model.nu))
        np.testing.assert_allclose(ctrl, bound, rtol=1e-12)


def test_time_limit_is_a_truncation() -> None:
    """The step that reaches the time limit truncates; the next needs a reset."""
    spec = dataclasses.replace(load_robot("cartpole"), episode_seconds=0.05)
    environment = TaskEnv(spec)
    environment.reset()
    endings = [environment.step(np.zeros(1))[2:] for _ in range(5)]
    assert endings == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(TaskError, match="reset"):
        environment.step(np.zeros(1))


@pytest.mark.parametrize("action", [np.zeros(2), np.zeros((1, 1)), np.array([np.nan])])
def test_bad_action(action: np.ndarray) -> None:
    """An action of a wrong shape or not finite is refused."""
    environment = TaskEnv(load_robot("cartpole"))
    environment.reset()
    with pytest.raises(TaskError, match="expected 1 finite"):
        environment.step(action)


def test_jaco() -> None:
    """The arm's environment begins as dm_control's does, and sees its hand and its target where they are."""
    spec = load_robot("jaco")
    theirs, ours = manipulation.load("reach_site_features", seed=7), TaskEnv(spec, seed=7)
    for _ in range(2):
        timestep, observation = theirs.reset(), ours.reset()
        named = dict(zip(spec.observation_names, observation, strict=True))
        hand = timestep.observation["jaco_arm/jaco_hand/pinch_site_pos"][0]
        target = timestep.observation["target_position"][0]
        sensed = [
            [named[f"{term}[{k}]"] for k in range(3)]
            for term in ("pinch_position/pinch", "pinch_from_target/pinch_from_target")
        ]
        np.testing.assert_allclose(sensed, [hand, hand - target], atol=1e-9)
        _, reward, _, _ = ours.step(np.zeros(spec.act_dim))
        assert reward == pytest.approx(theirs.step(np.zeros(spec.act_dim)).reward, abs=1e-9)


@pytest.mark.parametrize("name", SUITE_ROBOTS)
def test_reward_along_a_rollout(name: str) -> None:
    """In BatchSim the reward of each step is dm_control's to 1e-6, with the same state, action and scene."""
    spec = load_robot(name)
    domain, _, task = (spec.task or "").removeprefix("dm_control.suite:").partition("/")
    environment = suite.load(domain, task, task_kwargs={"random": 8})
    sim, task_reward = BatchSim(spec, 2, num_threads=1, reset_pool=2), TaskReward(spec)
    sim.reset()
    environment.reset()
    rng, found, expected = np.random.default_rng(9), [], []
    for _ in range(40):
        model, data = environment.physics.model.ptr, environment.physics.data.ptr
        scene = np.reshape([model.geom(item.name).pos for item in spec.reset.world], (-1, 3))
        sim.set_state(data.qpos, data.qvel, data.act, data.time, data.qacc_warmstart, scene)
        action = rng.uniform(-1, 1, spec.act_dim)
        ctrl = ControlMap(spec, model).ctrl(make_command(spec, action), np.zeros(model.nu))
        expected.append(environment.step(ctrl).reward)
        sim.step(np.tile(action, (2, 1)), before_reset=lambda: found.append(task_reward(sim)))
    np.testing.assert_allclose(np.array(found), np.array(expected)[:, None] * np.ones(2), rtol=0, atol=1e-6)


def test_reward_knows_each_environment_s_target() -> None:
    """With the finger put on one environment's target, that environment alone is rewarded."""
    spec = load_robot("reacher")
    sim, task_reward = BatchSim(spec, 3, num_threads=1, reset_pool=64), TaskReward(spec)
    sim.reset()
    scene = np.array([[[0.24, 0.0, 0.01]], [[0.0, 0.15, 0.01]], [[-0.1, 0.0, 0.01]]])
    sim.set_state(np.zeros(2), np.zeros(2), placement=scene)  # stretched out: the finger is at x = 0.24
    np.testing.assert_array_equal(task_reward(sim), [1.0, 0.0, 0.0])


def test_jaco_reward() -> None:
    """The arm's reward in BatchSim is 1 where the target is put on the hand, and 0 far from it."""
    spec = load_robot("jaco")
    sim, task_reward = BatchSim(spec, 2, num_threads=1, reset_pool=2), TaskReward(spec)
    observation = sim.reset()
    hand = observation[:, [name.startswith("pinch_position") for name in spec.observation_names]]
    assert task_reward(sim).max() < 0.9
    state = sim.physics_state[:, 1:]
    sim.set_state(state[:, :9].copy(), state[:, 9:18].copy(), placement=hand[:, None] + [[[0, 0, 0]], [[1, 0, 0]]])
    np.testing.assert_allclose(task_reward(sim), [1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"task": None}, "no task"),
        ({"task": "dm_control.suite:cheetah/fly"}, "cheetah/run"),
        ({"task": "dm_control.suite:unicorn/run"}, "cartpole"),
        ({"task": "dm_control.manipulation:reach"}, "reach_site_features"),
        ({"task": "gym:HalfCheetah"}, "expected dm_control"),
        ({"control_dt": 0.02}, "runs at 0.01"),
    ],
)
def test_task_that_is_none(change: dict, word: str) -> None:
    """A missing, unknown or ill-fitting task is refused with what is legal."""
    with pytest.raises(RobotSpecError, match=word):
        TaskEnv(dataclasses.replace(load_robot("cheetah"), **change))
