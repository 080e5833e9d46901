"""Beginnings of episodes: what is drawn, what is rejected, what is reproducible."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robots import RobotSpec, RobotSpecError, load_robot
from robots.channels import FULL_STATE
from robots.model import compile_model
from robots.reset import ResetStates, draw_states
from robots.spec import Distribution, ResetSpec, WorldPlacement


def draw(spec: RobotSpec, count: int, seed: int = 0) -> tuple[mujoco.MjModel, ResetStates]:
    model = compile_model(spec)
    return model, draw_states(spec, model, count, np.random.default_rng(seed))


def with_reset(name: str, **reset) -> RobotSpec:
    return dataclasses.replace(load_robot(name), reset=ResetSpec(**reset))


def qpos(model: mujoco.MjModel, states: ResetStates, joint: str, size: int = 1) -> np.ndarray:
    start = 1 + model.jnt_qposadr[model.joint(joint).id]
    return states.state[:, start : start + size]


def test_named_distributions() -> None:
    """Fixed, uniform, normal and limits are what they say, for positions and velocities."""
    spec = with_reset(
        "walker",
        joint_pos=(
            ("rootz", Distribution("fixed", 0.4)),
            ("rooty", Distribution("uniform", 1.0, 2.0)),
            ("right_hip", Distribution("normal", 0.5, 0.1)),
            ("left_knee", Distribution("limits")),
        ),
        joint_vel=(("rootx", Distribution("uniform", -3.0, -2.0)),),
    )
    model, states = draw(spec, 500)
    assert (qpos(model, states, "rootz") == 0.4).all()
    pitch, hip, knee = (qpos(model, states, joint) for joint in ("rooty", "right_hip", "left_knee"))
    assert 1.0 <= pitch.min() < 1.1 < 1.9 < pitch.max() < 2.0
    assert abs(hip.mean() - 0.5) < 0.03 and abs(hip.std() - 0.1) < 0.02
    low, high = model.joint("left_knee").range
    assert low <= knee.min() < low + 0.1 and high - 0.1 < knee.max() <= high
    assert (qpos(model, states, "left_hip") == 0.0).all()
    speed = states.state[:, 1 + model.nq + model.jnt_dofadr[model.joint("rootx").id]]
    assert speed.min() >= -3.0 and speed.max() < -2.0
    assert (states.state[:, 0] == 0.0).all()


def test_random_joints_leave_named_ones() -> None:
    """Joints not named are drawn as dm_control does: limits, all round, or left where they cannot turn."""
    spec = with_reset("walker", random_joints=True, joint_pos=(("right_hip", Distribution("fixed", 0.25)),))
    model, states = draw(spec, 200)
    assert (qpos(model, states, "right_hip") == 0.25).all()
    assert np.ptp(qpos(model, states, "rooty")) > 5.5
    assert (qpos(model, states, "rootx") == 0.0).all()
    assert qpos(model, states, "left_knee").min() >= model.joint("left_knee").range[0]


def test_rotation_is_uniform() -> None:
    """A free joint drawn as rotation has unit quaternions without preference."""
    model, states = draw(with_reset("quadruped", joint_pos=(("root", Distribution("rotation")),)), 400)
    quaternion = qpos(model, states, "root", 7)[:, 3:]
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1.0)
    assert np.abs(quaternion.mean(axis=0)).max() < 0.12


@pytest.mark.parametrize("name", ["finger", "humanoid", "quadruped"])
def test_nothing_touches(name: str) -> None:
    """Rejected and lifted beginnings are free of contact by MuJoCo's full computation; others are not all so."""

    def touching(spec: RobotSpec) -> int:
        model, states = draw(spec, 60)
        data = mujoco.MjData(model)
        count = 0
        for state in states.state:
            mujoco.mj_setState(model, data, state, FULL_STATE)
            mujoco.mj_forward(model, data)
            count += data.ncon > 0
        return count

    spec = load_robot(name)
    assert touching(spec) == 0
    assert touching(dataclasses.replace(spec, reset=dataclasses.replace(spec.reset, contact="any"))) > 0


def test_lift_is_no_higher_than_needed() -> None:
    """One step lower, the lifted robot would touch."""
    model, states = draw(load_robot("quadruped"), 10)
    data = mujoco.MjData(model)
    for state in states.state:
        state[3] -= 0.01
        mujoco.mj_setState(model, data, state, FULL_STATE)
        mujoco.mj_forward(model, data)
        assert data.ncon > 0


def test_settling() -> None:
    """After settling the cheetah stands on the floor at time 0, and barely moves."""
    model, states = draw(load_robot("cheetah"), 20)
    data = mujoco.MjData(model)
    for state in states.state:
        assert state[0] == 0.0
        mujoco.mj_setState(model, data, state, FULL_STATE)
        mujoco.mj_forward(model, data)
        assert data.ncon > 0 and np.abs(data.qvel).max() < 2.0


def test_warm_start_and_sensors_are_those_of_the_state() -> None:
    """What comes with a state is what MuJoCo computes there with the motors off."""
    spec = load_robot("humanoid")
    model, states = draw(spec, 3)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION
    for i in range(3):
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, states.state[i], FULL_STATE)
        mujoco.mj_forward(model, data)
        np.testing.assert_array_equal(states.sensordata[i], data.sensordata)
        np.testing.assert_array_equal(states.warmstart[i], data.qacc_warmstart)


def test_reproducible() -> None:
    """One seed gives one set of states, another gives another, and the caller's model is not touched."""
    spec = load_robot("reacher")
    model, first = draw(spec, 5, seed=1)
    before = model.geom("target").pos.copy()
    again = draw_states(spec, model, 5, np.random.default_rng(1))
    np.testing.assert_array_equal(first.state, again.state)
    np.testing.assert_array_equal(first.placement, again.placement)
    np.testing.assert_array_equal(first.sensordata, again.sensordata)
    assert not np.array_equal(first.state, draw_states(spec, model, 5, np.random.default_rng(2)).state)
    np.testing.assert_array_equal(model.geom("target").pos, before)


def test_placements() -> None:
    """A target in a ring stays in the ring at its height; one in a box stays in the box."""
    _, ring = draw(load_robot("reacher"), 200)
    radius = np.linalg.norm(ring.placement[:, 0, :2], axis=1)
    assert 0.05 <= radius.min() < 0.07 and 0.18 < radius.max() < 0.2
    assert np.ptp(np.arctan2(*ring.placement[:, 0, :2].T)) > 6.0
    assert (ring.placement[:, 0, 2] == 0.01).all()
    box = WorldPlacement("geom_pos", "target", "box", (-1.0, 2.0, 0.0), (1.0, 3.0, 0.0))
    _, boxed = draw(with_reset("reacher", world=(box,)), 100)
    low, high = boxed.placement[:, 0].min(axis=0), boxed.placement[:, 0].max(axis=0)
    assert -1 <= low[0] < -0.8 and 2 <= low[1] < 2.1 and 0.8 < high[0] < 1 and 2.9 < high[1] < 3 and high[2] == 0


@pytest.mark.parametrize(
    ("name", "reset", "word"),
    [
        ("walker", {"joint_pos": (("rooty", Distribution("limits")),)}, "no limits"),
        ("walker", {"joint_pos": (("rooty", Distribution("rotation")),)}, "free and ball"),
        ("walker", {"contact": "lift"}, "free joint"),
        ("walker", {"contact": "reject", "joint_pos": (("rootz", Distribution("fixed", -1.0)),)}, "without contact"),
        ("reacher", {"settle_seconds": 1.0, "world": load_robot("reacher").reset.world}, "not supported"),
    ],
)
def test_resets_that_cannot_work(name: str, reset: dict, word: str) -> None:
    """A reset that the robot cannot do is an error that says why."""
    with pytest.raises(RobotSpecError, match=word):
        draw(with_reset(name, **reset), 1)


def test_settling_that_explodes(tmp_path: Path) -> None:
    """A model that blows up while it settles is an error and not a beginning."""
    (tmp_path / "robot.xml").write_text(
        "<mujoco><worldbody><body><joint name='j' stiffness='-1e9'/><geom size='.1'/></body></worldbody>"
        "<actuator><motor name='m' joint='j'/></actuator></mujoco>"
    )
    spec = load_robot("cartpole")
    spec = dataclasses.replace(
        spec,
        mjcf="robot.xml",
        directory=tmp_path,
        reset=ResetSpec((("j", Distribution("fixed", 1.0)),), settle_seconds=1.0),
        observation=(dataclasses.replace(spec.observation[0], channels=("joint_pos/j",)),),
        action=(dataclasses.replace(spec.action[0], actuator="m"),),
    )
    with pytest.raises(RobotSpecError, match="diverges"):
        draw(spec, 2)
