"""The strictest of a reward's snapshots, number by number; the same in a checkpoint, a bundle and a new run."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from toolkit.checkpoint import build_reward, load
from toolkit.cli import main
from toolkit.commands.quickstart import shipped_demos
from toolkit.export_parts import load_for_export
from toolkit.frozen_reward import load_frozen_reward
from toolkit.networks import RewardNetwork
from toolkit.strictest_reward import Snapshot, StrictestReward

TINY = ["ppo.num_envs=8", "ppo.horizon=16", "policy.warm_start=5", "reward.segment=8", "reward.batch_steps=128",
        "threads=1", "policy.hidden=[8]", "reward.hidden=[8, 6]", "reward.panel=3"]  # fmt: skip


@pytest.mark.parametrize(("state_only", "seen"), [(False, None), (True, [2, 0])])
def test_it_is_the_worst_that_a_snapshot_says_against_what_the_expert_earns_of_it(
    state_only: bool, seen: list[int] | None
):
    """In float64, over [T, B], for a reward of everything and for one that looks at little."""
    torch.manual_seed(0)
    networks = [RewardNetwork(4, 2, (5, 3), state_only, seen=seen).double() for _ in range(3)]
    for network in networks:
        network.normalizer.load_state_dict(networks[0].normalizer.state_dict())
    expert = (0.5, -0.25, 0.35)
    strictest = StrictestReward(
        networks[0], [Snapshot(network.net.state_dict(), c) for network, c in zip(networks, expert, strict=True)]
    ).double()
    observation, action = torch.randn(6, 7, 4).double(), torch.randn(6, 7, 2).double()
    said = [network(observation, action) - c for network, c in zip(networks, expert, strict=True)]
    assert len(set(torch.stack(said).argmin(0).flatten().tolist())) > 1, "one is always the strictest"
    expected = torch.stack(said).min(0).values + 0.2  # the mean of what the expert earns
    torch.testing.assert_close(strictest(observation, action), expected, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(strictest(observation[0, 0], action[0, 0]), expected[0, 0], atol=1e-12, rtol=0.0)


def test_a_constant_more_or_less_in_a_snapshot_changes_nothing_but_a_constant():
    """log Z takes up any constant, so that one of two equal rewards is not the stricter for standing lower."""
    network = RewardNetwork(4, 2, (5,)).double()
    lower = {name: x - 10.0 if name == "2.bias" else x for name, x in network.net.state_dict().items()}
    pair = StrictestReward(network, [Snapshot(network.net.state_dict(), 1.0), Snapshot(lower, -9.0)]).double()
    observation, action = torch.randn(50, 4).double(), torch.randn(50, 2).double()
    torch.testing.assert_close(pair(observation, action), network(observation, action) - 5.0, atol=1e-12, rtol=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations that keeps three snapshots."""
    out = tmp_path_factory.mktemp("panel") / "run"
    words = ["train", "--demos", shipped_demos("cartpole"), "--count", 2, "--out", out, "--steps", 6 * 128]
    words += ["--eval-every", 0, *(word for setting in TINY for word in ("--set", setting))]
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    return out


def test_a_run_keeps_them_evenly_and_ships_the_strictest(run: Path, tmp_path: Path):
    """Three different ones; the checkpoint's reward and the bundle's are the strictest and not the last of them."""
    checkpoint, spec = load(run), load_robot("cartpole")
    snapshots = checkpoint.state["trainer"]["judge"]["snapshots"]
    assert len(snapshots) == 3 and not torch.equal(*(one["net"]["0.weight"] for one in snapshots[:2]))
    reward = build_reward(checkpoint)
    assert isinstance(reward, StrictestReward)
    observation, action = torch.randn(5, 7, spec.obs_dim), torch.rand(5, 7, spec.act_dim) * 2 - 1
    expected = reward(observation, action).detach()
    assert not torch.allclose(expected, reward.reward(observation, action), atol=1e-4)
    write_bundle(tmp_path / "panel.bundle", load_for_export(run))
    for path in (tmp_path / "panel.bundle", run):
        torch.testing.assert_close(
            load_frozen_reward(path, spec).score(observation, action), expected, atol=1e-5, rtol=0.0
        )
