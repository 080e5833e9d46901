"""Raw packets to the UDP ports of a ROS 2 driver that drives a robot meanwhile."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from robots.ros2_messages import Float64MultiArray, Header, JointState, Time
from robots.ros2_wire import LOOPBACK, LOOPBACK_ADDRESS, domain_ports, domain_xml, mangled_topic
from robots.spec import RobotSpec
from toolkit.fuzzing.datagram_oracle import ViolationError
from toolkit.fuzzing.plain_wiring import plain_wiring
from toolkit.fuzzing.rtps_driver import GRAIN, TOLD
from toolkit.fuzzing.rtps_packets import RtpsMutator

_PATIENCE = 60.0  # [s] for the driver to start, and to end
_QUEUE = 100_000  # bytes waiting at the driver's sockets before the next packet waits too
_QOS = Qos(
    Policy.Reliability.Reliable(100_000_000), Policy.History.KeepLast(1),
    Policy.DataRepresentation(use_cdrv0_representation=True),
)  # fmt: skip


class RtpsTarget:
    """A driver as a guardian opens it, a robot in this process, and a stranger who shoots at the driver from here."""

    def __init__(self, spec: RobotSpec, seed: int) -> None:
        """Starts both and lets them meet.

        Args:
            spec: The robot.
            seed: Of the packets.

        Raises:
            ViolationError: They do not meet, before anything was thrown.
        """
        self.counts: Counter[str] = Counter()
        self._act_dim = spec.act_dim
        domain = _free_domain()
        self._ports = [domain_ports(domain)[10], domain_ports(domain)[11]]  # the driver comes first, so its index is 0
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "toolkit.fuzzing.rtps_driver", spec.name, str(domain)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while not all(_waiting(port) is not None for port in self._ports):
            self._alive(deadline)
        self._domain = Domain(domain, domain_xml(LOOPBACK, [LOOPBACK_ADDRESS]))
        self._robot = DomainParticipant(domain)
        joints = Topic(self._robot, mangled_topic("/joint_states"), JointState)
        self._writer = DataWriter(self._robot, joints, _QOS)
        commands = Topic(self._robot, mangled_topic("/commands"), Float64MultiArray)
        self._reader = DataReader(self._robot, commands, _QOS)
        self._names = [wire.source for wire in plain_wiring(spec, {}).joints]
        self._wrong: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        samples = _announcements(domain, deadline)
        contents = [self._state(k).serialize(use_version_2=False) for k in range(1, 5)]
        self._mutator = RtpsMutator(seed, samples, contents, list({sample[8:20] for sample in samples}))
        self._own = self._writer.guid.bytes  # (16,) participant and writer
        self._sent = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert self._driver.stdout is not None
        while not select.select([self._driver.stdout], [], [], 0.05)[0]:
            self._alive(deadline)

    def some(self, count: int) -> tuple[int, int]:
        """Sends `count` packets; returns how many, and 0, since nobody says what became of them.

        Raises:
            ViolationError: The driver died, or told the robot what it must not.
        """
        for i in range(count):
            packet = self._mutator.one()
            while self._own[:12] in packet and self._own[12:] in packet:
                # With the robot's name on it, nothing on the wire would tell a message from the robot's.
                packet = self._mutator.one()
            self._socket.sendto(packet, (LOOPBACK_ADDRESS, self._ports[i % 2]))
            self._sent += 1
            if i % 50 == 0:
                self._pace()
        self._alive(time.monotonic() + _PATIENCE)
        if self._wrong is not None:
            raise ViolationError(f"the robot was told {self._wrong}")
        return count, 0

    def close(self) -> None:
        """Ends the driver and looks at what it read. Closing twice is allowed.

        Raises:
            ViolationError: It took for a reading what the robot never sent, or ended badly.
        """
        if self._ending.is_set():
            return
        dropped = sum(filter(None, (_waiting(port, dropped=True) for port in self._ports)))
        try:
            out, _ = self._driver.communicate("\n", timeout=_PATIENCE)
        except subprocess.TimeoutExpired as error:
            self._driver.kill()
            raise ViolationError("the driver hangs") from error
        finally:
            self._ending.set()
            self._thread.join()
            self._socket.close()
            self._domain.__del__()
        if self._driver.returncode != 0:
            raise ViolationError(f"the driver ended with {self._driver.returncode} after {self._sent} packets")
        told = json.loads(out.splitlines()[-1])
        self.counts.update({**told["counts"], "packets that its full sockets dropped": dropped})
        if told["wrong"] is not None:
            raise ViolationError(f"a reading that the robot never sent: {told['wrong']}")

    def _state(self, k: int) -> JointState:
        share = (k % GRAIN) / GRAIN
        stamp = Time(*divmod(10**9 + k * 10**6, 10**9))
        positions = [i + share for i in range(len(self._names))]
        return JointState(Header(stamp), list(self._names), positions, [-share] * len(positions), [])

    def _live(self) -> None:
        """The robot: speaks 100 times a second, and looks at what it is told."""
        for k in count(1):
            if self._ending.wait(0.01):
                return
            self._writer.write(self._state(k))
            for message in self._reader.take(1):
                values = getattr(message, "data", None)
                if values is None:
                    continue  # word of the driver's end
                self.counts["commands that the robot heard"] += 1
                if list(values) not in ([TOLD] * self._act_dim, [0.0] * self._act_dim):
                    self._wrong = repr(values)

    def _alive(self, deadline: float) -> None:
        if self._driver.poll() is not None:
            raise ViolationError(f"the driver died with {self._driver.returncode}")
        if time.monotonic() > deadline:
            raise ViolationError("the driver does not start to drive")

    def _pace(self) -> None:
        while any((_waiting(port) or 0) > _QUEUE for port in self._ports):
            time.sleep(0.001)
            self._alive(time.monotonic() + _PATIENCE)


def _free_domain() -> int:
    """A domain without anybody in it."""
    for domain in range(200, 100, -1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("0.0.0.0", domain_ports(domain)[10]))
                return domain
            except OSError:
                continue
    raise ViolationError("no DDS domain is free on this machine")


def _waiting(port: int, dropped: bool = False) -> int | None:
    """Bytes that wait at a UDP port of this machine, or packets that it dropped; None without such a socket."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[-1]) if dropped else int(fields[4].split(":")[1], 16)
    return None


def _announcements(domain: int, deadline: float) -> list[bytes]:
    """Real packets: what participants tell one that could be there, of index 20."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spy:
        spy.bind((LOOPBACK_ADDRESS, domain_ports(domain)[10 + 2 * 20]))
        spy.settimeout(0.5)
        while len({packet[8:20] for packet in heard}) < 2:
            if time.monotonic() > deadline:
                raise ViolationError("driver and robot do not announce themselves")
            try:
                heard.append(spy.recv(65_535))
            except TimeoutError:
                continue
    return heard
