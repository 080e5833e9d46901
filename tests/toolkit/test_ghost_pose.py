"""Measured and commanded poses: joints by name, and what nobody measures stays put."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robots.model import compile_model
from robots.robot_yaml import parse_robot
from robots.spec import RobotSpec
from toolkit.ghost_pose import AHEAD_SECONDS, PoseMap

SCENE = """
<mujoco>
  <worldbody>
    <body name="base" pos="0 0 1"><freejoint name="root"/><geom size=".1"/>
      <body name="b1"><joint name="turn" axis="0 0 1"/><geom size=".1"/>
        <body name="b2" pos="0 0 .2"><joint name="slide" type="slide"/><geom size=".1"/>
          <body name="b3" pos="0 0 .2"><joint name="loose"/><geom size=".1"/>
            <body name="b4" pos="0 0 .2"><joint name="ball" type="ball"/><geom size=".1"/></body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="turn" joint="turn" gear="2" kp="1"/>
    <velocity name="slide" joint="slide" kv="1"/>
    <motor name="loose" joint="loose"/>
  </actuator>
</mujoco>
"""


@pytest.fixture
def spec(tmp_path: Path) -> RobotSpec:
    """A floating base with a position, a speed and a force drive, and a ball joint nobody drives."""
    (tmp_path / "scene.xml").write_text(SCENE)
    robot = parse_robot(
        {
            "name": "thing", "mjcf": "scene.xml", "control_dt": 0.02, "episode_seconds": 1.0,
            "observation": [
                {"name": "speed", "joint_vel": ["turn"], "unit": "rad/s"},
                {"name": "position", "joint_pos": ["slide", "turn", "ball[0:4]"], "unit": "rad"},
            ],
            "action": [
                {"actuator": "loose", "kind": "effort", "unit": "N m", "scale": 1.0},
                {"actuator": "slide", "kind": "velocity", "unit": "m/s", "scale": 1.0},
                {"actuator": "turn", "kind": "position", "unit": "rad", "scale": 1.0},
            ],
            "default_pose": {"loose": 0.5},
        }
    )  # fmt: skip
    return dataclasses.replace(robot, directory=tmp_path)


def values(spec: RobotSpec, **measured: float) -> np.ndarray:
    """A reading in which all but some channels are NaN."""
    reading = np.full(len(spec.channels), np.nan)
    for name, value in measured.items():
        reading[spec.channels.index(f"joint_pos/{name}")] = value
    return reading


def test_joints_are_found_by_name(spec: RobotSpec) -> None:
    """Each measured joint moves, in whatever order the channels are; base and unmeasured joints stay at the default."""
    model = compile_model(spec)
    pose = PoseMap(spec, model).measured(values(spec, turn=0.25, slide=-0.5))
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    assert data.joint("turn").qpos == 0.25 and data.joint("slide").qpos == -0.5 and data.joint("loose").qpos == 0.5
    np.testing.assert_array_equal(data.joint("root").qpos, [0, 0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(data.joint("ball").qpos, [1, 0, 0, 0])


def test_a_ghost_is_where_the_drives_are_told_to_be(spec: RobotSpec) -> None:
    """A position through its gear, a speed some way ahead of what is measured; a force tells nothing."""
    model = compile_model(spec)
    poses = PoseMap(spec, model)
    data = mujoco.MjData(model)
    data.qpos[:] = poses.commanded(values(spec, turn=0.25, slide=-0.5), np.array([9.0, 2.0, 0.8]))
    assert poses.has_ghost
    assert data.joint("turn").qpos == 0.4 and data.joint("loose").qpos == 0.5
    assert data.joint("slide").qpos == pytest.approx(-0.5 + AHEAD_SECONDS * 2.0)
    np.testing.assert_array_equal(data.joint("root").qpos, [0, 0, 1, 1, 0, 0, 0])


def test_what_is_no_number_moves_nothing(spec: RobotSpec) -> None:
    """NaN and infinity in readings and commands leave the joint where it would be without them."""
    poses = PoseMap(spec, compile_model(spec))
    nothing = np.full(len(spec.channels), np.nan)
    np.testing.assert_array_equal(poses.measured(nothing), poses.rest)
    np.testing.assert_array_equal(poses.commanded(nothing, np.array([np.nan, np.inf, np.nan])), poses.rest)
