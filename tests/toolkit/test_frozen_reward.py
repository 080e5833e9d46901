"""A frozen reward is the learned one, to the digits it was exported with, and refuses a robot it was not made for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from robots.spec import RobotSpecError
from toolkit.checkpoint import build_reward, load, load_for_export
from toolkit.cli import main
from toolkit.commands.quickstart import shipped_demos
from toolkit.frozen_reward import FrozenRewardError, load_frozen_reward

SPEC = load_robot("cartpole")
TINY = ["ppo.num_envs=8", "ppo.horizon=16", "policy.warm_start=5", "reward.segment=8", "reward.batch_steps=128",
        "threads=1", "policy.hidden=[8]", "reward.hidden=[8]"]  # fmt: skip


def gcl(*words: object) -> int:
    return CliRunner().invoke(main, [str(word) for word in words]).exit_code


def settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, *more) for word in ("--set", setting)]


@pytest.fixture(scope="module", params=["state-action", "state"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a run too short to have learned much, its run beside it."""
    folder = tmp_path_factory.mktemp("frozen")
    arguments = ["train", "--demos", shipped_demos("cartpole"), "--count", 2, "--out", folder / "run", "--steps", 256]
    more = (f"reward.inputs={request.param}", "objective=airl", "reward.alpha=0.07")
    assert gcl(*arguments, "--eval-every", 0, *settings(*more)) == 0
    write_bundle(folder / "small.bundle", load_for_export(folder / "run"))
    return folder / "small.bundle"


def test_onnx_and_run_give_the_rewards_of_the_network(bundle: Path):
    """Both ways in, on a [T, B] rollout; the ONNX file of a state-only reward takes an action and ignores it."""
    rng = torch.Generator().manual_seed(0)
    observation, action = torch.randn(5, 7, SPEC.obs_dim, generator=rng), torch.rand(5, 7, 1, generator=rng) * 2 - 1
    expected = build_reward(load(bundle.parent / "run"))(observation, action).detach()
    for path in (bundle, bundle / "reward.onnx", bundle.parent / "run"):
        learned = load_frozen_reward(path, SPEC)
        torch.testing.assert_close(learned.score(observation, action), expected, atol=1e-5, rtol=0.0)
        assert len(learned.sha256) == 64 and learned.alpha == 0.07


def test_a_policy_is_trained_on_it(bundle: Path, tmp_path: Path):
    """--objective reward from the ONNX file: the checkpoint says which it was, and alpha is that of its learning."""
    arguments = ["train", "--objective", "reward", "--robot", "cartpole", "--reward", bundle / "reward.onnx"]
    arguments += ["--steps", 256, "--eval-every", 0]
    assert gcl(*arguments, "--out", tmp_path / "again", *settings()) == 0
    assert load(tmp_path / "again").demos["reward_sha256"] == load_frozen_reward(bundle, SPEC).sha256
    assert load(tmp_path / "again").config.reward.alpha == 0.07
    assert gcl(*arguments, "--out", tmp_path / "own", *settings("reward.alpha=0.3")) == 0
    assert load(tmp_path / "own").config.reward.alpha == 0.3


@pytest.mark.parametrize("theirs", [{}, {"reward": 3}, {"reward": {}}, {"reward": {"alpha": "0.1"}}])
def test_a_reward_that_says_nothing_of_its_temperature(bundle: Path, tmp_path: Path, theirs: dict):
    """Another program's settings are in its file, or a number that is none: then nothing is made up."""
    parts = load_for_export(bundle.parent / "run")
    write_bundle(tmp_path / "other.bundle", dataclasses.replace(parts, settings=theirs))
    assert load_frozen_reward(tmp_path / "other.bundle", SPEC).alpha is None


def test_a_run_goes_on_with_the_reward_and_the_start_it_began_with(bundle: Path, tmp_path: Path):
    """A policy of another run whose normaliser begins to move is spoiled, and a reward that changes is no goal."""
    onnx, run = bundle / "reward.onnx", bundle.parent / "run"
    short = ["--objective", "reward", "--robot", "cartpole", "--eval-every", 0, "--out", tmp_path / "again",
             *settings()]  # fmt: skip
    begun = ["train", *short, "--reward", onnx, "--start", run]
    assert gcl(*begun, "--steps", 256) == 0
    for wrong, said in (
        (["--reward", onnx], "start: was "),
        (["--reward", run, "--start", run], "reward: was "),
    ):
        words = ["train", *short, *wrong, "--steps", 512, "--resume"]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 2 and "cannot resume" in result.output and said in result.output
    assert gcl(*begun, "--steps", 512, "--resume") == 0


def test_another_robots_reward_is_refused(bundle: Path):
    """Names and order of observations and actions must be the same; a variant's are."""
    with pytest.raises(RobotSpecError, match="reward of cartpole with 5 observations and 1 actions; reacher has 7"):
        load_frozen_reward(bundle, load_robot("reacher"))
    load_frozen_reward(bundle, dataclasses.replace(SPEC, name="cartpole-weak", episode_seconds=5.0))


def test_rubbish_is_refused_in_one_line(tmp_path: Path):
    """A file that is no ONNX file, and one that is not there."""
    (tmp_path / "reward.onnx").write_bytes(np.arange(99, dtype=np.uint8).tobytes())
    with pytest.raises(FrozenRewardError, match="not an ONNX file that runs"):
        load_frozen_reward(tmp_path / "reward.onnx", SPEC)
    with pytest.raises(FrozenRewardError, match="no such file"):
        load_frozen_reward(tmp_path / "other.onnx", SPEC)
