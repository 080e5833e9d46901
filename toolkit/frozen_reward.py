"""A reward learned earlier, frozen: from an exported `reward.onnx`, a bundle, or a run; to train on it from scratch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robots.spec import RobotSpec, ToolkitError
from toolkit.given_reward import FrozenReward


class FrozenRewardError(ToolkitError):
    """A reward that cannot be used for this robot."""


@dataclass(frozen=True)
class LearnedReward:
    """A frozen reward, and what a policy that learns from it has to know of its making."""

    score: FrozenReward
    alpha: float | None
    """Temperature it was learned at: to it the demos are a policy that maximises E[r] + alpha H; None if not known."""
    sha256: str
    """Of the file it came from."""


def load_frozen_reward(path: Path, spec: RobotSpec) -> LearnedReward:
    """Loads a learned reward.

    Args:
        path: `reward.onnx`, a bundle, a run folder or a checkpoint.
        spec: The robot to be trained; it must have the observation and action the reward was learned for, but may
            otherwise be another one: that is what a transfer asks.

    Returns:
        The reward.

    Raises:
        ToolkitError: Nothing usable there, or a reward of other sizes or of other observations.
    """
    if path.suffix == ".bundle" or (path / "bundle.json").is_file():
        path = path / "reward.onnx"
    if path.suffix == ".onnx":
        return _from_onnx(path, spec)
    from toolkit.checkpoint import FILE_NAME, build_reward, load, require_accepted

    checkpoint = load(path)
    require_accepted(path, checkpoint)
    checkpoint.spec.require_same_names(spec, f"{path}: a reward")
    reward = build_reward(checkpoint).requires_grad_(False)
    file = path / FILE_NAME if path.is_dir() else path
    return LearnedReward(reward, checkpoint.config.reward.alpha, _sha256(file.read_bytes()))


def _from_onnx(path: Path, spec: RobotSpec) -> LearnedReward:
    import onnxruntime

    from export.metadata import contract_from_metadata, spec_of
    from export.onnx_guard import check_onnx

    if not path.is_file():
        raise FrozenRewardError(f"{path}: no such file; expected an exported reward.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        raw = path.read_bytes()
        check_onnx(raw, path.name)
        session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise FrozenRewardError(f"{path}: not an ONNX file that runs: {' '.join(str(error).split())[:200]}") from error
    contract = contract_from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    spec_of(contract, str(path)).require_same_names(spec, f"{path}: a reward")
    names = [node.name for node in session.get_inputs()]
    if names != ["observation", "action"]:
        raise FrozenRewardError(f"{path}: takes {names}; a reward takes ['observation', 'action']")

    def reward(observation: Tensor, action: Tensor) -> Tensor:
        feeds = {
            name: np.ascontiguousarray(x.detach().cpu().numpy().reshape(-1, x.shape[-1]), dtype=np.float32)
            for name, x in (("observation", observation), ("action", action))
        }
        (scores,) = session.run(None, feeds)
        return torch.from_numpy(np.asarray(scores)).reshape(observation.shape[:-1]).to(observation.device)

    return LearnedReward(reward, _alpha(contract), _sha256(raw))


def _alpha(contract: Mapping[str, Any]) -> float | None:
    """Of the settings in the file; they may be another program's, which says nothing of it."""
    settings = contract.get("settings")
    reward = settings.get("reward") if isinstance(settings, dict) else None
    alpha = reward.get("alpha") if isinstance(reward, dict) else None
    return alpha if isinstance(alpha, float) else None


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
