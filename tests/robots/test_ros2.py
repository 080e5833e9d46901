"""Ros2Backend keeps the contract, over sockets too, and lets neither a second voice nor a broken one reach the loop."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from backend_contract import BackendContract
from ros2_arm import JOINTS, arm, free_domain, wired

from robots import BackendError, SensorReading
from robots.hardware import HardwareSpec
from robots.ros2 import Ros2Backend
from robots.ros2_wire import domain_ports
from robots.spec import RobotSpec

pytest.importorskip("cyclonedds", reason="the extra ros2 is not installed")

from cyclonedds._clayer import ddspy_write  # noqa: E402
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.pub import DataWriter  # noqa: E402
from cyclonedds.topic import Topic  # noqa: E402
from ros2_robot import SYSTEM_DEFAULT, Ros2Robot, Ros2RobotProcess  # noqa: E402

from robots.ros2_inbox import Snapshot  # noqa: E402
from robots.ros2_messages import (  # noqa: E402
    Float64MultiArray,
    Header,
    Imu,
    JointState,
    Quaternion,
    Time,
    Vector3,
)

SPEC = arm()


class Answering(Ros2Backend):
    """With a robot of this process that speaks when told something, and once when it is only to be measured."""

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec, robot: Callable[[int], Ros2Robot] = Ros2Robot) -> None:
        super().__init__(spec, hardware)
        self._settled = 0.0  # there is one robot, and it is there
        self.robot = robot(self._options.domain)
        self.measuring = False
        wait = self._inbox.newer_than

        def newer_than(number: int, timeout: float) -> Snapshot | None:
            # A reset or a measurement, which asks for what comes from now on
            if timeout > self._options.wait_seconds or (self.measuring and timeout > 0.0):
                self.robot.speak()
            return wait(number, timeout)

        self._inbox.newer_than = newer_than

    def _rest(self) -> bool:
        number = self._inbox.number
        told = super()._rest()
        if told and self._inbox.fault is None and not self.robot.ending.is_set():
            eventually(lambda: self._inbox.number > number)  # else its answer is one to whatever comes next
        return told

    def measure(self) -> SensorReading:
        self.measuring = True
        try:
            return super().measure()
        finally:
            self.measuring = False

    def close(self) -> None:
        self.robot.close()
        super().close()


def answering(
    spec: RobotSpec = SPEC, robot: Callable[[int], Ros2Robot] = Ros2Robot, **ros2: object
) -> closing[Answering]:
    options = {"domain": free_domain(), "wait_seconds": 1.0, "reset_seconds": 5.0, **ros2}
    return closing(Answering(spec, wired(spec, **options), robot))


class TestRos2Backend(BackendContract):
    spec = SPEC

    def make(self, seed: int = 0) -> Ros2Backend:
        return answering(robot=partial(Ros2Robot, seed=seed)).__enter__()


@pytest.fixture
def domain() -> int:
    return free_domain()


@pytest.fixture
def robot(domain: int) -> Iterator[Ros2RobotProcess]:
    process = Ros2RobotProcess(domain)
    yield process
    process.end()


def over_sockets(domain: int, spec: RobotSpec = SPEC, **ros2: object) -> closing[Ros2Backend]:
    return closing(Ros2Backend(spec, wired(spec, domain=domain, wait_seconds=0.5, **ros2)))


def values(backend: Ros2Backend, reading: np.ndarray) -> dict[str, float]:
    return dict(zip(backend.spec.channels, reading.tolist(), strict=True))


def test_over_sockets(domain: int, robot: Ros2RobotProcess) -> None:
    """With a process on the other side of two sockets: joints by name, sign and offset, there and back; a last zero."""
    with over_sockets(domain) as backend:
        assert backend.reset().sequence == 0
        command = np.array([0.25, 0.5, -1.0])  # elbow, shoulder, wrist
        for _ in range(50):
            reading = backend.step(command)
        measured = values(backend, reading.values)
    heard = robot.finish()
    assert heard[0] == [0.5, -0.25, -1.0]  # shoulder, elbow the other way round, wrist
    assert heard[-1] == [0.0, 0.0, 0.0]
    assert (measured["joint_vel/shoulder"], measured["joint_vel/elbow"]) == (0.5, 0.25)
    assert 0.5 < measured["joint_pos/elbow"] < 0.65  # from the offset upwards
    assert measured["joint_pos/wrist"] < 0.0


def test_order_of_names_does_not_matter() -> None:
    """A robot that lists its joints the other way round, with one more, is read the same."""
    with answering() as forth, answering(robot=partial(Ros2Robot, order=JOINTS[::-1])) as back:
        assert forth.reset().values.tolist() == back.reset().values.tolist()
        command = np.array([0.1, 0.2, 0.3])
        assert forth.step(command).values.tolist() == back.step(command).values.tolist()


def test_nothing_is_sent_before_a_step(domain: int, robot: Ros2RobotProcess) -> None:
    """Opening, measuring, resetting and closing tell the robot nothing."""
    with over_sockets(domain) as backend:
        backend.measure()
        backend.reset()
    assert robot.finish() == []


def test_position_drives_hold_at_the_end(domain: int, robot: Ros2RobotProcess) -> None:
    """The last command of a position drive comes once more at the end."""
    with over_sockets(domain, arm("position")) as backend:
        backend.reset()
        backend.step(np.array([0.75, 0.2, 0.3]))
        eventually(lambda: values(backend, backend.measure().values)["joint_vel/wrist"] == 0.3)
    assert robot.finish() == [[0.2, -0.25, 0.3]] * 2


def test_trajectories() -> None:
    """A trajectory names its joints and has one point, the command."""
    with answering(arm("position"), robot=partial(Ros2Robot, trajectory=True), command_type="trajectory") as backend:
        backend.reset()
        backend.step(np.array([0.75, 0.2, 0.3]))
        assert backend.robot.names == [["elbow", "shoulder", "wrist"]]
        assert backend.robot.heard == [[-0.25, 0.2, 0.3]]


def eventually(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_silence_repeats_the_last_reading() -> None:
    """While nothing comes, `step` returns the previous reading with its number and time; then it goes on."""
    with answering(wait_seconds=0.01) as backend:
        backend.reset()
        mute = backend.robot.obey, backend.robot.speak
        backend.robot.speak = lambda: None
        first = backend.step(np.zeros(3))
        again = backend.step(np.zeros(3))
        assert (again.sequence, again.timestamp_ns) == (first.sequence, first.timestamp_ns) == (0, again.timestamp_ns)
        mute[1]()
        eventually(lambda: backend.step(np.zeros(3)).sequence == 1)


def test_silence_does_not_keep_who_only_measures() -> None:
    """After a reset a measurement has a step's patience, then repeats; the robot can still be told to stand."""
    with answering(wait_seconds=0.01) as backend:
        backend.reset()
        newest = backend.step(np.full(3, 0.5))
        eventually(lambda: len(backend.robot.heard) == 1)
        speak, backend.robot.speak = backend.robot.speak, lambda: None
        newest = backend.measure()  # what the command's answer may have brought
        started = time.monotonic()
        again = backend.measure()
        assert time.monotonic() - started < 2.0  # a reset's patience is 5 s
        assert (again.sequence, again.timestamp_ns) == (newest.sequence, newest.timestamp_ns)
        assert backend.step(np.zeros(3)) is again
        eventually(lambda: backend.robot.heard[-1] == [0.0, 0.0, 0.0])
        speak()
        eventually(lambda: backend.measure().sequence > again.sequence)


def test_a_measurement_takes_what_came_before_it() -> None:
    """Where nothing newer than the call comes in time, the newest that is there counts: the robot is not silent."""
    with answering(wait_seconds=0.0) as backend:
        first = backend.reset()
        heard = backend.counts["/joint_states"]["accepted"]
        backend.robot.speak()
        eventually(lambda: backend.counts["/joint_states"]["accepted"] > heard)
        backend.robot.speak = lambda: None
        assert backend.measure().sequence == first.sequence + 1


def publish(backend: Answering, **changed: object) -> None:
    """What the robot would say next, with some fields changed."""
    backend.robot.stamp_ns += 1_000_000
    message = backend.robot.state(backend.robot.stamp_ns)
    for field, value in changed.items():
        setattr(message, field, value)
    backend.robot.writer.write(message)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"name": ["shoulder", "elbow", "elbow"]}, "joint named twice"),
        ({"name": ["shoulder", "elbow", "hip"]}, "joint missing"),
        ({"name": []}, "joint missing"),
        ({"position": [0.0, 0.0]}, "wrong number of values in position"),
        ({"velocity": []}, "wrong number of values in velocity"),
        ({"effort": [0.0]}, "wrong number of values in effort"),
        ({"position": [0.0, np.nan, 0.0]}, "position not finite"),
        ({"velocity": [0.0, np.inf, 0.0]}, "velocity not finite"),
        ({"header": Header(Time(-1, 0))}, "bad stamp"),
        ({"header": Header(Time(9, 10**9))}, "bad stamp"),
        ({"header": Header(Time(1, 0))}, "out of order"),
        ({"name": [f"j{i}" for i in range(2000)]}, "too many joints"),
    ],
)
def test_malformed_messages_are_no_readings(changed: dict, why: str) -> None:
    """A message of the right publisher that is malformed is counted by its fault and never becomes a reading."""
    with answering(wait_seconds=0.01) as backend:
        first = backend.reset()
        publish(backend, **changed)
        eventually(lambda: backend.counts["/joint_states"][why] == 1)
        backend.robot.speak = lambda: None
        assert backend.step(np.zeros(3)) is first


def test_text_that_does_not_decode() -> None:
    """A name that is no UTF-8 raises nowhere, and becomes no reading."""
    with answering(wait_seconds=0.01) as backend:
        first = backend.reset()
        message = backend.robot.state(backend.robot.stamp_ns + 1).serialize(use_version_2=False)
        assert b"elbow" in message
        ddspy_write(backend.robot.writer._ref, message.replace(b"elbow", b"\xff\xfe\xfd\xfc\xfb"))
        eventually(lambda: backend.counts["/joint_states"]["not decodable"] == 1)
        backend.robot.speak = lambda: None
        assert backend.step(np.zeros(3)) is first


def test_reordered_stamps() -> None:
    """Of messages that overtake one another the older are dropped; the same once more is no news; a new one is."""
    with answering(wait_seconds=0.01) as backend:
        backend.reset()
        counts = lambda why: backend.counts["/joint_states"][why]  # noqa: E731
        accepted = counts("accepted")
        newest = backend.robot.stamp_ns + 50_000_000
        backend.robot.position["wrist"] = 2.0
        backend.robot.writer.write(backend.robot.state(newest))
        eventually(lambda: counts("accepted") == accepted + 1)
        backend.robot.writer.write(backend.robot.state(newest - 10_000_000))
        eventually(lambda: counts("out of order") == 1)
        backend.robot.writer.write(backend.robot.state(newest))
        eventually(lambda: counts("repeated") == 1)
        backend.robot.speak = lambda: None
        reading = backend.step(np.zeros(3))
        assert reading.sequence == 1
        assert backend.step(np.zeros(3)).sequence == 1


def test_second_publisher_is_a_fault(domain: int, robot: Ros2RobotProcess) -> None:
    """Two publishers of joint states: one of them is not the robot. The fault lasts until the next reset."""
    with over_sockets(domain) as backend:
        backend.reset()
        other = Ros2RobotProcess(domain)
        with pytest.raises(BackendError, match="2 publishers"):
            for _ in range(1000):
                backend.step(np.zeros(3))
        with pytest.raises(BackendError, match="reset"):
            backend.step(np.zeros(3))
        with pytest.raises(BackendError, match="2 publishers"):
            backend.reset()
        other.end()
        eventually(lambda: len(backend._inbox._joints.reader.get_matched_publications()) == 1)
        assert backend.reset().sequence == 0


def test_another_in_its_place_is_a_fault() -> None:
    """When the robot's publisher goes and another comes, it is not taken for the robot without a reset."""
    with answering(wait_seconds=0.01) as backend:
        backend.reset()
        old = backend.robot
        domain = backend._options.domain
        old.close()
        old.writer.__del__()
        backend.robot = Ros2Robot(domain)
        with pytest.raises(BackendError, match="another publisher"):
            for _ in range(1000):
                backend.step(np.zeros(3))
        assert backend.reset().sequence == 0


def test_another_commander_is_a_fault() -> None:
    """A robot has one driver: somebody else who publishes commands stops this one."""
    with answering(wait_seconds=0.01) as backend:
        backend.reset()
        participant = DomainParticipant(backend._options.domain)
        writer = DataWriter(participant, Topic(participant, "rt/commands", Float64MultiArray), SYSTEM_DEFAULT)
        with pytest.raises(BackendError, match="one driver"):
            for _ in range(1000):
                backend.step(np.zeros(3))
        del writer


@pytest.mark.parametrize(("kind", "rest"), [("velocity", [0.0, 0.0, 0.0]), ("position", [0.2, -0.25, 0.3])])
def test_a_fault_tells_the_robot_to_rest(kind: str, rest: list[float]) -> None:
    """At once, whenever somebody tries to hold it, as a reset begins, and at the end: zero, or a position held."""
    with answering(arm(kind), wait_seconds=0.01) as backend:
        backend.reset()
        command = np.array([0.75, 0.2, 0.3])  # elbow, shoulder, wrist
        backend.step(command)
        eventually(lambda: len(backend.robot.heard) == 1)
        participant = DomainParticipant(backend._options.domain)
        second = DataWriter(participant, Topic(participant, "rt/joint_states", JointState), SYSTEM_DEFAULT)
        eventually(lambda: backend._inbox.fault is not None)
        for told in (2, 3):
            with pytest.raises(BackendError, match="2 publishers.*after a reset"):
                backend.step(command)
            eventually(lambda told=told: len(backend.robot.heard) == told)
        with pytest.raises(BackendError, match="2 publishers"):
            backend.measure()
        eventually(lambda: len(backend.robot.heard) == 4)
        with pytest.raises(BackendError, match="2 publishers"):
            backend.reset()
        eventually(lambda: len(backend.robot.heard) == 5)
        with pytest.raises(BackendError, match="2 publishers"):
            backend.reset()  # of one that nobody drives any more tells it nothing
        with pytest.raises(BackendError, match="before reset"):
            backend.step(command)
        assert backend.robot.heard[1:] == [rest] * 4
        last, send = [], backend._send
        backend._send = lambda targets: (last.append(targets[backend._order].tolist()), send(targets))[1]
        backend.close()
        assert last == [rest]
        del second


def test_a_reset_sends_no_target_of_long_ago() -> None:
    """Between two flights somebody may have moved the arm by hand: its last target would be a jump."""
    with answering(arm("position"), wait_seconds=0.01) as backend:
        backend.reset()
        backend.step(np.array([0.75, 0.2, 0.3]))
        eventually(lambda: len(backend.robot.heard) == 1)
        backend._sent_at -= 60.0
        backend.reset()
        backend.step(np.zeros(3))
        eventually(lambda: len(backend.robot.heard) == 2)
        assert backend.robot.heard[1] != backend.robot.heard[0]


@pytest.mark.parametrize(("kind", "rest"), [("velocity", [[0.0, 0.0, 0.0]]), ("position", [])])
def test_the_end_sends_no_target_of_long_ago(kind: str, rest: list[list[float]]) -> None:
    """Nor does a fault: position drives hold by themselves; a velocity or torque of long ago still has to end."""
    with answering(arm(kind), wait_seconds=0.01) as backend:
        backend.reset()
        backend.step(np.array([0.75, 0.2, 0.3]))
        second = Ros2Robot(backend._options.domain)
        eventually(lambda: backend._inbox.fault is not None)
        backend._sent_at -= 60.0
        said, send = [], backend._send
        backend._send = lambda targets: (said.append(targets.tolist()), send(targets))[1]
        with pytest.raises(BackendError, match="2 publishers"):
            backend.measure()
        assert said == rest
        backend._sent_at -= 60.0
        backend.close()
        assert said == rest * 2
        second.close()


def test_nobody_there(domain: int) -> None:
    """Without a controller, or without a robot that speaks, a reset says what is missing."""
    with over_sockets(domain, reset_seconds=0.4) as backend:
        with pytest.raises(BackendError, match="nobody subscribes to /commands"):
            backend.reset()
        with pytest.raises(BackendError, match="no publisher found"):
            backend.measure()
    robot = Ros2RobotProcess(domain, "--mute")
    with over_sockets(domain, reset_seconds=1.0) as backend, pytest.raises(BackendError, match="0 messages"):
        backend.reset()
    robot.end()


def test_a_domain_is_opened_once(domain: int) -> None:
    """A domain that this process has open already has another configuration, perhaps an open one: refused."""
    with over_sockets(domain), pytest.raises(BackendError, match=f"domain {domain}"):
        over_sockets(domain)


def test_no_such_interface(domain: int) -> None:
    """An interface that does not exist is an error, not another interface; the domain is free again after it."""
    with pytest.raises(BackendError, match="does the interface exist"):
        over_sockets(domain, interface="nowhere0", peers=["10.1.2.3"])
    with over_sockets(domain):
        pass


def test_environment_does_not_open_the_domain(domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CYCLONEDDS_URI, which could name any interface, has no say."""
    monkeypatch.setenv("CYCLONEDDS_URI", "<CycloneDDS><no such thing")
    with over_sockets(domain):
        pass


def test_strangers_are_not_discovered(domain: int, robot: Ros2RobotProcess) -> None:
    """The robot's announcement, replayed from an address that is no peer, introduces nobody; from a peer, the robot."""
    ports = domain_ports(domain)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spy:
        spy.bind(("127.0.0.1", ports[10 + 2 * 20]))  # where a participant of index 20 would be told of the others
        spy.settimeout(10.0)
        announcement = spy.recv(65_535)
    robot.end()
    with over_sockets(domain) as backend:
        found = []
        for source in ("127.0.0.3", "127.0.0.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                for index in range(33):
                    sock.sendto(announcement, ("127.0.0.1", ports[10 + 2 * index]))
            time.sleep(0.3)
            found.append(len(participants(backend)))
        assert found == [1, 2]


def participants(backend: Ros2Backend) -> list:
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant

    return BuiltinDataReader(backend._node.participant, BuiltinTopicDcpsParticipant).take(10)


def test_other_sensors() -> None:
    """Channels that are no joint's come from their topics, and a reading waits until these are there and fresh."""
    spec = arm(sensors={"imu": ["gyro[0]", "touch[0]"]})
    sensors = {
        "sensor/gyro[0]": {"source": "/imu/angular_velocity/z", "scale": 2.0},
        "sensor/touch[0]": {"source": "/touch/1"},
    }
    topics = {"/imu": "imu", "/touch": "multi_array"}
    hardware = wired(
        spec, sensors, domain=free_domain(), sensor_topics=topics, wait_seconds=0.01, reset_seconds=0.5,
        sensor_seconds=0.5,
    )  # fmt: skip
    with closing(Answering(spec, hardware)) as backend:
        with pytest.raises(BackendError, match="/imu: no publisher found"):
            backend.reset()
        at = backend.robot.participant
        imu = DataWriter(at, Topic(at, "rt/imu", Imu), SYSTEM_DEFAULT)
        touch = DataWriter(at, Topic(at, "rt/touch", Float64MultiArray), SYSTEM_DEFAULT)
        backend._options.__dict__["reset_seconds"] = 10.0
        speak = backend.robot.speak

        def all_speak() -> None:
            imu.write(Imu(Header(Time(5, 0)), Quaternion(), angular_velocity=Vector3(0.0, 0.0, 0.25)))
            touch.write(Float64MultiArray(data=[1.0, 7.0]))
            speak()

        backend.robot.speak = all_speak
        measured = values(backend, backend.reset().values)
        assert (measured["sensor/gyro[0]"], measured["sensor/touch[0]"]) == (0.5, 7.0)
        backend.robot.speak = lambda: None
        newest = backend.step(np.zeros(3))
        time.sleep(0.6)  # the others go stale
        heard = backend.counts["/joint_states"]["accepted"]
        speak()
        eventually(lambda: backend.counts["/joint_states"]["accepted"] == heard + 1)
        assert backend.step(np.zeros(3)) is newest
        all_speak()
        eventually(lambda: backend.step(np.zeros(3)).sequence > newest.sequence)


def test_without_cyclonedds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cyclonedds is not installed, the driver says what to install."""
    for name in ("ros2_inbox", "ros2_messages", "ros2_node"):
        monkeypatch.delitem(sys.modules, f"robots.{name}", raising=False)
        monkeypatch.delattr(f"robots.{name}", raising=False)
    for name in [name for name in sys.modules if name.startswith("cyclonedds")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"gcl-toolkit\[ros2\]"):
        Ros2Backend(SPEC, wired(SPEC))
