"""A bundle without a training: a policy whose actions are known, and a reward of one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from export.to_onnx import write_bundle
from robots.spec import RobotSpec


class Constant(torch.nn.Module):
    """A policy that always wants the same; and as a reward, which is given actions too, always one."""

    def __init__(self, *action: float) -> None:
        super().__init__()
        self.wanted = torch.tensor(action)  # `action` is the name of what the graph puts out

    def forward(self, observation: torch.Tensor, action: torch.Tensor | None = None) -> torch.Tensor:
        if action is not None:
            return observation.sum(-1) * 0.0 + 1.0
        return observation[:, :1] * 0.0 + self.wanted


def write_plain_bundle(path: Path, module: torch.nn.Module, spec: RobotSpec) -> Path:
    """Writes a bundle whose policy and reward are both `module`; returns its path."""
    parts: Any = SimpleNamespace(
        policy_module=module, reward_module=module, spec=spec, settings={}, demos={},
        sample_observations=np.random.default_rng(0).normal(size=(80, spec.obs_dim)),
        sample_actions=np.zeros((80, spec.act_dim)),
    )  # fmt: skip
    write_bundle(path, parts)
    return path
