"""`gcl deploy --hardware` over ROS 2: a bundle drives another process's joints through a guardian, names not places."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("cyclonedds", reason="cyclonedds has no wheel here")

from plain_bundle import Constant, write_plain_bundle  # noqa: E402
from ros2_arm import JOINTS, arm, free_domain  # noqa: E402
from ros2_robot import Ros2RobotProcess  # noqa: E402

from robots.safety_spec import SafetySpec  # noqa: E402

GCL = [sys.executable, "-c", "from toolkit.cli import main; main()"]


def write_arm(folder: Path, domain: int) -> tuple[Path, Path]:
    """A bundle and the wiring of a velocity-driven arm that speaks ROS 2."""
    patient = SafetySpec(watchdog_seconds=2.0, stale_seconds=3.0, miss_seconds=20.0, soft_start_seconds=0.1)
    spec = dataclasses.replace(arm("velocity"), safety=patient)
    bundle, hardware = folder / "arm.bundle", folder / "my_arm.yaml"
    # Elbow, shoulder, wrist: the order of the robot's actions
    write_plain_bundle(bundle, Constant(0.1, 0.2, 0.3), spec)
    hardware.write_text(yaml.safe_dump({
        "robot": "arm", "driver": "ros2",
        "ros2": {
            "domain": domain, "joint_states": "/joint_states", "command": "/commands", "command_joints": list(JOINTS),
        },
        "joints": {
            "shoulder": {"source": "shoulder"}, "elbow": {"source": "elbow", "sign": -1}, "wrist": {"source": "wrist"},
        },
    }))  # fmt: skip
    return bundle, hardware


def test_each_joint_gets_its_own_command(tmp_path: Path) -> None:
    """What arrives is what the policy wants, joint by joint with its sign; in the end the robot is told to stand."""
    domain = free_domain()
    bundle, hardware = write_arm(tmp_path, domain)
    robot = Ros2RobotProcess(domain)
    try:
        done = subprocess.run(
            [*GCL, "deploy", str(bundle), "--hardware", str(hardware), "--seconds", "1.5"],
            capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False, env=dict(os.environ),
        )  # fmt: skip
        heard = np.array(robot.finish())
    finally:
        robot.end()
    assert done.returncode == 0 and "driving arm (ros2)" in done.stdout, done.stdout + done.stderr
    by_name = dict(zip(JOINTS, heard.T, strict=True))
    assert by_name["shoulder"].max() == pytest.approx(0.2)
    assert by_name["elbow"].min() == pytest.approx(-0.1)  # wired the other way round
    assert by_name["wrist"].max() == pytest.approx(0.3)
    np.testing.assert_allclose(heard[-1], 0.0, atol=1e-12)


def driver_below(pid: int) -> int | None:
    """The driver's process among the descendants of a process."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"robots.driver_process" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
        found = driver_below(int(child))
        if found is not None:
            return found
    return None


def test_crash_of_the_dds_library_holds_the_robot(tmp_path: Path) -> None:
    """SIGSEGV in the driver's process while it drives: a latched fault, and a new process tells the robot to stand."""
    domain = free_domain()
    bundle, hardware = write_arm(tmp_path, domain)
    robot = Ros2RobotProcess(domain)
    words = [*GCL, "deploy", str(bundle), "--hardware", str(hardware), "--seconds", "60"]
    deploy = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        assert deploy.stdout is not None
        said = ""
        while "driving arm" not in said:
            line = deploy.stdout.readline()
            assert line, said
            said += line
        time.sleep(1.0)
        driver = driver_below(deploy.pid)
        assert driver is not None
        os.kill(driver, signal.SIGSEGV)
        rest, _ = deploy.communicate(timeout=60)
        heard = np.array(robot.finish())
    finally:
        deploy.kill()
        robot.end()
    assert deploy.returncode == 1 and "SIGSEGV" in said + rest, said + rest
    moved = np.flatnonzero(np.abs(heard).max(axis=1) > 0.05)
    assert len(moved) and len(heard) - 1 - moved[-1] >= 3, heard[-10:]  # the process that was killed sent none of these
    np.testing.assert_allclose(heard[-1], 0.0, atol=1e-12)
