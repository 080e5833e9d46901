"""`gcl eval --graded`: learned against true return, from a run alone."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from robots.robot_yaml import load_robot
from toolkit import checkpoint as checkpoints
from toolkit.cli import main
from toolkit.config import TrainConfig, with_settings
from toolkit.networks import GaussianPolicy, RewardNetwork

SPEC = load_robot("cartpole")


def gcl(*words: str | Path | int) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with networks nobody trained."""
    torch.manual_seed(0)
    config = with_settings(TrainConfig(), ["policy.hidden=[8]", "reward.hidden=[8]"])
    policy = GaussianPolicy(SPEC.obs_dim, SPEC.act_dim, (8,), (-1.2, -3.0, 0.0))
    reward = RewardNetwork(SPEC.obs_dim, SPEC.act_dim, (8,))
    state = {"trainer": {"policy": policy.state_dict(), "reward": reward.state_dict()}, "seconds": 0.0}
    sample = torch.zeros(4, SPEC.obs_dim), torch.zeros(4, SPEC.act_dim)
    folder = tmp_path / "run"
    folder.mkdir()
    checkpoints.save(
        folder / checkpoints.FILE_NAME, checkpoints.Checkpoint(SPEC, config, {"chain_sha256": "00"}, *sample, state)
    )
    return folder


def test_graded_family_is_correlated_and_drawn(run: Path):
    """JSON with both figures and every episode, also those of another run's policy, and a picture in the folder."""
    result = gcl("eval", run, "--graded", 2, "-n", 1, "--also", run, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report) == {"policy", "task", "picture", "pearson", "spearman", "episodes"}
    assert [e["family"] for e in report["episodes"]] == ["random", "weak", "run"]
    assert report["episodes"][0] == {**report["episodes"][2], "family": "random"}  # the same policy, the same episode
    assert -1.0 <= report["pearson"] <= 1.0
    assert Path(report["picture"]) == run / "correlation.png" and (run / "correlation.png").is_file()


def test_what_cannot_be_correlated_is_refused(run: Path):
    """A wrong use is one line and exit code 2."""
    assert gcl("eval", run, "--also", run).exit_code == 2
    assert gcl("eval", run, "--graded", 1).exit_code == 2
    result = gcl("eval", run / "nowhere", "--graded", 2)
    assert result.exit_code == 2 and "no checkpoint there" in result.output


@pytest.mark.parametrize("seed", [-1, -1_000_000, 2**31, 2**32, 2**70])
def test_a_seed_of_training_or_none_at_all_is_refused(run: Path, seed: int):
    """An offset that would lead back to training's seeds, or beyond those there are, is one line and exit code 2."""
    for more in ((), ("--graded", 2)):
        result = gcl("eval", run, "-n", 1, "--seed", seed, *more)
        assert result.exit_code == 2 and "0<=x<=2147483647" in result.output, result.output


def test_the_last_seed_is_one(run: Path):
    """What the help says is legal works."""
    result = gcl("eval", run, "-n", 1, "--seed", 2**31 - 1, "--json")
    assert result.exit_code == 0, result.output


def test_a_policy_is_measured_on_a_changed_robot(tmp_path: Path):
    """By the changed robot's own body and name; a robot of other terms is refused, and so is a comparison."""
    config = with_settings(TrainConfig(), ["policy.hidden=[8]"])
    walker = load_robot("walker")
    state = {
        "trainer": {"policy": GaussianPolicy(walker.obs_dim, walker.act_dim, (8,), (-1.2, -3.0, 0.0)).state_dict()}
    }
    none = torch.zeros(0, walker.obs_dim), torch.zeros(0, walker.act_dim)
    checkpoint = checkpoints.Checkpoint(walker, config, {}, *none, state | {"seconds": 0.0})
    checkpoints.save(tmp_path / checkpoints.FILE_NAME, checkpoint)
    own, long = (
        json.loads(gcl("eval", tmp_path, "-n", 1, "--json", *more).stdout) for more in ((), ("--robot", "walker-long"))
    )
    assert (own["robot"], long["robot"]) == ("walker", "walker-long") and own["returns"] != long["returns"]
    result = gcl("eval", tmp_path, "--robot", "cheetah")
    assert result.exit_code == 2 and "a policy of walker with 24 observations" in result.output
    for more in (("--graded", 2), ("--against", tmp_path)):
        result = gcl("eval", tmp_path, "--robot", "walker-long", *more)
        assert result.exit_code == 2 and "--robot" in result.output
