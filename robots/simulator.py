"""A simulated robot as a process of its own, driven over UDP like a real one.

    python -m robots.simulator --robot cheetah --port 0

prints one JSON line with the port when it is ready, and ends when its standard input closes, so that it never outlives
the program that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
from pathlib import Path

from robots.backend import BackendError
from robots.datagram import LARGEST
from robots.robot_yaml import read_spec
from robots.server import RobotServer
from robots.sim import MujocoBackend
from robots.spec import ToolkitError
from robots.udp import is_loopback


def serve(server: RobotServer, sock: socket.socket, lifeline: int) -> None:
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
                datagram, peer = sock.recvfrom(LARGEST)
                answer = server.answer(datagram, peer)
                if answer is not None:
                    sock.sendto(answer, peer)


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
        spec = read_spec(options.robot, options.directory)
        server = RobotServer(MujocoBackend(spec, options.seed))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((options.host, options.port))
            except (OSError, OverflowError) as error:
                raise BackendError(f"cannot listen on {options.host}:{options.port}: {error}") from error
            ready = {"robot": spec.name, "host": options.host, "port": sock.getsockname()[1], "pid": os.getpid()}
            print(json.dumps(ready | {"spec_sha256": spec.sha256}), flush=True)
            serve(server, sock, sys.stdin.fileno())
    except ToolkitError as error:
        print(f"robots.simulator: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
