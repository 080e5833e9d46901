"""Between a driver's raw numbers and the robot's channels and commands: by name, with signs and offsets, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots import load_robot
from robots.hardware import HardwareSpec, JointWire, SensorWire, Wiring, channel_sources
from robots.hardware_yaml import parse_hardware
from robots.robot_yaml import parse_robot

JOINTS = ("hip", "knee", "ankle")
NO_SENSORS = np.empty(0)


def leg(kind: str = "position") -> dict:
    """A robot.yaml whose channels, actuators and names lie in different orders."""
    return {
        "name": "leg", "mjcf": "leg.xml", "control_dt": 0.02, "episode_seconds": 5,
        "observation": [
            {"name": "velocity", "joint_vel": ["ankle", "hip", "knee"], "unit": "rad/s"},
            {"name": "position", "joint_pos": ["knee", "hip", "ankle"], "unit": "rad"},
        ],
        "action": [
            {"actuator": name, "kind": kind, "unit": "rad", "scale": 1.0} for name in ("knee", "ankle", "hip")
        ],
    }  # fmt: skip


def wires(signs: dict[str, int], offsets: dict[str, float]) -> HardwareSpec:
    joints = {name: {"source": f"s-{name}", "sign": signs[name], "offset": offsets[name]} for name in JOINTS}
    data = {"robot": "leg", "driver": "serial", "serial": {}, "joints": joints}
    return parse_hardware(data, parse_robot(leg()))


number = st.floats(-1e3, 1e3)
per_joint = st.fixed_dictionaries({name: number for name in JOINTS})


@given(
    signs=st.fixed_dictionaries({name: st.sampled_from((1, -1)) for name in JOINTS}),
    offsets=per_joint,
    position=per_joint,
    velocity=per_joint,
)
def test_there_and_back(signs: dict, offsets: dict, position: dict, velocity: dict) -> None:
    """What a joint measures, sent as a command, arrives at the very source it came from, the same to 1e-12."""
    spec, hardware = parse_robot(leg()), wires(signs, offsets)
    wiring = Wiring(spec, hardware)
    raw = np.array([position[source.removeprefix("s-")] for source in wiring.sources])
    speed = np.array([velocity[source.removeprefix("s-")] for source in wiring.sources])
    values = dict(zip(spec.channels, wiring.values(raw, speed, np.zeros(3), NO_SENSORS), strict=True))
    for name in JOINTS:
        assert values[f"joint_pos/{name}"] == signs[name] * position[name] + offsets[name]
        assert values[f"joint_vel/{name}"] == signs[name] * velocity[name]
    command = np.array([values[f"joint_pos/{name}"] for name in spec.action_names])
    targets = dict(zip(wiring.target_sources, wiring.targets(command), strict=True))
    assert wiring.commands(wiring.targets(command)) == pytest.approx(command, rel=0, abs=1e-12)
    for source, value in zip(wiring.sources, raw, strict=True):
        assert targets[source] == pytest.approx(value, rel=0, abs=1e-12)


@pytest.mark.parametrize("kind", ["effort", "velocity"])
def test_only_positions_have_an_offset(kind: str) -> None:
    """An effort or a speed is turned round by the sign and moved by nothing."""
    hardware = wires(dict.fromkeys(JOINTS, -1), dict.fromkeys(JOINTS, 0.5))
    wiring = Wiring(parse_robot(leg(kind)), hardware)
    assert wiring.targets(np.array([1.0, 2.0, 3.0])).tolist() == [-1.0, -2.0, -3.0]


def test_buffers_are_filled_in_place() -> None:
    """Given buffers are what comes back, so that a loop need not allocate."""
    wiring = Wiring(parse_robot(leg()), wires(dict.fromkeys(JOINTS, 1), dict.fromkeys(JOINTS, 0.0)))
    values, targets = np.empty(6), np.empty(3)
    assert wiring.values(np.ones(3), np.ones(3), np.ones(3), NO_SENSORS, values) is values
    assert wiring.targets(np.ones(3), targets) is targets


def test_sensors_and_efforts() -> None:
    """A channel may be a scaled sensor, or the effort of a joint with the joint's sign."""
    data = leg()
    data["observation"] = [
        {"name": "tip", "sensor": ["tip[0:2]"], "unit": "m"},
        {"name": "torque", "sensor": ["knee_torque"], "unit": "N m"},
    ]
    spec = parse_robot(data)
    joints = tuple(JointWire(name, f"s-{name}", -1, 9.0) for name in JOINTS)
    sensors = (
        SensorWire("sensor/tip[1]", "imu/y", 2.0, 0.5),
        SensorWire("sensor/knee_torque", "effort/knee", 10.0, 1.0),
        SensorWire("sensor/tip[0]", "imu/x"),
    )
    hardware = HardwareSpec("leg", "serial", {}, joints, sensors)
    wiring = Wiring(spec, hardware)
    assert wiring.sensor_sources == ("imu/y", "imu/x")
    assert (wiring.position_sources, wiring.velocity_sources, wiring.effort_sources) == ((), (), ("s-knee",))
    effort = np.array([0.0, 3.0, 0.0])  # hip, knee, ankle
    nothing = np.full(3, np.nan)
    values = wiring.values(nothing, nothing, effort, np.array([7.0, 8.0]))
    assert dict(zip(spec.channels, values, strict=True)) == {
        "sensor/tip[0]": 8.0, "sensor/tip[1]": 14.5, "sensor/knee_torque": -29.0,
    }  # fmt: skip
    assert channel_sources(spec, hardware) == ("imu/x", "imu/y", "effort/knee")


def test_channel_sources_of_joints() -> None:
    """People read which wire a channel hangs on."""
    spec = parse_robot(leg())
    shown = channel_sources(spec, wires(dict.fromkeys(JOINTS, 1), dict.fromkeys(JOINTS, 0.0)))
    assert shown[:1] + shown[3:4] == ("velocity of s-ankle", "position of s-knee")


def test_one_motor_under_two_names() -> None:
    """A cart's motor drives the actuator slide and measures the joint slider: one source, one place in the arrays."""
    spec = load_robot("cartpole")
    joints = tuple(JointWire(name, source) for name, source in (("slider", "1"), ("slide", "1"), ("hinge_1", "2")))
    wiring = Wiring(spec, HardwareSpec("cartpole", "serial", {}, joints))
    assert wiring.sources == ("1", "2")
    assert wiring.target_sources == ("1",)
