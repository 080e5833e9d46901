"""The section `ros2` of a hardware.yaml is read strictly, and opens nothing that it does not name."""

import pytest
from ros2_arm import JOINTS, arm, wired

from robots import RobotSpecError
from robots.ros2_options import read_options

SPEC = arm()


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word: this machine only, domain of the environment, best effort, half a control period."""
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    options = read_options(SPEC, wired(SPEC))
    assert (options.interface, options.peers, options.domain) == ("lo", ("127.0.0.1",), 42)
    assert (options.wait_seconds, options.reliable, options.command_type) == (0.01, False, "multi_array")
    monkeypatch.delenv("ROS_DOMAIN_ID")
    assert read_options(SPEC, wired(SPEC)).domain == 0


def test_command_order_is_by_name() -> None:
    """Element i of the message is the command of the joint that the controller names i-th, whatever our order."""
    options = read_options(SPEC, wired(SPEC, command_joints=list(JOINTS)))
    assert [SPEC.action_names[i] for i in options.command_order] == list(JOINTS)


@pytest.mark.parametrize(
    ("ros2", "word"),
    [
        ({"domian": 1}, "domian"),
        ({"domain": 233}, "232"),
        ({"domain": True}, "domain"),
        ({"domain": "0"}, "domain"),
        ({"interface": "eth0"}, "has to be named"),
        ({"interface": "eth0 --"}, "interface"),
        ({"interface": "eth0", "peers": ["127.0.0.1"]}, "not reached"),
        ({"peers": ["10.0.0.1"]}, "not reached by the interface lo"),
        ({"interface": "eth0", "peers": ["239.255.0.1"]}, "one machine"),
        ({"interface": "eth0", "peers": ["0.0.0.0"]}, "one machine"),
        ({"interface": "eth0", "peers": ["robot.local"]}, "IPv4"),
        ({"interface": "eth0", "peers": "10.0.0.1"}, "list"),
        ({"interface": "eth0", "peers": [f"10.0.0.{i}" for i in range(65)]}, "at most"),
        ({"joint_states": "joint_states"}, "fully qualified"),
        ({"command": "/joint_states"}, "twice"),
        ({"command_type": "twist"}, "legal are multi_array, trajectory"),
        ({"command_type": "trajectory"}, "positions"),
        ({"command_joints": ["shoulder", "elbow"]}, "command_joints"),
        ({"command_joints": ["shoulder", "elbow", "elbow"]}, "command_joints"),
        ({"command_joints": None}, "command_joints"),
        ({"reliability": "maybe"}, "best_effort, reliable"),
        ({"wait_seconds": -0.1}, "at least 0"),
        ({"reset_seconds": 0}, "above 0"),
        ({"sensor_topics": {"/imu": "gps"}}, "imu, multi_array"),
        ({"sensor_topics": {"/imu": "imu"}}, "wired to /imu"),
    ],
)
def test_what_is_not_legal(ros2: dict, word: str) -> None:
    """Each wrong key and value is refused, and the message says what is legal."""
    with pytest.raises(RobotSpecError, match=word):
        read_options(SPEC, wired(SPEC, **ros2))


def test_domain_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ROS_DOMAIN_ID that is none is refused by its name."""
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    with pytest.raises(RobotSpecError, match="ROS_DOMAIN_ID"):
        read_options(SPEC, wired(SPEC))


def test_a_trajectory_names_its_joints() -> None:
    """Position drives may be sent trajectories, and then no order of joints is asked for."""
    spec = arm("position")
    assert read_options(spec, wired(spec, command_type="trajectory")).command_order == (0, 1, 2)
    with pytest.raises(RobotSpecError, match="itself"):
        read_options(spec, wired(spec, command_type="trajectory", command_joints=list(JOINTS)))


def test_sensor_topics() -> None:
    """A source is a topic and a field of its type; each finds its place, and the longest topic wins."""
    spec = arm(sensors={"imu": ["gyro[0]", "touch[0]", "gyro[1]"]})
    sources = {"sensor/gyro[0]": "/imu/angular_velocity/z", "sensor/gyro[1]": "/imu/orientation/w"}
    sensors = {channel: {"source": source} for channel, source in sources.items()}
    sensors["sensor/touch[0]"] = {"source": "/imu/touch/7"}
    hardware = wired(spec, sensors, sensor_topics={"/imu": "imu", "/imu/touch": "multi_array"})
    imu, touch = read_options(spec, hardware).sensor_topics
    assert (imu.topic, imu.fields) == ("/imu", ("angular_velocity/z", "orientation/w"))
    assert (touch.topic, touch.fields) == ("/imu/touch", ("7",))
    assert sorted([*imu.places, *touch.places]) == [0, 1, 2]


@pytest.mark.parametrize(
    "source",
    ["/imu", "/imu/", "/imu/orientation", "/imu/orientation/v", "/other/0", "/touch/-1", "/touch/01", "/touch/4096"],
)
def test_a_source_that_is_no_field(source: str) -> None:
    """A source without a topic that is named, or with a field that its type lacks, is refused."""
    spec = arm(sensors={"x": ["gyro[0]"]})
    hardware = wired(
        spec, {"sensor/gyro[0]": {"source": source}}, sensor_topics={"/imu": "imu", "/touch": "multi_array"}
    )  # fmt: skip
    with pytest.raises(RobotSpecError, match="TOPIC/FIELD"):
        read_options(spec, hardware)
