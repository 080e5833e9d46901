"""`gcl train` from the command line: experts, Ctrl-C, and evaluation of what came out."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from toolkit.cli import main
from toolkit.metrics import read_metrics

TINY = [
    "--set", "threads=1", "--set", "ppo.num_envs=8", "--set", "ppo.horizon=16", "--set", "policy.hidden=[8]",
    "--set", "checkpoint_every=1000",
]  # fmt: skip
EXPERT = ["train", "--objective", "task-reward", "--robot", "cartpole", "--json", *TINY]


def test_expert_is_trained_measured_and_evaluated(tmp_path: Path):
    """The run leaves a checkpoint, an evaluation and a figure that `gcl eval` confirms is a cartpole's."""
    out = str(tmp_path / "run")
    arguments = [*EXPERT, "--out", out, "--steps", "512", "--eval-every", "2", "--eval-episodes", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["steps"] == 512 and report["return"] >= 0.0
    assert (tmp_path / "run" / "curve.png").exists()
    measured = json.loads(CliRunner().invoke(main, ["eval", out, "-n", "1", "--json"]).stdout)
    assert measured["task"] == "dm_control.suite:cartpole/swingup"
    assert measured["returns"] == [report["return"]]


def test_ctrl_c_saves_a_whole_iteration(tmp_path: Path):
    """Interrupted long before a checkpoint was due, the run resumes right after the last iteration it logged."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from toolkit.cli import main; main()", *EXPERT, "--out", str(out)]
    process = subprocess.Popen([*command, "--steps", "10000000", "--eval-every", "0"], stdout=subprocess.PIPE)
    while process.poll() is None and len(read_metrics(out / "metrics.csv")) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    done = json.loads(stdout)["iterations"]
    assert len(read_metrics(out / "metrics.csv")) == done >= 3
    steps = str((done + 2) * 8 * 16)
    arguments = [*EXPERT, "--out", str(out), "--steps", steps, "--eval-every", "0", "--resume"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert [row["iteration"] for row in read_metrics(out / "metrics.csv")] == list(range(1, done + 3))
