"""A frozen reward is the learned one, to the digits it was exported with, and refuses a robot it was not made for."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from export.runtime import load_bundle
from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from robots.spec import RobotSpecError
from toolkit.checkpoint import CheckpointError, build_reward, load, load_policy
from toolkit.cli import main
from toolkit.commands.quickstart import shipped_demos
from toolkit.config import TrainConfig, with_settings
from toolkit.export_parts import load_for_export, samples_of
from toolkit.frozen_reward import FrozenRewardError, _alpha, load_frozen_reward
from toolkit.given_reward import constant_reward
from toolkit.run import Run
from toolkit.trainer import Trainer

SPEC = load_robot("cartpole")
TINY = ["ppo.num_envs=8", "ppo.horizon=16", "policy.warm_start=5", "reward.segment=8", "reward.batch_steps=128",
        "threads=1", "policy.hidden=[8]", "reward.hidden=[8]"]  # fmt: skip


def gcl(*words: object) -> int:
    return CliRunner().invoke(main, [str(word) for word in words]).exit_code


def settings(*more: str) -> list[str]:
    return [word for setting in (*TINY, *more) for word in ("--set", setting)]


def learned(folder: Path, inputs: str) -> Path:
    """A bundle of a run too short to have learned much, its run beside it."""
    arguments = ["train", "--demos", shipped_demos("cartpole"), "--count", 2, "--out", folder / "run", "--steps", 256]
    more = (f"reward.inputs={inputs}", "objective=airl", "reward.alpha=0.07")
    assert gcl(*arguments, "--eval-every", 0, *settings(*more)) == 0
    write_bundle(folder / "small.bundle", load_for_export(folder / "run"))
    return folder / "small.bundle"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward of states alone, the kind that is carried over."""
    return learned(tmp_path_factory.mktemp("states"), "state")


@pytest.fixture(scope="module")
def of_actions_too(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward of states and actions."""
    return learned(tmp_path_factory.mktemp("both"), "state-action")


@pytest.mark.parametrize("which", ["bundle", "of_actions_too"])
def test_onnx_and_run_give_the_rewards_of_the_network(which: str, request: pytest.FixtureRequest):
    """Both ways in, on a [T, B] rollout; the ONNX file of a state-only reward takes an action and ignores it."""
    bundle = request.getfixturevalue(which)
    rng = torch.Generator().manual_seed(0)
    observation, action = torch.randn(5, 7, SPEC.obs_dim, generator=rng), torch.rand(5, 7, 1, generator=rng) * 2 - 1
    expected = build_reward(load(bundle.parent / "run"))(observation, action).detach()
    for path in (bundle, bundle / "reward.onnx", bundle.parent / "run"):
        learned = load_frozen_reward(path, SPEC)
        torch.testing.assert_close(learned.score(observation, action), expected, atol=1e-5, rtol=0.0)
        assert len(learned.sha256) == 64 and learned.alpha == 0.07


def test_a_policy_is_trained_on_it(bundle: Path, tmp_path: Path):
    """Whoever gives one means that objective; the checkpoint says which it was, and alpha is that of its learning."""
    arguments = ["train", "--robot", "cartpole", "--reward", bundle / "reward.onnx", "--steps", 256, "--eval-every", 0]
    assert gcl(*arguments, "--out", tmp_path / "again", *settings()) == 0
    assert load(tmp_path / "again").demos["reward_sha256"] == load_frozen_reward(bundle, SPEC).sha256
    assert load(tmp_path / "again").config.reward.alpha == 0.07
    assert gcl(*arguments, "--out", tmp_path / "own", *settings("reward.alpha=0.3")) == 0
    assert load(tmp_path / "own").config.reward.alpha == 0.3
    assert load(tmp_path / "own").config.objective == "reward"
    for wrong in (["--objective", "gan-gcl", "--reward", bundle], ["--objective", "reward", "--robot", "cartpole"]):
        result = CliRunner().invoke(main, [str(word) for word in ["train", *wrong]])
        assert result.exit_code == 2 and "'reward' needs --reward, and no other takes one" in result.output


@pytest.mark.parametrize("theirs", [{}, {"reward": 3}, {"reward": {}}, {"reward": {"alpha": "0.1"}}, None])
def test_a_reward_that_says_nothing_of_its_temperature(theirs: object):
    """Another program's settings are in its file, or a number that is none: then nothing is made up."""
    assert _alpha({"settings": theirs}) is None and _alpha({}) is None
    assert _alpha({"settings": {"reward": {"alpha": 0.1}}}) == 0.1
    assert _alpha({"settings": {"reward": {"alpha": 0.1}}, "demos": {"reward_alpha": "0.2"}}) is None


def test_the_policy_goes_to_the_robot_with_the_reward_it_was_given(bundle: Path, tmp_path: Path):
    """Exported, it has the given reward, for its own robot; that bundle's reward is as good as the first one's."""
    again, shipped = tmp_path / "again", tmp_path / "again.bundle"
    words = ["train", "--robot", "cartpole", "--steps", 256, "--eval-every", 0, *settings("reward.alpha=0.3")]
    assert gcl(*words, "--reward", bundle, "--out", again) == 0
    assert gcl("export", "--checkpoint", again, "--out", shipped, "--check") == 0
    first, then = load_frozen_reward(bundle, SPEC), load_frozen_reward(shipped, SPEC)
    rng = np.random.default_rng(0)
    s, a = (torch.from_numpy(rng.normal(size=(50, n)).astype(np.float32)) for n in (SPEC.obs_dim, SPEC.act_dim))
    assert torch.equal(first.score(s, a), then.score(s, a)) and float(then.score(s, a).std()) > 0.0
    loaded, policy, _ = load_bundle(shipped)
    observation = s[0].numpy()
    np.testing.assert_allclose(policy.act(observation), load_policy(again).act(observation), atol=1e-5)
    demos = loaded.manifest.demos
    kept = load_frozen_reward(again, SPEC)
    assert kept.score.onnx == first.score.onnx  # taken as it is
    assert (first.alpha, then.alpha, kept.alpha) == (0.07, 0.07, 0.07)  # of its own learning
    assert demos["reward_sha256"] == first.sha256 and demos["learned_from"]["n_episodes"] == 5
    quantiles = loaded.manifest.reward_quantiles  # of what the policy itself does in simulation
    observations, actions = samples_of(load(again))
    np.testing.assert_allclose(actions[:20], [policy.act(o).copy() for o in observations[:20]], atol=1e-5)
    assert quantiles["0.5"] == pytest.approx(
        float(np.median(then.score(*map(torch.from_numpy, (observations, actions)))))
    )
    assert gcl("eval", again, "--against", shipped, "-n", 1) == 0
    assert gcl("eval", again, "--graded", 2) == 0
    refused = CliRunner().invoke(main, ["verdict", str(again)])
    assert refused.exit_code == 2 and "learned from no demos" in refused.output


def test_a_run_without_its_reward_is_not_exported(bundle: Path, tmp_path: Path):
    """Runs from before it was kept still act, and say why they cannot be shipped."""
    run = Trainer(SPEC, with_settings(TrainConfig(), [*TINY, "objective=reward"]), [], frozen_reward=constant_reward)
    Run(tmp_path, run, {}, []).save()
    assert load_policy(tmp_path).act(np.zeros(SPEC.obs_dim, np.float32)).shape == (SPEC.act_dim,)
    with pytest.raises(CheckpointError, match="before the given reward was kept"):
        load_for_export(tmp_path)


@pytest.mark.parametrize("objective", ["bc", "constant"])
def test_where_no_reward_is_learned_none_is_made_up(objective: str, tmp_path: Path):
    """The bundle of a clone has a reward of 0 everywhere, and nobody can learn from it or correlate it."""
    run, shipped = tmp_path / "run", tmp_path / "run.bundle"
    words = ["train", "--demos", shipped_demos("cartpole"), "--objective", objective, "--out", run, "--eval-every", 0]
    assert gcl(*words, "--steps", 256, *settings()) == 0
    result = CliRunner().invoke(main, ["export", "--checkpoint", str(run), "--out", str(shipped)])
    assert result.exit_code == 0 and "0 everywhere: objective" in result.output
    _, _, reward = load_bundle(shipped)
    assert reward.score(np.full(SPEC.obs_dim, 3.0, np.float32), np.ones(SPEC.act_dim, np.float32)) == 0.0
    with pytest.raises(CheckpointError, match=f"objective '{objective}' learns no reward"):
        load_frozen_reward(run, SPEC)
    assert gcl("eval", run, "--graded", 2) == 2


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
