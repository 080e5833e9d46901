"""The mean of a reward's snapshots: their mean, number by number; the same in a checkpoint, a bundle and a new run."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from toolkit.checkpoint import build_reward, load, load_for_export
from toolkit.cli import main
from toolkit.commands.quickstart import shipped_demos
from toolkit.frozen_reward import load_frozen_reward
from toolkit.mean_reward import MeanReward
from toolkit.networks import RewardNetwork

TINY = ["ppo.num_envs=8", "ppo.horizon=16", "policy.warm_start=5", "reward.segment=8", "reward.batch_steps=128",
        "threads=1", "policy.hidden=[8]", "reward.hidden=[8, 6]", "reward.average=3"]  # fmt: skip


@pytest.mark.parametrize(("state_only", "seen"), [(False, None), (True, [2, 0])])
def test_it_is_the_mean_of_what_each_snapshot_says(state_only: bool, seen: list[int] | None):
    """In float64, over [T, B], for a reward of everything and for one that looks at little."""
    networks = [RewardNetwork(4, 2, (5, 3), state_only, seen=seen).double() for _ in range(3)]
    for network in networks:
        network.normalizer.load_state_dict(networks[0].normalizer.state_dict())
    mean = MeanReward(networks[0], [network.net.state_dict() for network in networks]).double()
    observation, action = torch.randn(6, 7, 4).double(), torch.randn(6, 7, 2).double()
    expected = torch.stack([network(observation, action) for network in networks]).mean(0)
    torch.testing.assert_close(mean(observation, action), expected, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(mean(observation[0, 0], action[0, 0]), expected[0, 0], atol=1e-12, rtol=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations that keeps three snapshots."""
    out = tmp_path_factory.mktemp("mean") / "run"
    words = ["train", "--demos", shipped_demos("cartpole"), "--count", 2, "--out", out, "--steps", 6 * 128]
    words += ["--eval-every", 0, *(word for setting in TINY for word in ("--set", setting))]
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    return out


def test_a_run_keeps_them_evenly_and_ships_their_mean(run: Path, tmp_path: Path):
    """Three different ones; the checkpoint's reward and the bundle's are their mean and not the last of them."""
    checkpoint, spec = load(run), load_robot("cartpole")
    snapshots = checkpoint.state["trainer"]["judge"]["snapshots"]
    assert len(snapshots) == 3 and not torch.equal(snapshots[0]["0.weight"], snapshots[1]["0.weight"])
    reward = build_reward(checkpoint)
    assert isinstance(reward, MeanReward)
    observation, action = torch.randn(5, 7, spec.obs_dim), torch.rand(5, 7, spec.act_dim) * 2 - 1
    expected = reward(observation, action).detach()
    assert not torch.allclose(expected, reward.reward(observation, action), atol=1e-4)
    write_bundle(tmp_path / "mean.bundle", load_for_export(run))
    for path in (tmp_path / "mean.bundle", run):
        torch.testing.assert_close(
            load_frozen_reward(path, spec)[0](observation, action), expected, atol=1e-5, rtol=0.0
        )
