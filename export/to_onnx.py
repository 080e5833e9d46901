"""Torch to ONNX: exports policy and reward, proves that ONNX Runtime computes what torch does, and writes the bundle.

With `parity_samples`, `to_variants` and `reference_check` it does not run on the robot: they import torch or onnx. The
modules are handed in, so it need not know the trainer.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
import torch

from export.bundle import refuse_foreign, write_bundle_folder
from export.manifest import BundleManifest, VariantRecord, action_facts, variant_file
from export.metadata import PolicyMemory, policy_metadata, reward_metadata
from export.parity import pack_parity
from export.parity_samples import (
    MEMORY_SEQUENCE,
    ExportError,
    checked_samples,
    frozen,
    memory_of,
    parity_vectors,
    reward_quantiles,
)
from export.reference_check import check_model
from export.runtime import OnnxPolicy, OnnxReward, ParityErrors, check_parity, parity_errors
from export.to_variants import make_variants
from robots.spec import RobotSpec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPSET = 18
TOLERANCE = 1e-5  # greatest |onnx - torch|
IR_VERSION = 8  # what opset 18 came with: read by ONNX Runtime 1.14 and later


class ExportParts(Protocol):
    """What a bundle is made of; whatever has these attributes will do."""

    @property
    def policy_module(self) -> torch.nn.Module:
        """observation [batch, obs_dim] -> action [batch, act_dim] in [-1, 1], normaliser and clip inside.

        With an attribute `history` = H it takes [batch, H * obs_dim]: the last H observations, oldest first. With an
        attribute `state_dims` = {"h": (layers, width), ...} it takes and returns states [layers, batch, width] as well:
        observation, h, ... -> action, h, ...
        """
        ...

    @property
    def reward_module(self) -> torch.nn.Module:
        """observation, action -> reward [batch]; with a true attribute `uses_next_observation`, of three inputs.

        In that case the parts have a further attribute, `sample_next_observations` (N, obs_dim). With an attribute
        `onnx` it is the bytes of an ONNX file already, whose graph is taken over as it is; with an attribute
        `absorbing`, (), it says what each step after the end of a task is worth.
        """
        ...

    @property
    def spec(self) -> RobotSpec:
        """The robot."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Training settings, JSON-ready."""
        ...

    @property
    def demos(self) -> dict[str, Any]:
        """Identity of the demo store: chain_sha256, n_episodes, spec_sha256."""
        ...

    @property
    def sample_observations(self) -> np.ndarray:
        """(N, obs_dim) steps of the demos, or of what stands for them; all of them make the reward's quantiles."""
        ...

    @property
    def sample_actions(self) -> np.ndarray:
        """(N, act_dim) the actions of the same steps."""
        ...


@dataclass(frozen=True)
class BundleReport:
    """What `write_bundle` wrote and measured."""

    path: Path
    parity_vectors: int
    max_abs_policy: float  # greatest |onnx - torch| over the parity vectors
    max_abs_reward: float  # the same for the reward
    tolerance: float
    reward_quantiles: dict[str, float]  # of the demos' per-step reward, by probability
    sizes: dict[str, int]  # [byte] by file name
    variants: dict[str, VariantRecord] = field(default_factory=dict)  # smaller copies of the policy, and their errors
    key_id: str | None = None  # of the key it was signed with


def write_bundle(
    path: str | Path,
    parts: ExportParts,
    tolerance: float = TOLERANCE,
    variants: Mapping[str, float | None] | None = None,
    key: Ed25519PrivateKey | None = None,
) -> BundleReport:
    """Exports policy and reward, compares them with torch, and writes the bundle: whole and proven, or not at all.

    Args:
        path: The folder to make, by custom `<name>.bundle`. A bundle already there is replaced at the very end.
        parts: Networks, robot and demo samples; the networks are copied, not changed.
        tolerance: Greatest |onnx - torch| allowed.
        variants: Smaller copies of the policy to add, each with its own greatest |variant - torch|, None for the usual.
        key: Signs the bundle; None leaves it unsigned.

    Returns:
        What was written and measured.

    Raises:
        ExportError: A module or a sample has a wrong shape, a number that is not finite, or an action beyond [-1, 1];
            or a variant is too far from torch.
        ParityError: ONNX Runtime does not compute what torch does.
        BundleError: `path` is something else than a bundle, or cannot be written.
    """
    refuse_foreign(path)
    spec = parts.spec
    policy, reward = frozen(parts.policy_module), frozen(parts.reward_module)
    memory, samples = memory_of(policy), checked_samples(parts)
    vectors = parity_vectors(policy, reward, samples, spec)
    inputs, sequence = tuple(samples), 1 if memory == PolicyMemory() else MEMORY_SEQUENCE
    facts = _facts(parts, reward, samples, tolerance)
    policy_onnx = _to_onnx(policy, "policy", ("observation",), spec, policy_metadata(spec, facts, memory), memory)
    reward_onnx = _reward_onnx(reward, inputs, spec, facts)
    errors = parity_errors(OnnxPolicy(policy_onnx), OnnxReward(reward_onnx), vectors, sequence)
    check_parity(errors, tolerance, str(path))
    contents = {"policy.onnx": policy_onnx, "reward.onnx": reward_onnx, "parity.npz": pack_parity(vectors)}
    smaller = make_variants(policy_onnx, vectors, sequence, variants or {})
    contents |= {variant_file(name): raw for name, (raw, _) in smaller.items()}
    facts |= {
        "parity_vectors": len(vectors.observation), "parity_sequence": sequence, "reward_inputs": inputs,
        "variants": {name: record for name, (_, record) in smaller.items()},
    }  # fmt: skip
    manifest = write_bundle_folder(path, _manifest(spec, facts, errors), contents, key)
    return _report(Path(path), manifest, key)


def reward_to_onnx(parts: ExportParts) -> bytes:
    """The reward alone, as it would be in the bundle.

    Args:
        parts: As for `write_bundle`.

    Returns:
        The file's bytes.

    Raises:
        ExportError: As `write_bundle`.
    """
    reward, samples = frozen(parts.reward_module), checked_samples(parts)
    inputs, facts = tuple(samples), _facts(parts, reward, samples, TOLERANCE)
    return _reward_onnx(reward, inputs, parts.spec, facts)


def _reward_onnx(reward: torch.nn.Module, inputs: tuple[str, ...], spec: RobotSpec, facts: dict[str, Any]) -> bytes:
    absorbing = getattr(reward, "absorbing", None)
    after = None if absorbing is None else float(absorbing.detach())
    return _to_onnx(reward, "reward", inputs, spec, reward_metadata(spec, inputs, facts, after))


def _facts(
    parts: ExportParts, reward: torch.nn.Module, samples: dict[str, np.ndarray], tolerance: float
) -> dict[str, Any]:
    """What manifest and metadata both say."""
    return {
        "settings": _as_json(parts.settings, "settings"), "demos": _as_json(parts.demos, "demos"),
        "parity_tolerance": tolerance, "reward_quantiles": reward_quantiles(reward, samples), "versions": _versions(),
    }  # fmt: skip


def _manifest(spec: RobotSpec, facts: dict[str, Any], errors: ParityErrors) -> BundleManifest:
    control_dt, names, units, scale, offset = action_facts(spec)
    return BundleManifest(
        created_utc=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        spec=spec.to_dict(),
        spec_sha256=spec.sha256,
        control_dt=control_dt,
        action_names=names,
        action_units=units,
        action_scale=scale,
        action_offset=offset,
        parity_max_abs={"policy": errors.policy, "reward": errors.reward},
        **facts,
    )


def _report(path: Path, manifest: BundleManifest, key: Ed25519PrivateKey | None) -> BundleReport:
    from export.signature import public_key_of

    return BundleReport(
        path=path,
        parity_vectors=manifest.parity_vectors,
        max_abs_policy=manifest.parity_max_abs["policy"],
        max_abs_reward=manifest.parity_max_abs["reward"],
        tolerance=manifest.parity_tolerance,
        reward_quantiles=manifest.reward_quantiles,
        sizes={name: record.size for name, record in manifest.files.items()},
        variants=manifest.variants,
        key_id=None if key is None else public_key_of(key).key_id,
    )


def _to_onnx(
    module: torch.nn.Module,
    role: str,
    inputs: tuple[str, ...],
    spec: RobotSpec,
    metadata: dict[str, str],
    memory: PolicyMemory | None = None,
) -> bytes:
    """One ONNX file's bytes: dynamic batch, no external data, nothing of this machine inside."""
    already = getattr(module, "onnx", None)
    model = _traced(module, role, inputs, spec, memory or PolicyMemory()) if already is None else _parsed(already)
    _strip_traces(model)
    model.ir_version = IR_VERSION
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    raw = model.SerializeToString(deterministic=True)
    check_model(raw, role)
    return raw


def _parsed(raw: bytes) -> onnx.ModelProto:
    model = onnx.load_from_string(raw)
    if (came := {entry.domain: entry.version for entry in model.opset_import}) != {"": OPSET}:
        raise ExportError(f"the reward's ONNX file has operators {came}; expected those of opset {OPSET}")
    return model


def _traced(
    module: torch.nn.Module, role: str, inputs: tuple[str, ...], spec: RobotSpec, memory: PolicyMemory
) -> onnx.ModelProto:
    widths = [spec.act_dim if name == "action" else spec.obs_dim * memory.history for name in inputs]
    example = (
        *(torch.zeros(2, width) for width in widths),
        *(torch.zeros(layers, 2, width) for layers, width in memory.states.values()),
    )
    batch = torch.export.Dim("batch")
    shapes: tuple[Any, ...] = (*({0: batch} for _ in inputs), *({1: batch} for _ in memory.states))
    if memory.states:
        module, shapes = _Positional(module), (shapes,)
    given = [*inputs, *(f"{name}_in" for name in memory.states)]
    made = ["action" if role == "policy" else "reward", *(f"{name}_out" for name in memory.states)]
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, example, dynamo=True, opset_version=OPSET, input_names=given, output_names=made,
                dynamic_shapes=shapes, external_data=False, verbose=False,
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"{role} cannot be written as ONNX: {reason}") from error
    finally:
        log.setLevel(level)
    assert program is not None
    return program.model_proto


class _Positional(torch.nn.Module):
    """A recurrent policy with one signature, whether its own names the states or takes any number of them."""

    def __init__(self, policy: torch.nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.policy(*inputs)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Takes out torch's stack traces: they hold paths of the training machine and differ between exports."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def _as_json(data: dict[str, Any], what: str) -> dict[str, Any]:
    """The data as it will be read back, so that what is written twice (manifest, metadata) is the same twice."""
    try:
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"{what} cannot be written as JSON: {error}; legal are finite numbers, text, lists, mappings"
        ) from error


def _versions() -> dict[str, str]:
    import onnxruntime

    try:
        own = importlib.metadata.version("gcl-toolkit")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"  # run from a checkout that was not installed
    return {
        "gcl-toolkit": own, "torch": torch.__version__, "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__, "numpy": np.__version__,
    }  # fmt: skip
