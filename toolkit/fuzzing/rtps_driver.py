"""The ROS 2 driver in a process of its own, driving while it is shot at: python -m toolkit.fuzzing.rtps_driver ROBOT N.

N is the DDS domain. It opens the driver as a guardian does, in a process below this one, which a packet may end: that
is counted, and has to heal. It steps until its standard input closes, and then prints what it saw as one line of JSON.
The robot's joints are told apart by their numbers: joint i is at i + a share of 1/1024, and moves by minus that share.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections import Counter

import numpy as np

from robots.backend import BackendError, DriverEndedError, SensorReading
from robots.open_backend import open_driver
from robots.robot_yaml import load_robot
from robots.spec import RobotSpec
from toolkit.fuzzing.plain_wiring import plain_wiring

TOLD = 0.25  # every element of every command
GRAIN = 1024
HEALED_IN = 20.0  # [s] without a reading after which the driver counts as lost for good


def options(spec: RobotSpec, domain: int) -> dict[str, object]:
    """The section `ros2` of both sides' wiring.

    Args:
        spec: The robot.
        domain: Of DDS.

    Returns:
        What a hardware.yaml would say.
    """
    sources = {wire.joint: wire.source for wire in plain_wiring(spec, {}).joints}
    return {
        "domain": domain, "joint_states": "/joint_states", "command": "/commands", "reset_seconds": 2.0,
        "command_joints": [sources[name] for name in spec.action_names],
    }  # fmt: skip


def said(spec: RobotSpec, reading: SensorReading) -> bool:
    """Whether a reading is one that the robot could have sent."""
    order = {wire.joint: i for i, wire in enumerate(plain_wiring(spec, {}).joints)}
    shares = set()
    for channel, value in zip(spec.channels, reading.values.tolist(), strict=True):
        kind, _, joint = channel.partition("/")
        shares.add(-value if kind == "joint_vel" else value - order[joint])
    share = shares.pop()
    return not shares and 0.0 <= share < 1.0 and (share * GRAIN).is_integer()


def main() -> None:
    """Command line."""
    spec, domain = load_robot(sys.argv[1]), int(sys.argv[2])
    counts: Counter[str] = Counter()
    wrong = None
    told = np.full(spec.act_dim, TOLD)
    with open_driver(spec, plain_wiring(spec, options(spec, domain))) as backend:
        running, sequence, heard_at = False, 0, time.monotonic()
        while not select.select([sys.stdin], [], [], 0.002)[0]:
            if time.monotonic() - heard_at > HEALED_IN:
                wrong = wrong or f"none for {HEALED_IN:g} s"
            try:
                reading = backend.step(told) if running else backend.reset()
            except DriverEndedError as error:
                counts["driver processes that packets ended"] += 1
                print(f"rtps_driver: {error}", file=sys.stderr)
                continue  # as a guardian does, which holds the robot through the next process
            except BackendError as error:
                counts["faults" if running else "refusals to start"] += 1
                print(f"rtps_driver: {error}", file=sys.stderr)
                running = False
                continue
            if not running:
                print(json.dumps({"ready": counts["starts"]}), flush=True)
                counts["starts"] += 1
                running, sequence = True, -1
            counts["steps"] += 1
            if reading.sequence > sequence:
                sequence, heard_at = reading.sequence, time.monotonic()
                counts["readings"] += 1
                if not said(spec, reading):
                    wrong = repr(reading)
    print(json.dumps({"counts": counts, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
