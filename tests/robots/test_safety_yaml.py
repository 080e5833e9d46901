"""The safety section of robot.yaml is read strictly, travels without loss, and is no part of the identity."""

import dataclasses
import json
from typing import Any

import pytest

from robots import RobotSpecError, load_robot, spec_from_dict
from robots.safety_spec import MonitorSpec, SafetySpec, Tilt, Watch
from robots.safety_yaml import parse_safety

CHANNELS = ("joint_pos/hip", "sensor/q[0]", "sensor/q[1]", "sensor/q[2]", "sensor/q[3]", "sensor/load")
ACTUATORS = ("hip", "gripper")


def test_everything_there_is() -> None:
    """Each key lands where it belongs."""
    spec = parse_safety(
        {
            "stale_seconds": 0.1, "soft_start_seconds": 2, "soft_stop_seconds": 1, "watchdog_seconds": 0.05,
            "fault_seconds": 3, "miss_seconds": 0.2, "on_fault": "damp", "tracking": 0.3, "tracking_seconds": 1,
            "watch": [{"channel": "sensor/load", "upper": 40, "reason": "overload"}],
            "tilt": {"quaternion": ["sensor/q[0]", "sensor/q[1]", "sensor/q[2]", "sensor/q[3]"], "most": 0.8},
            "unmeasured": ["gripper"],
            "monitor": {"window_seconds": 2, "patience_seconds": 3, "quantile": 0.05, "response": "fault"},
        },
        CHANNELS,
        ACTUATORS,
    )  # fmt: skip
    assert spec == SafetySpec(
        0.1, 2.0, 1.0, 0.05, 3.0, 0.2, "damp", 0.3, 1.0,
        (Watch("sensor/load", None, 40.0, "overload"),), Tilt(CHANNELS[1:5], 0.8), ("gripper",),
        MonitorSpec(2.0, 3.0, "0.05", "fault"),
    )  # fmt: skip
    assert parse_safety({}, CHANNELS, ACTUATORS) == SafetySpec()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"stale_second": 1}, "did you mean 'stale_seconds'"),
        ({"stale_seconds": -1}, "at least 0"),
        ({"watchdog_seconds": 0}, "no way to switch it off"),
        ({"on_fault": "pray"}, "hold, damp"),
        ({"tracking": 0}, "above 0"),
        ({"watch": [{"channel": "sensor/lod", "upper": 1}]}, "did you mean 'sensor/load'"),
        ({"watch": [{"channel": "sensor/load"}]}, "watches nothing"),
        ({"watch": [{"channel": "sensor/load", "lower": 1, "upper": 1}]}, "not below"),
        ({"tilt": {"quaternion": ["sensor/q[0]"], "most": 1}}, "w, x, y, z"),
        ({"tilt": {"quaternion": ["sensor/q[0]"] * 3 + ["sensor/z"], "most": 1}}, "not measured"),
        ({"unmeasured": ["griper"]}, "hip, gripper"),
        ({"unmeasured": "gripper"}, "safety.unmeasured"),
        ({"monitor": {"response": "shout"}}, "warn, fault"),
        ({"monitor": {"window_seconds": 0}}, "above 0"),
    ],
)
def test_what_is_not_legal(data: dict[str, Any], word: str) -> None:
    """Each mistake is named with what is legal."""
    with pytest.raises(RobotSpecError, match=word):
        parse_safety(data, CHANNELS, ACTUATORS)


def test_it_travels_and_does_not_change_who_the_robot_is() -> None:
    """JSON gives it back to the last bit, and a robot that became more careful keeps its identity."""
    robot = load_robot("cheetah")
    watch = (Watch("joint_pos/rooty", lower=-0.1 - 0.2, reason="fall"),)
    careful = dataclasses.replace(robot, safety=SafetySpec(stale_seconds=0.1 + 0.2, watch=watch))
    assert careful.sha256 == robot.sha256
    back = spec_from_dict(json.loads(json.dumps(careful.to_dict())))
    assert back.safety == careful.safety != robot.safety
    old = robot.to_dict()
    del old["safety"]
    assert spec_from_dict(old).safety == SafetySpec()
    with pytest.raises(RobotSpecError, match="safety"):
        spec_from_dict({**robot.to_dict(), "safety": {**careful.to_dict()["safety"], "courage": 1}})
