"""A run folder of the cartpole with networks nobody trained."""

from pathlib import Path

import torch

from robots.robot_yaml import load_robot
from toolkit import checkpoint as checkpoints
from toolkit.checkpoint import Checkpoint
from toolkit.config import TrainConfig, with_settings
from toolkit.networks import GaussianPolicy, RewardNetwork

SPEC = load_robot("cartpole")


def saved(folder: Path, seed: int) -> Checkpoint:
    """Writes the folder; the networks follow from the seed."""
    torch.manual_seed(seed)
    config = with_settings(TrainConfig(), ["policy.hidden=[8]", "reward.hidden=[8]"])
    policy = GaussianPolicy(SPEC.obs_dim, SPEC.act_dim, (8,), (-1.2, -3.0, 0.0))
    with torch.no_grad():  # fresh ones hardly move
        for parameter in policy.mean_net.parameters():
            parameter.mul_(30)
    reward = RewardNetwork(SPEC.obs_dim, SPEC.act_dim, (8,))
    state = {"trainer": {"policy": policy.state_dict(), "reward": reward.state_dict()}, "seconds": 0.0}
    sample = torch.randn(100, SPEC.obs_dim), torch.rand(100, SPEC.act_dim)
    checkpoint = Checkpoint(SPEC, config, {"chain_sha256": "00"}, *sample, state)
    folder.mkdir(exist_ok=True)
    checkpoints.save(folder / checkpoints.FILE_NAME, checkpoint)
    return checkpoint
