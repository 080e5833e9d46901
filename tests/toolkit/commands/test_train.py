"""`gcl train` from the command line: experts, Ctrl-C, and evaluation of what came out."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from demos.store import DemoStore
from toolkit import checkpoint
from toolkit.cli import main
from toolkit.commands.quickstart import shipped_demos
from toolkit.config import TrainConfig, with_settings
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


def test_count_takes_the_first_demos_and_says_so(tmp_path: Path):
    """--count 2 learns from two of the five, the checkpoint records it, and neither 9 nor a resume with 3 is taken."""
    demos, out = shipped_demos("cartpole"), tmp_path / "run"
    small = ["--set", "policy.warm_start=0", "--set", "reward.batch_steps=256", "--eval-every", "0", "--steps", "128"]
    learn = ["train", "--demos", str(demos), "--out", str(out), *TINY, *small]
    assert CliRunner().invoke(main, [*learn, "--count", "2"]).exit_code == 0
    saved = checkpoint.load(out)
    assert saved.demos["used"] == 2 and saved.demos["chain_sha256"] == DemoStore.open(demos).chain_sha256
    assert "count: was 2, now 3" in CliRunner().invoke(main, [*learn, "--count", "3", "--resume"]).stderr
    refused = CliRunner().invoke(main, [*learn[:4], str(tmp_path / "other"), *learn[5:], "--count", "9"])
    assert refused.exit_code == 2 and "holds 5 demos" in refused.stderr


def test_seconds_end_a_run_as_if_its_steps_were_done(tmp_path: Path):
    """The run stops at the first iteration past the limit, evaluated and saved, and is not called interrupted."""
    arguments = ["--out", str(tmp_path / "run"), "--steps", "10000000", "--seconds", "0.2", "--eval-episodes", "1"]
    result = CliRunner().invoke(main, [*EXPERT, *arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert 0.2 <= report["seconds"] < 2.0 and not report["interrupted"]
    assert report["return"] is not None and checkpoint.load(tmp_path / "run")


def test_demos_without_actions_from_training_to_a_bundle(tmp_path: Path):
    """A reward of states is learned, judged by states and exported; what needs actions says what does without."""
    store, out = str(tmp_path / "seen.zarr"), str(tmp_path / "run")
    gcl = CliRunner().invoke
    assert (
        gcl(main, ["demos", "copy", "--without-actions", str(shipped_demos("cartpole")), store, "0", "1"]).exit_code
        == 0
    )
    small = [*TINY, "--set", "reward.batch_steps=256", "--eval-every", "0", "--steps", "256", "--json", "--out", out]
    refused = gcl(main, ["train", "--demos", store, *small])
    assert refused.exit_code == 2 and "--objective gail --set reward.inputs=state does without" in refused.output
    result = gcl(main, ["train", "--demos", store, "--objective", "gail", "--set", "reward.inputs=state", *small])
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)["verdict"]
    assert verdict["compared"] == "states" and verdict["likelihood_gap"] is None
    assert "actions of the demos unknown" in gcl(main, ["verdict", out]).output
    exported = gcl(main, ["export", "--checkpoint", out, "--out", str(tmp_path / "seen.bundle")])
    assert exported.exit_code == 0, exported.output


LEARNER = [
    "train", "--demos", str(shipped_demos("cartpole")), "--json", "--eval-every", "0", *TINY,
    "--set", "policy.warm_start=0", "--set", "reward.batch_steps=256",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "FILE"], "is a file; a run is a folder"),
        (["--seed", "-1"], "seed -1; must be >= 0"),
        (["--eval-episodes", "0"], "--eval-episodes"),
        (["--eval-every", "-1"], "--eval-every"),
        (["--set", "ppo.value_weight=.nan"], "ppo.value_weight nan; must be >= 0"),
        (["--set", "ppo.clip=-1"], "ppo.clip -1.0; must be positive"),
        (["--set", "policy.warm_start=-5"], "policy.warm_start -5; must be >= 0"),
        (["--offline", "--background", "b.zarr", "--randomize"], "--randomize: --offline simulates nothing"),
    ],
)
def test_what_no_run_can_use_is_refused_in_a_sentence(tmp_path: Path, words: list[str], message: str):
    """Before demos are cloned, and without a traceback."""
    (tmp_path / "file").write_text("not a folder")
    given = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    result = CliRunner().invoke(main, [*LEARNER[:4], *given])
    assert result.exit_code == 2 and message in result.output, result.output


@pytest.mark.parametrize("setting", ["ppo.max_grad_norm=.inf", "ppo.clip=.inf", "policy.log_std_max=-1.0"])
def test_no_bound_and_a_narrow_one_are_legal(setting: str):
    """As they were: a checkpoint of such a run has to be read, too."""
    assert with_settings(TrainConfig(), [setting]) != TrainConfig()
    assert with_settings(TrainConfig(), ["reward.learning_rate=0"]).reward.learning_rate == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path):
    result = CliRunner().invoke(main, [*LEARNER, "--out", str(tmp_path / "run"), "--device", "cuda"])
    assert result.exit_code == 2 and "sees no GPU here" in result.output, result.output


def test_resume_goes_on_to_the_steps_that_the_run_was_to_have(tmp_path: Path):
    """Every schedule depends on them; more are made by saying so, fewer than there are by nothing."""
    out = str(tmp_path / "run")
    assert CliRunner().invoke(main, [*LEARNER, "--out", out, "--steps", "384"]).exit_code == 0
    said = json.loads(CliRunner().invoke(main, [*LEARNER, "--out", out, "--resume"]).stdout)
    assert (said["iterations"], said["steps"]) == (3, 384)
    longer = CliRunner().invoke(main, [*LEARNER, "--out", out, "--resume", "--steps", "512"])
    assert json.loads(longer.stdout)["steps"] == 512
    shorter = CliRunner().invoke(main, [*LEARNER, "--out", out, "--resume", "--steps", "128"])
    assert shorter.exit_code == 2 and "it has made 512 steps already" in shorter.output
