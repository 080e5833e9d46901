"""Torch to ONNX: exports policy and reward, proves that ONNX Runtime computes what torch does, and writes the bundle.

The only file of this folder that imports torch or onnx. The modules are handed in, so it need not know the trainer.
"""

from __future__ import annotations

import copy
import datetime
import importlib.metadata
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx.reference
import torch

from export.bundle import read_bundle, refuse_foreign, write_bundle_folder
from export.manifest import REWARD_PROBABILITIES, BundleManifest, action_facts
from export.metadata import policy_metadata, reward_metadata
from export.parity import ParityVectors, pack_parity
from export.runtime import OnnxPolicy, OnnxReward, ParityError, ParityErrors, check_parity, parity_errors
from robots.spec import RobotSpec, ToolkitError

OPSET = 18
IR_VERSION = 8  # what opset 18 came with: read by ONNX Runtime 1.14 and later
_MAX_REAL = 128  # demo steps among the parity vectors
_RANDOM = 64  # random vectors, within 5 sigma of the demos


class ExportError(ToolkitError):
    """A policy or reward that cannot be made into a bundle."""


class ExportParts(Protocol):
    """What a bundle is made of; whatever has these attributes will do."""

    @property
    def policy_module(self) -> torch.nn.Module:
        """observation [batch, obs_dim] -> action [batch, act_dim] in [-1, 1], normaliser and clip inside."""
        ...

    @property
    def reward_module(self) -> torch.nn.Module:
        """observation, action -> reward [batch]; with a true attribute `uses_next_observation`, of three inputs.

        In that case the parts have a further attribute, `sample_next_observations` (N, obs_dim).
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
        """(N, obs_dim) steps of the demos; all of them make the reward's quantiles."""
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


def write_bundle(path: str | Path, parts: ExportParts, tolerance: float = 1e-5) -> BundleReport:
    """Exports policy and reward, compares them with torch, and writes the bundle: whole and proven, or not at all.

    Args:
        path: The folder to make, by custom `<name>.bundle`. A bundle already there is replaced at the very end.
        parts: Networks, robot and demo samples; the networks are copied, not changed.
        tolerance: Greatest |onnx - torch| allowed.

    Returns:
        What was written and measured.

    Raises:
        ExportError: A module or a sample has a wrong shape, a number that is not finite, or an action beyond [-1, 1].
        ParityError: ONNX Runtime does not compute what torch does.
        BundleError: `path` is something else than a bundle, or cannot be written.
    """
    refuse_foreign(path)
    spec = parts.spec
    policy, reward = _frozen(parts.policy_module), _frozen(parts.reward_module)
    samples = _checked_samples(parts)
    vectors = _parity_vectors(policy, reward, samples, spec)
    inputs = tuple(samples)
    facts = {
        "settings": _as_json(parts.settings, "settings"), "demos": _as_json(parts.demos, "demos"),
        "parity_tolerance": tolerance, "reward_quantiles": _reward_quantiles(reward, samples), "versions": _versions(),
    }  # fmt: skip
    policy_onnx = _to_onnx(policy, "policy", ("observation",), spec, policy_metadata(spec, facts))
    reward_onnx = _to_onnx(reward, "reward", inputs, spec, reward_metadata(spec, inputs, facts))
    errors = parity_errors(OnnxPolicy(policy_onnx), OnnxReward(reward_onnx), vectors)
    check_parity(errors, tolerance, str(path))
    contents = {"policy.onnx": policy_onnx, "reward.onnx": reward_onnx, "parity.npz": pack_parity(vectors)}
    manifest = _manifest(spec, inputs, facts, errors, len(vectors.observation))
    return _report(Path(path), write_bundle_folder(path, manifest, contents))


def _manifest(
    spec: RobotSpec, inputs: tuple[str, ...], facts: dict[str, Any], errors: ParityErrors, vectors: int
) -> BundleManifest:
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
        parity_vectors=vectors,
        reward_inputs=inputs,
        **facts,
    )


def _report(path: Path, manifest: BundleManifest) -> BundleReport:
    return BundleReport(
        path=path,
        parity_vectors=manifest.parity_vectors,
        max_abs_policy=manifest.parity_max_abs["policy"],
        max_abs_reward=manifest.parity_max_abs["reward"],
        tolerance=manifest.parity_tolerance,
        reward_quantiles=manifest.reward_quantiles,
        sizes={name: record.size for name, record in manifest.files.items()},
    )


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
    vectors = bundle.parity
    feeds = {name: getattr(vectors, name) for name in bundle.manifest.reward_inputs}
    worst = {}
    for role, raw, feed, expected in (
        ("policy", bundle.policy_onnx, {"observation": vectors.observation}, vectors.policy_action),
        ("reward", bundle.reward_onnx, feeds, vectors.reward),
    ):
        _check_model(raw, role)
        (output,) = onnx.reference.ReferenceEvaluator(onnx.load_from_string(raw)).run(None, feed)
        worst[role] = float(np.abs(np.asarray(output, dtype=np.float64) - expected).max())
        allowed = bundle.manifest.parity_tolerance
        if not worst[role] <= allowed:
            raise ParityError(
                f"{path}: {role} in onnx's reference evaluator is off by {worst[role]:.3g}, allowed {allowed:g}"
            )
    return worst


def _frozen(module: torch.nn.Module) -> torch.nn.Module:
    """A copy in evaluation mode, float32, on the CPU: exporting must not change what the trainer goes on with."""
    return copy.deepcopy(module).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)


def _checked_samples(parts: ExportParts) -> dict[str, np.ndarray]:
    """The reward's inputs by name, in its order."""
    given: dict[str, Any] = {"observation": parts.sample_observations, "action": parts.sample_actions}
    if getattr(parts.reward_module, "uses_next_observation", False):
        given["next_observation"] = getattr(parts, "sample_next_observations", None)
    spec, n = parts.spec, max(len(parts.sample_observations), 1)
    checked = {}
    for name, value in given.items():
        width = spec.act_dim if name == "action" else spec.obs_dim
        array = np.ascontiguousarray([] if value is None else value, dtype=np.float32)
        if array.shape != (n, width):
            raise ExportError(f"sample {name} has shape {array.shape}, expected ({n}, {width}) for {spec.name}")
        if not np.isfinite(array).all():
            raise ExportError(f"sample {name} holds NaN or infinity; legal are finite numbers")
        checked[name] = array
    return checked


def _parity_vectors(
    policy: torch.nn.Module, reward: torch.nn.Module, samples: dict[str, np.ndarray], spec: RobotSpec
) -> ParityVectors:
    """Demo steps, random ones within 5 sigma, and zeros: zeros alone pass by coincidence, demos alone are tame."""
    rng = np.random.default_rng(0)
    rows = np.unique(np.linspace(0, len(samples["observation"]) - 1, _MAX_REAL).round().astype(int))
    feeds = {}
    for name, array in samples.items():
        wide = array.mean(0, dtype=np.float64) + array.std(0, dtype=np.float64) * rng.uniform(
            -5, 5, (_RANDOM, array.shape[1])
        )
        random = rng.uniform(-1, 1, wide.shape) if name == "action" else wide
        feeds[name] = np.concatenate([array[rows], random, np.zeros((1, array.shape[1]))]).astype(np.float32)
    action = _run(policy, [feeds["observation"]], (len(feeds["observation"]), spec.act_dim), "policy")
    if np.abs(action).max() > 1.0:
        raise ExportError(
            f"policy put out an action of {np.abs(action).max():g}; legal is [-1, 1]: clip inside the module"
        )
    return ParityVectors(
        policy_action=action, reward=_run(reward, list(feeds.values()), (len(action),), "reward"), **feeds
    )


def _run(module: torch.nn.Module, feeds: list[np.ndarray], shape: tuple[int, ...], role: str) -> np.ndarray:
    try:
        with torch.inference_mode():
            output = module(*[torch.from_numpy(feed) for feed in feeds]).numpy()
    except RuntimeError as error:  # torch's word for a shape that does not fit
        raise ExportError(
            f"{role} fails on inputs of shapes {[f.shape for f in feeds]}: {' '.join(str(error).split())}"
        ) from error
    if output.shape != shape:
        raise ExportError(f"{role} put out shape {output.shape}, expected {shape}")
    if not np.isfinite(output).all():
        raise ExportError(
            f"{role} put out NaN or infinity for {int((~np.isfinite(output)).sum())} numbers; legal are finite ones"
        )
    return output.astype(np.float32)


def _reward_quantiles(reward: torch.nn.Module, samples: dict[str, np.ndarray]) -> dict[str, float]:
    scores = _run(reward, list(samples.values()), (len(samples["observation"]),), "reward").astype(np.float64)
    return {
        str(p): float(q) for p, q in zip(REWARD_PROBABILITIES, np.quantile(scores, REWARD_PROBABILITIES), strict=True)
    }


def _to_onnx(
    module: torch.nn.Module, role: str, inputs: tuple[str, ...], spec: RobotSpec, metadata: dict[str, str]
) -> bytes:
    """One ONNX file's bytes: dynamic batch, no external data, nothing of this machine inside."""
    example = tuple(torch.zeros(2, spec.act_dim if name == "action" else spec.obs_dim) for name in inputs)
    batch = torch.export.Dim("batch")
    output = "action" if role == "policy" else "reward"
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, example, dynamo=True, opset_version=OPSET, input_names=list(inputs), output_names=[output],
                dynamic_shapes=tuple({0: batch} for _ in inputs), external_data=False, verbose=False,
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"{role} cannot be written as ONNX: {reason}") from error
    finally:
        log.setLevel(level)
    assert program is not None
    model = program.model_proto
    _strip_traces(model)
    model.ir_version = IR_VERSION
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    raw = model.SerializeToString(deterministic=True)
    _check_model(raw, role)
    return raw


def _strip_traces(model: onnx.ModelProto) -> None:
    """Takes out torch's stack traces: they hold paths of the training machine and differ between exports."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


def _check_model(raw: bytes, role: str) -> None:
    try:
        onnx.checker.check_model(raw, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{role}: onnx's checker refuses it: {str(error).splitlines()[0]}") from error


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
