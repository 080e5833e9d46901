"""`gcl deploy`: a bundle drives the mock and a simulated robot in another process; wrong bundles are refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from free_address import free_address
from guardian_process import GuardianProcess
from plain_bundle import write_plain_bundle

from export.estop import EStopButton
from robots.robot_yaml import load_robot
from robots.udp import UdpBackend
from toolkit.cli import main

GCL = [sys.executable, "-c", "from toolkit.cli import main; main()"]


class Still(torch.nn.Module):
    """A policy that does little, so that a cart-pole stays on its rail; and a reward that is always one."""

    def forward(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        return observation[:, :1] * 0.01 if action is None else observation.sum(-1) * 0.0 + 1.0


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the shipped cart-pole."""
    return write_plain_bundle(tmp_path_factory.mktemp("deploy") / "cartpole.bundle", Still(), load_robot("cartpole"))


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "cartpole.bundle"))


def deploy(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `gcl deploy` in a process of its own, as a robot does."""
    return subprocess.run(
        [*GCL, "deploy", *map(str, words)], capture_output=True, text=True, timeout=120, cwd=cwd, check=False
    )


def driving(*words: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """A `gcl deploy` that has begun to drive."""
    process = subprocess.Popen(
        [*GCL, "deploy", *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None and "driving" in process.stdout.readline()
    time.sleep(1.0)
    return process


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which it was refused."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("gcl: ") and done.stderr.count("\n") == 1 and done.stdout == ""
    return done.stderr


def guardian_of(process: subprocess.Popen[str]) -> int:
    """Its process."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if b"export.guardian" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("it has no guardian")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_guardian_leaves_the_core_that_the_loop_keeps_to(pristine: Path, tmp_path: Path) -> None:
    """With --cpu that one, in real time the last one; without a core of its own, the loop leaves none."""
    cores = os.sched_getaffinity(0)
    for words, core in ((["--cpu", str(min(cores))], min(cores)), (["--realtime"], max(cores)), ([], None)):
        process = driving(pristine, "--backend", "sim", "--seconds", "20", *words, cwd=tmp_path)
        try:
            assert os.sched_getaffinity(process.pid) == (cores if core is None else {core})
            assert os.sched_getaffinity(guardian_of(process)) == cores - {core}
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def test_drives_the_mock(pristine: Path) -> None:
    """The report has the rate, the latencies, the reward beside the demos', and no fault."""
    done = deploy(pristine, "--backend", "mock", "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["robot"] == "cartpole" and report["ended_by"] == "time" and report["faults"] == []
    assert report["ticks"] + report["skipped"] >= 0.5 / load_robot("cartpole").control_dt
    assert report["tick"]["p50_us"] >= report["compute"]["p50_us"] > 0 and report["provider"] == "CPUExecutionProvider"
    assert report["reward"]["demo_median"] == 1.0


def test_drives_a_simulated_robot_in_another_process(pristine: Path, tmp_path: Path) -> None:
    """With the bundle's own spec a simulator is started, driven over UDP, recorded, and gone afterwards."""
    log = tmp_path / "flight.npz"
    done = deploy(pristine, "--backend", "sim", "--seconds", "1.5", "--log", log)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("rate", "deadlines missed", "learned reward", "whole tick", "faults", "none", "p99.9"):
        assert word in done.stdout
    assert done.stderr == ""
    with np.load(log, allow_pickle=False) as flight:
        assert len(np.unique(flight["values"], axis=0)) > 50  # it moved: physics, not an echo
        assert (np.diff(flight["sequence"]) == 1).all() and str(flight["robot"]) == "cartpole"


def test_ctrl_c_stops_softly(pristine: Path) -> None:
    """SIGINT to the whole foreground group ends the run with a report and exit code 0, and the simulator with it."""
    process = subprocess.Popen(
        [*GCL, "deploy", str(pristine), "--backend", "sim", "--seconds", "100"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert "driving cartpole" in process.stdout.readline()
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and "ended by SIGINT" in stdout, stdout + stderr
    assert stderr == ""


def test_check_opens_no_robot(pristine: Path) -> None:
    """Everything is checked and inference measured, without a backend."""
    done = deploy(pristine, "--backend", "udp", "--check", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["robot"] == "cartpole" and facts["inference"]["p50_us"] > 0 and facts["parity_vectors"] >= 64
    assert "nothing was driven" in deploy(pristine, "--check").stdout


def test_dry_run_moves_nothing(pristine: Path, tmp_path: Path) -> None:
    """The robot's sensors are read and commands computed, and the simulated robot stays exactly where it is."""
    log = tmp_path / "flight.npz"
    done = deploy(pristine, "--backend", "sim", "--dry-run", "--seconds", "0.5", "--log", log, cwd=tmp_path)
    assert done.returncode == 0 and "sending nothing" in done.stdout, done.stdout + done.stderr
    with np.load(log) as flight:
        assert len(flight["command"]) > 20 and len(np.unique(flight["values"], axis=0)) == 1


def test_a_damaged_bundle_is_refused(bundle: Path) -> None:
    """Tampered, truncated and newer bundles are each one line and exit code 2."""
    raw = bytearray((bundle / "policy.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / "policy.onnx").write_bytes(bytes(raw))
    assert "policy.onnx: SHA-256" in refused(deploy(bundle, "--backend", "mock"))
    os.truncate(bundle / "policy.onnx", 100)
    assert "policy.onnx: 100 bytes, expected" in refused(deploy(bundle, "--backend", "mock"))
    (bundle / "bundle.json").write_text('{"format_version": 99}')
    assert "format 99" in refused(deploy(bundle, "--backend", "mock"))


def test_another_robot_is_refused(pristine: Path) -> None:
    """A bundle is for one robot, down to every number of its description."""
    assert "cartpole" in refused(deploy(pristine, "--backend", "mock", "--robot", "cheetah"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.bundle"], "not there"),
        (["--backend", "udp"], "--address HOST:PORT is needed"),
        (["--backend", "mock", "--address", "127.0.0.1:1"], "--address is for --backend udp"),
        (["--backend", "udp", "--address", "127.0.0.1:1"], "no robot at 127.0.0.1:1"),
        (["--backend", "udp", "--address", "192.0.2.1:1"], "not on this machine"),
    ],
)
def test_wrong_words_are_refused(pristine: Path, words: list[str], message: str) -> None:
    """Each mistake on the command line is one line that says what is legal."""
    from click.testing import CliRunner

    from toolkit.cli import main

    result = CliRunner().invoke(main, ["deploy", *([] if words[0] == "none.bundle" else [str(pristine)]), *words])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_fault_is_exit_code_1_and_leaves_a_log(pristine: Path, tmp_path: Path) -> None:
    """A robot that is gone in mid-run is reported as a fault, with the flight recorder's file."""
    guardian = GuardianProcess(load_robot("cartpole"), tmp_path)
    process = subprocess.Popen(
        [*GCL, "deploy", str(pristine), "--backend", "udp", "--address", guardian.address, "--seconds", "100"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None and "driving" in process.stdout.readline()
    time.sleep(1.0)
    guardian.process.kill()
    guardian.end()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and "backend_lost" in stdout, stdout + stderr
    (log,) = (tmp_path / "runs" / "flight").glob("cartpole-*.npz")
    with np.load(log) as flight:
        assert "backend_lost" in str(flight["reason"]) and len(flight["command"]) > 10


def test_kill_9_leaves_a_held_robot_and_a_whole_record(pristine: Path, tmp_path: Path) -> None:
    """The guardian takes over and says why, the observer writes the flight, and both end; nobody has to clean up."""
    process = driving(pristine, "--backend", "sim", "--seconds", "100", cwd=tmp_path)
    process.kill()
    killed_ns = time.monotonic_ns()
    process.wait()
    flight = tmp_path / "runs" / "flight"
    end = time.monotonic() + 30
    while not (list(flight.glob("*.npz")) and list(flight.glob("*.guardian.jsonl"))) and time.monotonic() < end:
        time.sleep(0.1)
    (record,), (log,) = flight.glob("*.guardian.jsonl"), flight.glob("*.npz")
    (event,) = [json.loads(line) for line in record.read_text().splitlines()]
    assert event["reason"] in ("controller_lost", "controller_silent") and event["timestamp_ns"] > killed_ns - 10**8
    with np.load(log, allow_pickle=False) as rows:
        assert "controller_lost" in str(rows["reason"]) and len(rows["command"]) > 50


def test_a_lost_terminal_stops_softly(pristine: Path, tmp_path: Path) -> None:
    """SIGHUP, which is what a lost ssh session leaves behind, brings the robot to rest."""
    process = driving(pristine, "--backend", "mock", "--seconds", "100", cwd=tmp_path)
    process.send_signal(signal.SIGHUP)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "ended by SIGHUP" in said, said


def test_a_new_bundle_takes_over(pristine: Path, bundle: Path, tmp_path: Path) -> None:
    """With --hot-swap a bundle put in the running one's place takes over between two ticks."""
    process = driving(bundle, "--backend", "mock", "--seconds", "4", "--hot-swap", cwd=tmp_path)
    new = Path(shutil.copytree(pristine, tmp_path / "new.bundle"))
    bundle.rename(tmp_path / "old.bundle")
    new.rename(bundle)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "bundles swapped" in said, said


@pytest.fixture
def estop(tmp_path: Path) -> tuple[str, list[str | Path]]:
    """A free address, and the words that make `gcl deploy` listen there."""
    (tmp_path / "robot.key").write_bytes(b"k" * 32)
    address = free_address()
    return address, ["--estop", address, "--key", tmp_path / "robot.key"]


def test_an_emergency_stop_may_come_later(pristine: Path, estop: tuple[str, list[str | Path]], tmp_path: Path) -> None:
    """The robot waits for it, however the two are timed, and then drives without a fault."""
    button, ended = EStopButton(estop[0], b"k" * 32), threading.Event()

    def speak() -> None:
        while not ended.wait(0.05):
            button.listen()
            button.say(pressed=False)

    process = subprocess.Popen(
        [*GCL, "deploy", str(pristine), "--backend", "mock", "--seconds", "0.5", *map(str, estop[1])],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    thread = threading.Thread(target=speak, daemon=True)
    try:
        assert process.stdout is not None and process.stdout.readline().startswith("waiting for the emergency stop on")
        thread.start()
        output, _ = process.communicate(timeout=120)
        # A machine that is busy may starve the button for a while, which is a fault then; but it was waited for
        assert process.returncode == 0 or "estop_silent" in output, output
        assert "driving" in output
    finally:
        ended.set()
        process.kill()


def test_without_its_emergency_stop_no_robot_is_touched(
    pristine: Path, estop: tuple[str, list[str | Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anybody speaks to the robot, in a line that says what to start."""
    monkeypatch.setattr("toolkit.commands.deploy._BUTTON_SECONDS", 0.1)
    monkeypatch.setattr(UdpBackend, "_exchange", lambda *_: pytest.fail("it spoke to the robot"))
    result = CliRunner().invoke(main, ["deploy", str(pristine), "--backend", "mock", *map(str, estop[1])])
    assert result.exit_code == 2 and "start `gcl estop`" in result.stderr


def test_robot_side_needs_neither_torch_nor_a_simulator(pristine: Path) -> None:
    """`gcl deploy --backend mock` works where importing torch, mujoco, dm_control, onnx or zarr fails."""
    code = (
        "import sys\n"
        "for name in ('torch', 'mujoco', 'dm_control', 'onnx', 'zarr'):\n"
        "    sys.modules[name] = None\n"
        "from toolkit.cli import main\n"
        f"main(['deploy', {str(pristine)!r}, '--backend', 'mock', '--seconds', '0.2', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faults"] == []
