"""A robot that speaks ROS 2 as ros2_control does, on DDS loopback: in this process, or as one of its own.

Its state advances by commands alone and its clock with it, so that a test can foretell every message.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from cyclonedds.core import DDSException, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.internal import InvalidSample
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from ros2_arm import JOINTS

from robots.ros2_messages import Float64MultiArray, Header, JointState, JointTrajectory, Time
from robots.ros2_wire import domain_xml

CDR = Policy.DataRepresentation(use_cdrv0_representation=True)
SENSOR_DATA = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(5), CDR)
SYSTEM_DEFAULT = Qos(Policy.Reliability.Reliable(100_000_000), Policy.History.KeepLast(10), CDR)
STEP_NS = 1_000_000


class Ros2Robot:
    """Publishes rt/joint_states, obeys rt/commands: a joint's velocity is what it was told, over 10 ms."""

    def __init__(
        self, domain: int, seed: int = 0, *, order: tuple[str, ...] = JOINTS, trajectory: bool = False
    ) -> None:
        self.participant = DomainParticipant(domain)
        self.writer = DataWriter(
            self.participant, Topic(self.participant, "rt/joint_states", JointState), SYSTEM_DEFAULT
        )  # fmt: skip
        kind = JointTrajectory if trajectory else Float64MultiArray
        self.reader = DataReader(self.participant, Topic(self.participant, "rt/commands", kind), SYSTEM_DEFAULT)
        self.order = order
        self.position = dict.fromkeys(JOINTS, 0.1 * seed)
        self.velocity = dict.fromkeys(JOINTS, 0.0)
        self.stamp_ns = 1_000_000_000
        self.heard: list[list[float]] = []  # commands as they came
        self.names: list[list[str]] = []  # joint names beside them, of trajectories
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.heartbeat = False  # whether it speaks without being told anything
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def state(self, stamp_ns: int) -> JointState:
        return JointState(
            Header(Time(*divmod(stamp_ns, 10**9))),
            list(self.order),
            [self.position[name] for name in self.order],
            [self.velocity[name] for name in self.order],
            [],
        )

    def speak(self) -> None:
        """Publishes once, with a stamp of its own."""
        with self.lock:
            self.stamp_ns += STEP_NS
            self.writer.write(self.state(self.stamp_ns))

    def obey(self, values: list[float], names: tuple[str, ...] | list[str] = JOINTS) -> None:
        for name, value in zip(names, values, strict=True):
            self.velocity[name] = value
            self.position[name] += 0.01 * value

    def close(self) -> None:
        self.ending.set()
        self.thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self.ending.wait(0.0005)  # and once more after it: what came before the end is heard
            try:
                for message in self.reader.take(1):
                    if not isinstance(message, InvalidSample):  # which is word of a publisher's end
                        self._hear(message)
                        self.speak()
                if self.heartbeat:
                    self.speak()
                    self.ending.wait(0.005)
            except DDSException:
                pass  # the domain closed under it, as it does in the driver's own process

    def _hear(self, message: Float64MultiArray | JointTrajectory) -> None:
        if isinstance(message, JointTrajectory):
            self.names.append(list(message.joint_names))
            self.heard.append(list(message.points[0].positions))
            self.obey(self.heard[-1], self.names[-1])
        else:
            self.heard.append(list(message.data))
            self.obey(self.heard[-1])


class Ros2RobotProcess:
    """The same robot as a process, so that every message crosses a socket. Speaks all the time."""

    def __init__(self, domain: int, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(domain), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def end(self) -> None:
        """Ends it, once or more often."""
        if self.process.poll() is None:
            self.finish()

    def finish(self) -> list[list[float]]:
        """Ends it and returns the commands that it heard."""
        out, _ = self.process.communicate("\n", timeout=20)
        return json.loads(out)


def main() -> None:
    domain = int(sys.argv[1])
    opened = Domain(domain, domain_xml("lo", ["127.0.0.1"]))
    robot = Ros2Robot(domain)
    robot.heartbeat = "--mute" not in sys.argv
    print("ready", flush=True)
    sys.stdin.readline()
    robot.close()
    print(json.dumps(robot.heard))
    del opened


if __name__ == "__main__":
    main()
