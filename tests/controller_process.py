"""A controller that only writes a black box: `python controller_process.py FD HZ [SCRIPT]`, in a process of its own.

Row k holds the number k in everything, so that a torn one shows. HZ 0 writes as fast as it goes. SCRIPT is a JSON
object: `rows` ends it properly after so many, `fault_at` latches a fault. It prints a line once it writes.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from export.black_box import BlackBox, State
from robots.backend import SensorReading

ROOT = Path(__file__).resolve().parents[1]


def start_controller(box: BlackBox, hz: float, **script: int) -> subprocess.Popen[str]:
    """Starts one on a box, and waits until it writes."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(box.fd), str(hz), json.dumps(script)],
        pass_fds=(box.fd,), stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def write_row(box: BlackBox, k: int, now_ns: int | None = None) -> None:
    """Row k, all of it k."""
    spec = box.spec
    now_ns = time.monotonic_ns() if now_ns is None else now_ns
    reading = SensorReading(np.full(len(spec.channels), float(k)), now_ns, k)
    box.beat(now_ns, k, k, k, k, 1.0, float(k))
    command = np.full(spec.act_dim, float(k))
    box.record(reading, np.full(spec.obs_dim, float(k)), command, command, float(k), 1000 * k, k, k)


def main(fd: int, hz: float, script: dict[str, int]) -> None:
    """Writes until told otherwise."""
    box = BlackBox.attach(fd)
    tick = box.histogram("tick")
    box.set_state(State.RUNNING)
    period_ns, start_ns, k = round(1e9 / hz) if hz else 0, time.monotonic_ns(), 0
    while k != script.get("rows"):
        write_row(box, k)
        tick.add(1000 * (k % 50))
        if k == script.get("fault_at"):
            box.set_state(State.FAULT)
            box.latch_fault("stale_reading", "newest is 300 ms old", time.monotonic_ns())
        if k == 0:
            print("writing", flush=True)
        k += 1
        time.sleep(max(0, start_ns + k * period_ns - time.monotonic_ns()) * 1e-9) if hz else None
    box.set_state(State.ENDED)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]))
