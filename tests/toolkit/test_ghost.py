"""The 3D view follows a black box in a process of its own, and ends with its controller."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from controller_process import ROOT

from export.black_box import BlackBox
from robots import load_robot
from robots.backend import SensorReading

pytest.importorskip("viser")
pytest.importorskip("mjviser")


def test_a_view_of_a_running_robot() -> None:
    """It serves a page on this machine, says where in the box, lives through readings that are none, and ends."""
    spec = load_robot("quadruped")  # three of its four legs' drives pull tendons, so one joint a leg has a ghost
    box = BlackBox.create(spec, seconds=1.0)
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.ghost", "--fd", str(box.fd), "--web", "0"],
        pass_fds=(box.fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        status = box.status()
        assert ready["web"] == f"http://127.0.0.1:{status.ghost_port}/" and status.ghost_port > 0
        with urllib.request.urlopen(ready["web"], timeout=20) as page:
            assert b"<html" in page.read()
        command = np.zeros(spec.act_dim)
        for k in range(10):
            values = np.full(len(spec.channels), np.nan if k % 3 == 0 else 0.1 * k)
            box.beat(time.monotonic_ns(), k, 0, 0, 0, 1.0)
            reading = SensorReading(values, time.monotonic_ns(), k)
            box.record(reading, np.zeros(spec.obs_dim), command, command, 0.0, 0, 0, 0)
            time.sleep(0.06)
        assert 0 < time.monotonic_ns() - box.status().ghost_heartbeat_ns < 5e9
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        box.close()


@pytest.mark.parametrize("web", ["0.0.0.0:0", "nowhere:80"])
def test_what_cannot_be_shown_says_so(web: str) -> None:
    """A view open to everybody without leave, or at no address: one line and exit code 2."""
    box = BlackBox.create(load_robot("cartpole"), seconds=1.0)
    process = subprocess.run(
        [sys.executable, "-m", "toolkit.ghost", "--fd", str(box.fd), "--web", web],
        pass_fds=(box.fd,), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    box.close()
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("ghost: ") and process.stderr.count("\n") == 1


def test_models_beside_the_description(tmp_path: Path) -> None:
    """Without its model files a robot cannot be shown, which is one line, too."""
    box = BlackBox.create(load_robot("cheetah-long") if False else load_robot("humanoid"), seconds=0.1)
    assert box.spec.directory is not None
    box.close()
