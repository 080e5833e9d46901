"""A reward learned earlier, frozen: from an exported `reward.onnx`, a bundle, or a run; to train on it from scratch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robots.spec import RobotSpec, ToolkitError
from toolkit.given_reward import FrozenReward


class FrozenRewardError(ToolkitError):
    """A reward that cannot be used for this robot."""


def load_frozen_reward(path: Path, spec: RobotSpec) -> tuple[FrozenReward, str]:
    """Loads a learned reward.

    Args:
        path: `reward.onnx`, a bundle, a run folder or a checkpoint.
        spec: The robot to be trained; it must have the observation and action the reward was learned for, but may
            otherwise be another one: that is what a transfer asks.

    Returns:
        The reward, and the SHA-256 of the file it came from.

    Raises:
        ToolkitError: Nothing usable there, or a reward of other sizes or of other observations.
    """
    if path.suffix == ".bundle" or (path / "bundle.json").is_file():
        path = path / "reward.onnx"
    if path.suffix == ".onnx":
        return _from_onnx(path, spec), _sha256(path)
    from toolkit.checkpoint import FILE_NAME, build_reward, load, require_accepted

    checkpoint = load(path)
    require_accepted(path, checkpoint)
    checkpoint.spec.require_same_names(spec, f"{path}: a reward")
    reward = build_reward(checkpoint).requires_grad_(False)
    return reward, _sha256(path / FILE_NAME if path.is_dir() else path)


def _from_onnx(path: Path, spec: RobotSpec) -> FrozenReward:
    import onnxruntime

    from export.metadata import spec_from_metadata
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
    learned = spec_from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    learned.require_same_names(spec, f"{path}: a reward")
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

    return reward


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
