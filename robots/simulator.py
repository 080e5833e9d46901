"""A simulated robot as a process of its own, driven over UDP like a real one.

    python -m robots.simulator --robot cheetah --port 0

prints one JSON line with the port when it is ready, and ends when its standard input closes, so that it never outlives
the program that started it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import selectors
import socket
import sys
import time
from pathlib import Path

import numpy as np

from robots.backend import BackendError, SensorReading
from robots.robot_yaml import load_robot
from robots.sim import MujocoBackend
from robots.spec import RobotSpec, RobotSpecError, ToolkitError, spec_from_dict
from robots.udp import CLOSE, COMMAND, MEASURE, READING, RESET, Message, decode, encode, is_loopback, refusal, spec_mark

_SILENCE = 1.0  # [s] without a word from the driver before another may take over
_LARGEST = 65_535  # bytes
Peer = tuple[str, int]  # host, port


class SimulatorServer:
    """Answers datagrams with a backend; knows nothing of sockets, so that a test can hand it anything."""

    def __init__(self, spec: RobotSpec, seed: int = 0) -> None:
        """Makes the robot.

        Args:
            spec: The robot.
            seed: Of its episodes, until a driver asks for another.
        """
        self.spec = spec
        self.mark = spec_mark(spec)
        self.backend = MujocoBackend(spec, seed)
        self.driver: Peer | None = None  # who drives; others are not listened to
        self._heard = 0.0  # [s] monotonic, when the driver last spoke
        self._last: tuple[int, bytes] | None = None  # request and answer

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        """Acts on one datagram.

        Args:
            datagram: Whatever arrived.
            peer: From where.

        Returns:
            The bytes to send back, or None: what came was damaged, foreign, not from the driver, or a farewell.
        """
        message = decode(datagram, self.mark)
        if message is None:
            return None
        now = time.monotonic()
        if peer != self.driver:
            # A robot has one driver. Another may take over by a reset, once the first has gone or fallen silent.
            taken = self.driver is not None and now - self._heard < _SILENCE
            if taken or message.kind not in (RESET, MEASURE):
                return None
            self.driver, self._last = peer, None
        self._heard = now
        if message.kind == CLOSE:
            self.driver = None
            return None
        if self._last is not None and message.request == self._last[0]:
            return self._last[1]  # asked twice, done once
        try:
            reading = self._obey(message)
        except ToolkitError as error:
            answer = refusal(message.request, str(error))
        else:
            answer = Message(READING, message.request, np.array([reading.sequence, *reading.values]))
        self._last = (message.request, encode(answer, self.mark))
        return self._last[1]

    def _obey(self, message: Message) -> SensorReading:
        if message.kind == RESET and message.payload.shape == (1,):
            seed = message.payload[0]
            if seed >= 0 and seed.is_integer():
                self.backend.reseed(int(seed))
            return self.backend.reset()
        if message.kind == MEASURE:
            return self.backend.measure()
        if message.kind == COMMAND:
            return self.backend.step(message.payload)
        raise BackendError(f"a driver does not send messages of kind {message.kind}")


def serve(server: SimulatorServer, sock: socket.socket, lifeline: int) -> None:
    """Answers until the lifeline closes.

    Args:
        server: What answers.
        sock: A bound UDP socket.
        lifeline: File descriptor, such as standard input; its end is ours.

    Raises:
        BackendError: The lifeline is a file, whose end nobody could tell.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        try:
            selector.register(lifeline, selectors.EVENT_READ)
        except (PermissionError, ValueError) as error:
            raise BackendError(
                "standard input must be a pipe or a terminal: its end is how the simulator ends"
            ) from error
        while True:
            for key, _ in selector.select():
                if key.fileobj == lifeline:
                    if not os.read(lifeline, 4096):
                        return
                    continue
                datagram, peer = sock.recvfrom(_LARGEST)
                answer = server.answer(datagram, peer)
                if answer is not None:
                    sock.sendto(answer, peer)


def read_spec(robot: str, directory: Path | None) -> RobotSpec:
    """The robot to simulate.

    Args:
        robot: Name, path of a robot.yaml, or path of a .json file with `RobotSpec.to_dict()` data, as in a bundle.
        directory: For a .json file, where its model file lies; None for the folder of the .json.

    Returns:
        The spec.

    Raises:
        RobotSpecError: Not found or not legal.
    """
    if not robot.endswith(".json"):
        return load_robot(robot)
    path = Path(robot)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RobotSpecError(f"{path}: not readable as JSON: {error}") from error
    return dataclasses.replace(spec_from_dict(data), directory=(directory or path.parent).resolve())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m robots.simulator", description="A simulated robot on a UDP port.")
    parser.add_argument("--robot", required=True, help="name, robot.yaml, or .json with a bundle's spec")
    parser.add_argument("--directory", type=Path, help="for a .json: where its model file lies")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one, which the first line printed tells")
    parser.add_argument("--seed", type=int, default=0, help="decides how episodes begin")
    parser.add_argument(
        "--allow-remote", action="store_true", help="listen to other machines; datagrams are not protected"
    )
    options = parser.parse_args()
    try:
        if not (options.allow_remote or is_loopback(options.host)):
            raise BackendError(f"{options.host} can be reached from other machines; give --allow-remote to mean it")
        server = SimulatorServer(read_spec(options.robot, options.directory), options.seed)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((options.host, options.port))
            except (OSError, OverflowError) as error:
                raise BackendError(f"cannot listen on {options.host}:{options.port}: {error}") from error
            ready = {"robot": server.spec.name, "host": options.host, "port": sock.getsockname()[1], "pid": os.getpid()}
            print(json.dumps(ready | {"spec_sha256": server.spec.sha256}), flush=True)
            serve(server, sock, sys.stdin.fileno())
    except ToolkitError as error:
        print(f"robots.simulator: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
