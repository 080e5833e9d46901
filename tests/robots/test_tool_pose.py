"""An arm that begins with its hand somewhere: the joint angles that come out put it there."""

import dataclasses

import mujoco
import numpy as np
import pytest

from robots import RobotSpec, RobotSpecError, load_robot
from robots import reset as reset_module
from robots.channels import FULL_STATE
from robots.model import compile_model
from robots.reset import draw_states
from robots.spec import ToolPose
from robots.tool_pose import ToolPoser


@pytest.fixture(scope="module")
def jaco() -> RobotSpec:
    return load_robot("jaco")


@pytest.fixture(scope="module")
def model(jaco: RobotSpec) -> mujoco.MjModel:
    return compile_model(jaco)


def tool_of(spec: RobotSpec) -> ToolPose:
    assert spec.reset.tool is not None
    return spec.reset.tool


def with_tool(spec: RobotSpec, **change: object) -> RobotSpec:
    tool = dataclasses.replace(tool_of(spec), **change)
    return dataclasses.replace(spec, reset=dataclasses.replace(spec.reset, tool=tool))


def test_the_hand_is_there_and_points_down(jaco: RobotSpec, model: mujoco.MjModel) -> None:
    """In every state, by MuJoCo's own kinematics: in the box, downward, within the joints' limits, in many poses."""
    tool, data = tool_of(jaco), mujoco.MjData(model)
    joints = [model.joint(name).id for name in tool.joints]
    addresses, limited = model.jnt_qposadr[joints], model.jnt_limited[joints].astype(bool)
    low = np.where(limited, model.jnt_range[joints, 0], 0.0)
    high = np.where(limited, model.jnt_range[joints, 1], 2.0 * np.pi)
    places, angles = [], []
    for state in draw_states(jaco, model, 60, np.random.default_rng(0)).state:
        mujoco.mj_setState(model, data, state, FULL_STATE)
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
        places.append(data.site(tool.site).xpos.copy())
        np.testing.assert_allclose(data.site(tool.site).xmat.reshape(3, 3)[:, 2], [0.0, 0.0, -1.0], atol=1e-6)
        angles.append(data.qpos[addresses].copy())
        assert (angles[-1] >= low).all() and (angles[-1] <= high).all()
    assert (np.array(places) >= np.array(tool.lower) - 1e-9).all()
    assert (np.array(places) <= np.array(tool.upper) + 1e-9).all()
    assert (np.ptp(places, axis=0) > 0.8 * (np.array(tool.upper) - np.array(tool.lower))).all()
    assert 15 < (np.array(angles)[:, 0] < np.pi).sum() < 45  # the arm comes from either side


def test_what_cannot_be_reached(jaco: RobotSpec, model: mujoco.MjModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place three metres away is refused, and the angles stay as they were."""
    far = with_tool(jaco, lower=(3.0, 0.0, 0.0), upper=(3.0, 0.0, 0.0))
    qpos = np.linspace(0.5, 1.3, model.nq)
    assert not ToolPoser(tool_of(far), model).reach(qpos, np.random.default_rng(0))
    np.testing.assert_array_equal(qpos, np.linspace(0.5, 1.3, model.nq))
    monkeypatch.setattr(reset_module, "_MAX_ATTEMPTS", 5)
    with pytest.raises(RobotSpecError, match=r"jaco: no state .* where reset\.tool has it in 5 draws"):
        draw_states(far, model, 1, np.random.default_rng(0))


def test_limits_are_kept_to(jaco: RobotSpec) -> None:
    """With little room for a joint most solutions are refused, and none beyond its limits is given out."""
    model, tool, rng = compile_model(jaco), tool_of(jaco), np.random.default_rng(0)
    low, high = model.joint("jaco_arm/joint_2").range = 2.4, 3.8  # [rad] of 2.0 to 4.3 that solutions have
    poser, address, reached = ToolPoser(tool, model), model.joint("jaco_arm/joint_2").qposadr[0], 0
    for _ in range(60):
        qpos = rng.uniform(0.0, 2.0 * np.pi, model.nq)
        if poser.reach(qpos, rng):
            reached += 1
            assert low <= qpos[address] <= high
    assert 5 <= reached <= 40


@pytest.mark.parametrize(
    ("robot", "change", "words"),
    [
        ("jaco", {"site": "jaco_arm/hand"}, "jaco_arm/hand"),
        ("jaco", {"joints": ("jaco_arm/joint_7",)}, "jaco_arm/joint_7"),
        ("quadruped", {"site": "torso_touch", "joints": ("root",)}, "'root' is no hinge"),
    ],
)
def test_names_that_do_not_fit(jaco: RobotSpec, robot: str, change: dict[str, object], words: str) -> None:
    """A site or a joint that the model lacks, or that cannot be solved for, is named."""
    with pytest.raises(RobotSpecError, match=words):
        ToolPoser(dataclasses.replace(tool_of(jaco), **change), compile_model(load_robot(robot)))
