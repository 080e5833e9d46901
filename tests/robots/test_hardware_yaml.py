"""hardware.yaml is read strictly: what is missing, doubled or unknown is an error that says what is legal."""

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robots import RobotSpecError
from robots.hardware import Wiring
from robots.hardware_yaml import parse_hardware, read_hardware
from robots.lerobot_options import parse_lerobot
from robots.robot_yaml import parse_robot
from robots.serial_options import parse_serial

ROBOT = {
    "name": "toy", "mjcf": "toy.xml", "control_dt": 0.02, "episode_seconds": 5,
    "observation": [
        {"name": "position", "joint_pos": ["hip", "knee"], "unit": "rad"},
        {"name": "velocity", "joint_vel": ["hip"], "unit": "rad/s"},
        {"name": "tip", "sensor": ["tip[0:2]"], "unit": "m"},
    ],
    "action": [{"actuator": "hip", "kind": "position", "unit": "rad", "scale": 1.0}],
}  # fmt: skip
SPEC = parse_robot(ROBOT)
WIRING = {
    "robot": "toy",
    "driver": "serial",
    "serial": {"port": "/dev/ttyACM0", "protocol": "feetech"},
    "joints": {"hip": {"source": "1", "sign": -1, "offset": 0.12}, "knee": {"source": "2"}},
    "sensors": {"sensor/tip[0]": {"source": "imu/x"}, "sensor/tip[1]": {"source": "imu/y", "scale": 2}},
}
ABSENT = object()


def changed(path: tuple[str, ...], value: object) -> dict:
    data = copy.deepcopy(WIRING)
    place: dict = data
    for key in path[:-1]:
        place = place[key]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


def test_reads(tmp_path: Path) -> None:
    """A file gives its wires in its order, with sign 1 and offset 0 where it says nothing."""
    path = tmp_path / "hardware.yaml"
    path.write_text(yaml.safe_dump(WIRING, sort_keys=False))
    hardware = read_hardware(path, SPEC)
    assert (hardware.robot, hardware.driver, dict(hardware.options)) == ("toy", "serial", WIRING["serial"])
    assert [(w.joint, w.source, w.sign, w.offset) for w in hardware.joints] == [
        ("hip", "1", -1, 0.12), ("knee", "2", 1, 0.0),
    ]  # fmt: skip
    assert [(w.channel, w.source, w.scale) for w in hardware.sensors] == [
        ("sensor/tip[0]", "imu/x", 1.0), ("sensor/tip[1]", "imu/y", 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("robot",), "arm", ["'arm'", "expected 'toy'"]),
        (("robot",), ABSENT, ["missing robot"]),
        (("joint",), {}, ["unknown key 'joint'", "did you mean 'joints'"]),
        (("driver",), "seriel", ["did you mean 'serial'", "ros2, lerobot"]),
        (("driver",), "ros2", ["serial do not belong here"]),
        (("serial",), ABSENT, ["section 'serial' is missing"]),
        (("serial",), None, ["serial: expected a mapping"]),
        (("ros2",), {}, ["ros2 do not belong"]),
        (("joints",), [], ["joints: expected a mapping"]),
        (("joints", "hop"), {"source": "9"}, ["'hop'", "did you mean 'hip'", "legal are hip, knee"]),
        (("joints", "hip", "sing"), 1, ["unknown key 'sing'", "did you mean 'sign'"]),
        (("joints", "hip", "sign"), 0, ["sign: 0", "1 and -1"]),
        (("joints", "hip", "sign"), 1.5, ["1 and -1"]),
        (("joints", "hip", "sign"), True, ["1 and -1"]),
        (("joints", "hip", "offset"), float("nan"), ["finite number"]),
        (("joints", "hip", "source"), 1, ["joints.hip.source", "expected text"]),
        (("joints", "hip", "source"), " 1", ["blanks"]),
        (("joints", "hip", "source"), ABSENT, ["missing source"]),
        (("joints", "hip", "source"), "2", ["named twice: 2"]),
        (("joints", "knee"), ABSENT, ["nothing gives joint_pos/knee"]),
        (("joints", "hip"), ABSENT, ["nothing gives joint_pos/hip, joint_vel/hip"]),
        (("sensors", "sensor/tip[1]"), ABSENT, ["nothing gives sensor/tip[1]"]),
        (("sensors",), ABSENT, ["nothing gives sensor/tip[0], sensor/tip[1]"]),
        (("sensors", "sensor/top[1]"), {"source": "z"}, ["no channel 'sensor/top[1]'", "did you mean"]),
        (("sensors", "sensor/tip[1]", "source"), "imu/x", ["named twice: imu/x"]),
        (("sensors", "sensor/tip[1]", "source"), "effort/shin", ["'shin'", "joints are hip, knee"]),
        (("sensors", "sensor/tip[1]", "scale"), 0, ["would hide"]),
        (("sensors", "joint_pos/hip"), {"source": "z"}, ["hip already gives"]),
    ],
)
def test_what_is_not_legal_is_named(path: tuple[str, ...], value: object, words: list[str]) -> None:
    """Each mistake is refused, and the message says where it is and what would do."""
    with pytest.raises(RobotSpecError) as caught:
        parse_hardware(changed(path, value), SPEC)
    for word in words:
        assert word in str(caught.value)


def test_an_actuator_that_nothing_drives() -> None:
    """An actuator of another name than its joint needs a wire of its own."""
    spec = parse_robot({**ROBOT, "action": [{"actuator": "motor", "kind": "effort", "unit": "N m", "scale": 1}]})
    with pytest.raises(RobotSpecError, match="nothing drives motor.*wired are hip, knee"):
        parse_hardware(WIRING, spec)
    # The same source may measure one joint and drive one actuator
    assert parse_hardware(changed(("joints", "motor"), {"source": "1"}), spec).joints[-1].joint == "motor"


def test_ctrl_is_no_command_for_hardware() -> None:
    """MuJoCo's ctrl has no unit that a drive could take."""
    spec = parse_robot({**ROBOT, "action": [{"actuator": "hip", "kind": "ctrl", "unit": "1", "scale": 1}]})
    with pytest.raises(RobotSpecError, match="effort, velocity, position"):
        parse_hardware(WIRING, spec)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("robot: [", "not readable as YAML"),
        ("robot: toy\nrobot: toy\n", "named twice: robot"),
        ("joints: {hip: {source: '1'}, hip: {source: '2'}}", "named twice: hip"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_files_that_say_nothing_usable(tmp_path: Path, content: str, words: str) -> None:
    """A file that is no YAML, or says the same key twice, is refused with its name."""
    path = tmp_path / "hardware.yaml"
    path.write_text(content)
    with pytest.raises(RobotSpecError, match=words) as caught:
        read_hardware(path, SPEC)
    assert str(path) in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([*WIRING, "hip", "source", "sign", "x"]), inner)
        ),
    )
)
def test_any_data_is_refused_politely(data: object) -> None:
    """Whatever YAML may hold gives a RobotSpecError and no other exception."""
    with pytest.raises(RobotSpecError):
        parse_hardware(data, SPEC)


def documented() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text()
    return [block.split("```")[0] for block in text.split("```yaml\n")[1:]]


@pytest.mark.parametrize("block", documented(), ids=lambda block: yaml.safe_load(block)["driver"])
def test_the_documented_files_are_legal(block: str) -> None:
    """The examples in docs/hardware.md read without a complaint, the driver's section included."""
    names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    spec = parse_robot({
        **ROBOT, "name": "so101", "observation": [{"name": "position", "joint_pos": names, "unit": "rad"}],
        "action": [{"actuator": name, "kind": "position", "unit": "rad", "scale": 1.0} for name in names],
    })  # fmt: skip
    hardware = parse_hardware(yaml.safe_load(block), spec)
    if hardware.driver == "serial":
        assert parse_serial(hardware.options).protocol == "feetech"
    else:
        assert parse_lerobot(hardware.options, Wiring(spec, hardware).sources).type == "so101_follower"
