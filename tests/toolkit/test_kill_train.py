"""`kill -9` of a real training process, then --resume: the numbers of a run that was never interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from demos.episode import Episode
from demos.store import DemoStore
from robots.robot_yaml import load_robot
from toolkit.checkpoint import FILE_NAME
from toolkit.metrics import read_metrics

SETTINGS = [
    "threads=1", "checkpoint_every=3", "ppo.num_envs=16", "ppo.horizon=32", "policy.hidden=[16]", "reward.hidden=[16]",
    "reward.segment=16", "reward.batch_steps=512", "policy.warm_start=20", "ppo.head_start=2",
]  # fmt: skip
ITERATIONS = 40


def gcl_train(demos: Path, out: Path, *more: str) -> list[str]:
    settings = [argument for setting in SETTINGS for argument in ("--set", setting)]
    code = "from toolkit.cli import main; main()"
    steps = str(ITERATIONS * 16 * 32)
    return [
        sys.executable, "-c", code, "train", "--demos", str(demos), "--out", str(out), "--steps", steps,
        "--eval-every", "0", "--json", *settings, *more,
    ]  # fmt: skip


def numbers(run: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(run / "metrics.csv")]
    state = torch.load(run / FILE_NAME, weights_only=True)["state"]["trainer"]
    tensors = {f"{part}.{k}": v for part in ("policy", "value", "reward") for k, v in state[part].items()}
    return rows, tensors | {f"sim.{k}": v for k, v in state["sim"].items() if isinstance(v, torch.Tensor)}


def make_demos(path: Path) -> Path:
    spec, rng = load_robot("cartpole"), np.random.default_rng(0)
    store = DemoStore.create(path, spec)
    for _ in range(2):
        store.append(
            Episode(
                observations=rng.normal(size=(201, spec.obs_dim)).astype(np.float32),
                actions=rng.uniform(-1, 1, (200, spec.act_dim)).astype(np.float32),
                timestamps=np.arange(201) * spec.control_dt,
                ended_by="truncation",
            )
        )
    store.close()
    return path


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path):
    """Killed three times at different iterations, the run ends with the same metrics, networks and simulator state."""
    demos = make_demos(tmp_path / "demos.zarr")
    subprocess.run(gcl_train(demos, tmp_path / "whole"), check=True, capture_output=True)
    interrupted, kills = tmp_path / "interrupted", 0
    for stop_after in (4, 13, 26):
        resume = ["--resume"] if kills else []
        process = subprocess.Popen(gcl_train(demos, interrupted, *resume), stdout=subprocess.DEVNULL)
        while process.poll() is None:
            rows = read_metrics(interrupted / "metrics.csv")
            if rows and rows[-1]["iteration"] >= stop_after and (interrupted / FILE_NAME).exists():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        kills += 1
    subprocess.run(gcl_train(demos, interrupted, "--resume"), check=True, capture_output=True)
    (rows, tensors), (expected_rows, expected_tensors) = numbers(interrupted), numbers(tmp_path / "whole")
    assert len(rows) == ITERATIONS
    assert rows == expected_rows
    assert tensors.keys() == expected_tensors.keys()
    assert all(torch.equal(tensors[name], value) for name, value in expected_tensors.items())
