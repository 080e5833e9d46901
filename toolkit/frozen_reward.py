"""A reward learned earlier, frozen: from an exported `reward.onnx`, a bundle, or a run; to train on it from scratch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robots.spec import RobotSpec, ToolkitError
from toolkit.exported_reward import ExportedReward


class FrozenRewardError(ToolkitError):
    """A reward that cannot be used for this robot."""


@dataclass(frozen=True)
class LearnedReward:
    """A frozen reward, and what a policy that learns from it has to know of its making."""

    score: ExportedReward
    alpha: float | None
    """Temperature it was learned at: to it the demos are a policy that maximises E[r] + alpha H; None if not known."""
    demos: dict[str, Any]
    """Identity of the demos it was learned from, for the record."""
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
        ToolkitError: Nothing usable there, no learned reward, one of other sizes or of other observations, or one that
            does not know what an end is worth where the robot's tasks end.
    """
    if path.suffix == ".bundle" or (path / "bundle.json").is_file():
        path = path / "reward.onnx"
    if path.suffix == ".onnx":
        if not path.is_file():
            raise FrozenRewardError(f"{path}: no such file; expected an exported reward.onnx")
        raw = path.read_bytes()
        return _from_onnx(raw, path, hashlib.sha256(raw).hexdigest(), spec)
    from export.to_onnx import reward_to_onnx
    from toolkit.checkpoint import FILE_NAME, build_reward, load, require_reward
    from toolkit.export_parts import parts_of

    checkpoint = load(path)
    require_reward(path, checkpoint)
    checkpoint.spec.require_same_names(spec, f"{path}: a reward")
    file = path / FILE_NAME if path.is_dir() else path
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    reward = build_reward(checkpoint)
    raw = reward.onnx if isinstance(reward, ExportedReward) else reward_to_onnx(parts_of(checkpoint))
    return _from_onnx(raw, path, sha256, spec)


def _from_onnx(raw: bytes, path: Path, sha256: str, spec: RobotSpec) -> LearnedReward:
    from export.metadata import contract_from_metadata, spec_of

    try:
        reward = ExportedReward(raw)
    except Exception as error:  # onnxruntime's own exceptions share no public base
        raise FrozenRewardError(f"{path}: not an ONNX file that runs: {' '.join(str(error).split())[:200]}") from error
    contract = contract_from_metadata(reward.session.get_modelmeta().custom_metadata_map, str(path))
    spec_of(contract, str(path)).require_same_names(spec, f"{path}: a reward")
    if spec.terminate and reward.absorbing is None:
        raise FrozenRewardError(
            f"{path}: learned where no task ends, so it does not say what an end is worth, and {spec.name} has "
            "`terminate` in its robot.yaml; take that out, or learn the reward with it"
        )
    names = [node.name for node in reward.session.get_inputs()]
    if names != ["observation", "action"]:
        raise FrozenRewardError(f"{path}: takes {names}; a reward takes ['observation', 'action']")
    return LearnedReward(reward, _alpha(contract), dict(contract.get("demos") or {}), sha256)


def _alpha(contract: Mapping[str, Any]) -> float | None:
    """Of the reward's own learning; the settings in the file may be another program's, which say nothing of it."""
    demos, settings = contract.get("demos"), contract.get("settings")
    reward = settings.get("reward") if isinstance(settings, dict) else None
    alpha = reward.get("alpha") if isinstance(reward, dict) else None
    if isinstance(demos, dict) and "reward_alpha" in demos:  # the settings are those of a policy that was given it
        alpha = demos["reward_alpha"]
    return alpha if isinstance(alpha, float) else None
