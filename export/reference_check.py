"""A second opinion on a bundle: onnx's own checker and reference evaluator, which share no code with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference

from export.bundle import Bundle, read_bundle
from export.metadata import contract_from_metadata, history_of
from export.onnx_guard import check_onnx
from export.parity import stack_history
from export.parity_samples import ExportError
from export.runtime import ParityError


def check_bundle(path: str | Path) -> dict[str, float]:
    """Checks a bundle by a second, independent reading: onnx's own checker, and onnx's reference evaluator.

    Args:
        path: The bundle's folder.

    Returns:
        Greatest |reference - torch| over the parity vectors, by "policy" and "reward".

    Raises:
        BundleError: The bundle is damaged.
        ExportError: onnx's checker refuses a file.
        ParityError: The reference evaluator does not compute what torch did.
    """
    bundle = read_bundle(path)
    vectors, manifest = bundle.parity, bundle.manifest
    feeds = {name: getattr(vectors, name) for name in manifest.reward_inputs}
    (rewards,) = _evaluator(bundle.reward_onnx, "reward").run(None, feeds)
    found = {
        "policy": (_actions(_evaluator(bundle.policy_onnx, "policy"), bundle), vectors.policy_action),
        "reward": (np.asarray(rewards), vectors.reward),
    }
    worst = {}
    for role, (output, expected) in found.items():
        worst[role] = float(np.abs(output.astype(np.float64) - expected).max())
        allowed = manifest.parity_tolerance
        if not worst[role] <= allowed:
            raise ParityError(
                f"{path}: {role} in onnx's reference evaluator is off by {worst[role]:.3g}, allowed {allowed:g}"
            )
    return worst


def _evaluator(raw: bytes, role: str) -> onnx.reference.ReferenceEvaluator:
    check_onnx(raw, role)
    check_model(raw, role)
    return onnx.reference.ReferenceEvaluator(onnx.load_from_string(raw))


def _actions(policy: onnx.reference.ReferenceEvaluator, bundle: Bundle) -> np.ndarray:
    """(n, act_dim) of the parity vectors; in their order where the policy remembers."""
    contract = contract_from_metadata({entry.key: entry.value for entry in policy.proto_.metadata_props}, "policy.onnx")
    history, sequence = history_of(contract, "policy.onnx"), bundle.manifest.parity_sequence
    feed = stack_history(bundle.parity.observation, history, sequence)
    shapes = {f"{name}_in": shape for name, shape in contract.get("states", {}).items()}
    if not shapes:
        (output,) = policy.run(None, {"observation": feed})
        return np.asarray(output)
    actions, states = [], {}
    for i in range(len(feed)):
        if i % sequence == 0:
            states = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
        action, *after = policy.run(None, {"observation": feed[i : i + 1], **states})
        states = dict(zip(states, after, strict=True))
        actions.append(np.asarray(action)[0])
    return np.stack(actions)


def check_model(raw: bytes, role: str) -> None:
    """Asks onnx's checker about one file's bytes; ExportError if it refuses them."""
    try:
        onnx.checker.check_model(raw, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{role}: onnx's checker refuses it: {str(error).splitlines()[0]}") from error
