"""`gcl deploy --hardware`: a bundle drives emulated servos through a guardian; the wiring check moves none of them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from plain_bundle import Constant, write_plain_bundle
from servo_emulator import ServoEmulator

from export.signature import new_key_pair
from robots.robot_yaml import parse_robot

GCL = [sys.executable, "-c", "from toolkit.cli import main; main()"]
ROOT = Path(__file__).parents[3]
# A period that a busy machine keeps, and patience for an emulator that shares its cores
YAML = {
    "name": "arm", "mjcf": "arm.xml", "control_dt": 0.04, "episode_seconds": 5,
    "observation": [
        {"name": "position", "joint_pos": ["shoulder", "elbow"], "unit": "rad"},
        {"name": "velocity", "joint_vel": ["shoulder", "elbow"], "unit": "rad/s"},
    ],
    "action": [
        {"actuator": name, "kind": "position", "unit": "rad", "scale": 0.5, "slew": 1.0}
        for name in ("shoulder", "elbow")
    ],
    "safety": {"watchdog_seconds": 1.0, "stale_seconds": 2.0, "miss_seconds": 10, "soft_start_seconds": 0.2},
}  # fmt: skip
SPEC = parse_robot(YAML)


REACH = Constant(0.4, -0.4)  # shoulder, elbow: shares of their way


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain_bundle(tmp_path_factory.mktemp("hardware") / "arm.bundle", REACH, SPEC)


@pytest.fixture
def servos() -> Iterator[ServoEmulator]:
    with ServoEmulator("feetech", {1: 2048, 2: 2148}) as emulator:
        yield emulator


@pytest.fixture
def hardware(servos: ServoEmulator, tmp_path: Path) -> Path:
    path = tmp_path / "my_arm.yaml"
    path.write_text(yaml.safe_dump({
        "robot": "arm", "driver": "serial",
        "serial": {"port": servos.path, "protocol": "feetech", "answer_seconds": 1.0},
        "joints": {"shoulder": {"source": "1", "sign": -1}, "elbow": {"source": "2"}},
    }))  # fmt: skip
    return path


def start(*words: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*GCL, "deploy", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def test_drives_servos_by_name_and_sign(bundle: Path, hardware: Path, servos: ServoEmulator, tmp_path: Path) -> None:
    """The goals begin where the arm stands, end where the policy wants it, and the arm stays under torque there."""
    process = start(bundle, "--hardware", hardware, "--seconds", "2.5", cwd=tmp_path)
    said, errors = process.communicate(timeout=90)
    assert process.returncode == 0, said + errors
    assert "driving arm (serial)" in said
    goals = {servo: [goal[servo] for goal in servos.told("goal") if servo in goal] for servo in (1, 2)}
    assert abs(goals[1][0] - 2048) <= 1 and abs(goals[2][0] - 2148) <= 1
    ticks = 0.2 * 4096 / (2 * np.pi)
    assert min(goals[1]) == pytest.approx(2048 - ticks, abs=2) and min(goals[2]) == pytest.approx(2048 - ticks, abs=2)
    assert servos.servos[1].get("torque") == 1 and servos.servos[2].get("torque") == 1


def test_wiring_check_moves_nothing(bundle: Path, hardware: Path, servos: ServoEmulator, tmp_path: Path) -> None:
    """Every channel is measured for as long as somebody looks; no goal is ever sent and torque stays off."""
    process = start(bundle, "--hardware", hardware, "--wiring", "--json", cwd=tmp_path)
    time.sleep(5.0)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1, said + errors  # nobody moved the joints, and it says so
    summary = json.loads(said.splitlines()[-1])
    assert "joint_pos/shoulder" in json.dumps(summary)
    assert servos.told("goal") == [] and servos.servos[1].get("torque") == 0


def test_kill_9_leaves_the_arm_held(bundle: Path, hardware: Path, servos: ServoEmulator, tmp_path: Path) -> None:
    """After `kill -9` of the controller the servos keep torque and their goals, and the reason is on record."""
    process = start(bundle, "--hardware", hardware, "--seconds", "60", cwd=tmp_path)
    assert process.stdout is not None and "driving" in process.stdout.readline()
    time.sleep(1.5)
    process.kill()
    process.communicate()
    end = time.monotonic() + 30
    records = tmp_path / "runs" / "flight"
    while not list(records.glob("*.jsonl")) and time.monotonic() < end:
        time.sleep(0.1)
    (record,) = records.glob("*.jsonl")
    assert json.loads(record.read_text().splitlines()[0])["reason"] in ("controller_lost", "controller_silent")
    time.sleep(1.5)
    held = [goal[1] for goal in servos.told("goal") if 1 in goal][-5:]
    assert len(set(held)) == 1 and servos.servos[1].get("torque") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "serial"], "needs --hardware"),
        (["--hardware", "nowhere.yaml"], "nowhere.yaml"),
        (["--backend", "ros2", "--hardware", "HARDWARE"], "is of driver serial"),
        (["--attended"], "--attended needs --web"),
        (["--estop", "127.0.0.1:0"], "--estop needs --key"),
    ],
)
def test_refusals(bundle: Path, hardware: Path, words: list[str], message: str) -> None:
    """What does not fit together is refused before any robot is opened."""
    from click.testing import CliRunner

    from toolkit.cli import main

    given = [str(hardware) if word == "HARDWARE" else word for word in words]
    result = CliRunner().invoke(main, ["deploy", str(bundle), *given])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_a_drive_that_could_be_anywhere_is_refused_on_the_robot_and_told_elsewhere(
    hardware: Path, servos: ServoEmulator, tmp_path: Path
) -> None:
    """Its first command would be its offset. The robot.yaml that names its joint makes the same bundle go."""
    action = tuple(dataclasses.replace(term, actuator=f"{term.actuator}_servo") for term in SPEC.action)
    bundle = tmp_path / "lost.bundle"
    write_plain_bundle(bundle, REACH, dataclasses.replace(SPEC, action=action))
    wiring = yaml.safe_load(hardware.read_text())
    for joint, wire in list(wiring["joints"].items()):
        wiring["joints"][f"{joint}_servo"] = wire
    hardware.write_text(yaml.safe_dump(wiring))
    refused = start(bundle, "--hardware", hardware, "--seconds", "1", cwd=tmp_path)
    said, errors = refused.communicate(timeout=90)
    assert refused.returncode == 2 and "where shoulder_servo, elbow_servo stands" in errors, said + errors
    assert "unmeasured: [shoulder_servo, elbow_servo]" in errors and not servos.told("goal")
    dry = start(bundle, "--hardware", hardware, "--seconds", "0.5", "--dry-run", cwd=tmp_path)
    said, errors = dry.communicate(timeout=90)
    assert "on a robot this is refused" in errors and "sending nothing" in said, said + errors
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump({
        **YAML, "action": [{**term, "actuator": f"{term['actuator']}_servo", "joint": term["actuator"]}
                           for term in YAML["action"]],
    }))  # fmt: skip
    goes = start(bundle, "--hardware", hardware, "--seconds", "1", "--robot", "robot.yaml", cwd=tmp_path)
    said, errors = goes.communicate(timeout=90)
    assert goes.returncode == 0, said + errors
    assert abs(next(goal[2] for goal in servos.told("goal") if 2 in goal) - 2148) <= 1


def test_only_trusted_bundles_run(bundle: Path, tmp_path: Path) -> None:
    """With --trusted an unsigned bundle, one signed by a stranger, and one changed after signing are refused."""
    import shutil

    from click.testing import CliRunner

    from toolkit.cli import main

    signed = Path(shutil.copytree(bundle, tmp_path / "signed.bundle"))
    keys = {name: new_key_pair(tmp_path / name)[:2] for name in ("alice", "mallory")}

    def deploy(path: Path, who: str) -> Any:
        words = ["--trusted", str(keys[who][1]), "--backend", "mock", "--check"]
        return CliRunner().invoke(main, ["deploy", str(path), *words])

    unsigned = deploy(bundle, "alice")
    assert unsigned.exit_code == 2 and "signed" in unsigned.stderr
    done = CliRunner().invoke(main, ["keys", "sign", str(signed), "--key", str(keys["alice"][0])])
    assert done.exit_code == 0, done.output
    assert deploy(signed, "alice").exit_code == 0
    assert deploy(signed, "mallory").exit_code == 2
    manifest = json.loads((signed / "bundle.json").read_text())
    (signed / "bundle.json").write_text(json.dumps(manifest))
    assert deploy(signed, "alice").exit_code == 2
