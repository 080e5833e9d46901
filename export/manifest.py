"""The manifest of a bundle: everything about it that is not a network, as one JSON that knows its own hash.

The hashes catch damage and mix-ups, not an adversary: whoever can rewrite every file can also rewrite the hashes. A
signature (`signature.py`) is what catches that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from robots.spec import RobotSpec, RobotSpecError, ToolkitError, spec_from_dict

BUNDLE_FORMAT_VERSION = 2
_SINCE_2 = ("variants", "parity_sequence")  # the fields that a bundle of format 1 does not have
FILE_NAMES = ("policy.onnx", "reward.onnx", "parity.npz")
VARIANTS = ("float16", "int8")  # smaller copies of the policy that a bundle may also hold
REWARD_PROBABILITIES = (0.001, 0.01, 0.05, 0.5)  # the quantiles of the demos' per-step reward that the monitor may use
MAX_FILE_SIZE = 512 * 2**20  # [byte]; a control policy is thousands of times smaller
MAX_PARITY_VECTORS = 100_000  # replayed one by one before the robot moves


class BundleError(ToolkitError):
    """A bundle that must not run: damaged, incomplete, of a newer format, or not a bundle at all."""


@dataclass(frozen=True)
class FileRecord:
    """What one file of the bundle must be."""

    sha256: str  # hex
    size: int  # [byte]


@dataclass(frozen=True)
class VariantRecord:
    """How far a smaller copy of the policy is from torch's float32, over the parity vectors at export."""

    max_abs: float  # greatest |variant - torch| of an action element
    p99: float  # 99th percentile of the same
    tolerance: float  # greatest allowed, here and on the robot


@dataclass(frozen=True)
class BundleManifest:
    """Everything about a bundle that is not a network. JSON in and out without loss."""

    created_utc: str  # "2026-11-23T18:51:46Z"
    spec: dict[str, Any]  # RobotSpec.to_dict()
    spec_sha256: str  # hex
    control_dt: float  # [s]
    action_names: tuple[str, ...]  # (act_dim,)
    action_units: tuple[str, ...]  # (act_dim,)
    action_scale: tuple[float, ...]  # (act_dim,) [unit] command per unit of action
    action_offset: tuple[float, ...]  # (act_dim,) [unit] command at action 0
    settings: dict[str, Any]  # training settings, full precision
    demos: dict[str, Any]  # identity of the demo store: chain_sha256, n_episodes, spec_sha256; or of the given reward
    parity_tolerance: float  # greatest |onnx - torch| allowed, here and on the robot
    parity_max_abs: dict[str, float]  # "policy", "reward": greatest |onnx - torch| measured at export
    parity_vectors: int  # rows in parity.npz
    reward_inputs: tuple[str, ...]  # of observation, action, next_observation
    reward_quantiles: dict[str, float]  # probability as text ("0.01") -> quantile of the demos' per-step reward;
    # of a policy that was given a reward, of its own steps in simulation
    versions: dict[str, str]  # of gcl-toolkit, torch, onnx, onnxruntime, numpy at export
    files: dict[str, FileRecord] = field(default_factory=dict)  # by name, exactly `expected_files`
    variants: dict[str, VariantRecord] = field(default_factory=dict)  # by name, of VARIANTS
    parity_sequence: int = 1  # parity vectors in a row from one reset of the policy; 1 for a policy without memory
    format_version: int = BUNDLE_FORMAT_VERSION


def write_manifest(manifest: BundleManifest) -> bytes:
    """The bytes of `bundle.json`, with a hash of themselves inside.

    Args:
        manifest: What to write.

    Returns:
        UTF-8 JSON; `read_manifest` is the exact inverse.

    Raises:
        BundleError: Something in it (a setting, say) is not JSON, or is NaN or infinite.
    """
    fields = dataclasses.asdict(manifest)
    left_out = _SINCE_2 if manifest.format_version < 2 else ()
    data = {"format_version": manifest.format_version, **{k: v for k, v in fields.items() if k not in left_out}}
    try:
        digest = hashlib.sha256(_dump(data)).hexdigest()
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"manifest cannot be written as JSON: {error}; legal are finite numbers, text, lists, mappings"
        ) from error
    return _dump({**data, "manifest_sha256": digest})


def read_manifest(raw: bytes, where: str) -> BundleManifest:
    """Reads `bundle.json`, refusing what was changed since it was written.

    Args:
        raw: The file's bytes.
        where: Path for messages.

    Returns:
        The manifest, its spec hash recomputed.

    Raises:
        BundleError: Not JSON, of a newer format, changed by even one byte, or not consistent in itself.
    """
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not readable as JSON ({error}): the bundle is damaged; export it again") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise BundleError(
            f"{where}: format_version is {version!r}, expected 1 to {BUNDLE_FORMAT_VERSION}: not a bundle of gcl"
        )
    if version > BUNDLE_FORMAT_VERSION:
        raise BundleError(
            f"{where}: bundle of format {version}; this gcl reads up to {BUNDLE_FORMAT_VERSION}: upgrade gcl-toolkit"
        )
    recorded = data.pop("manifest_sha256", None)
    try:
        # Re-serialising catches what parsing forgives: white space, duplicate keys, other spellings of one number.
        unchanged = (
            hashlib.sha256(_dump(data)).hexdigest() == recorded and _dump({**data, "manifest_sha256": recorded}) == raw
        )
    except (ValueError, RecursionError):
        unchanged = False
    if not unchanged:
        raise BundleError(f"{where}: SHA-256 does not match what was exported: the manifest was changed; export again")
    try:
        manifest = _manifest_from_dict(data)
        _check_consistent(manifest, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{where}: fields are missing or of a wrong type: {error}") from error
    return manifest


def action_facts(
    spec: RobotSpec,
) -> tuple[float, tuple[str, ...], tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """What the manifest repeats of the spec for a human reader: control_dt [s], action names, units, scale, offset."""
    return (
        spec.control_dt,
        spec.action_names,
        tuple(term.unit for term in spec.action),
        tuple(term.scale for term in spec.action),
        tuple(term.offset for term in spec.action),
    )


def variant_file(variant: str) -> str:
    """Name of a variant's file in the bundle."""
    return f"policy.{variant}.onnx"


def expected_files(manifest: BundleManifest) -> tuple[str, ...]:
    """The files that a bundle of this manifest has, beside the manifest and a signature."""
    return (*FILE_NAMES, *(variant_file(name) for name in manifest.variants))


def _dump(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _manifest_from_dict(data: dict[str, Any]) -> BundleManifest:
    since = set(_SINCE_2) if data["format_version"] < 2 else set()
    expected = {f.name for f in dataclasses.fields(BundleManifest)} - since
    if set(data) != expected:
        raise ValueError(f"missing {sorted(expected - set(data))}, unknown {sorted(set(data) - expected)}")
    lists = ("action_names", "action_units", "action_scale", "action_offset", "reward_inputs")
    files = {name: FileRecord(**record) for name, record in data["files"].items()}
    variants = {name: VariantRecord(**record) for name, record in data.get("variants", {}).items()}
    return BundleManifest(**{**data, **{key: tuple(data[key]) for key in lists}, "files": files, "variants": variants})


def _check_consistent(manifest: BundleManifest, where: str) -> None:
    try:
        spec = spec_from_dict(manifest.spec)
    except RobotSpecError as error:
        raise BundleError(f"{where}: {error}") from error
    if spec.sha256 != manifest.spec_sha256:
        raise BundleError(
            f"{where}: robot spec hashes to {spec.sha256[:12]}, the manifest says {manifest.spec_sha256[:12]}"
        )
    told = (
        manifest.control_dt,
        manifest.action_names,
        manifest.action_units,
        manifest.action_scale,
        manifest.action_offset,
    )
    if told != action_facts(spec):
        raise BundleError(
            f"{where}: control_dt or action names, units, scale or offset differ from the robot spec inside"
        )
    _check_files(manifest, where)
    _check_parity_facts(manifest, where)
    if sorted(manifest.reward_quantiles) != sorted(str(p) for p in REWARD_PROBABILITIES):
        raise BundleError(
            f"{where}: reward quantiles {sorted(manifest.reward_quantiles)}; expected {REWARD_PROBABILITIES}"
        )


def _check_files(manifest: BundleManifest, where: str) -> None:
    unknown = set(manifest.variants) - set(VARIANTS)
    if unknown:
        raise BundleError(f"{where}: lists the variants {sorted(manifest.variants)}; legal are {list(VARIANTS)}")
    expected = expected_files(manifest)
    if set(manifest.files) != set(expected):
        raise BundleError(f"{where}: lists the files {sorted(manifest.files)}; legal are exactly {sorted(expected)}")
    for name, record in manifest.files.items():
        if type(record.size) is not int or not 0 <= record.size <= MAX_FILE_SIZE:
            raise BundleError(f"{where}: size of {name} is {record.size!r} bytes, legal are 0 to {MAX_FILE_SIZE}")


def _check_parity_facts(manifest: BundleManifest, where: str) -> None:
    tolerances = {"parity_tolerance": manifest.parity_tolerance}
    tolerances |= {f"tolerance of {name}": record.tolerance for name, record in manifest.variants.items()}
    for name, value in tolerances.items():
        if not (math.isfinite(value) and value > 0):
            raise BundleError(f"{where}: {name} {value!r} is not a positive number")
    for name in ("parity_vectors", "parity_sequence"):
        value = getattr(manifest, name)
        if type(value) is not int or not 1 <= value <= MAX_PARITY_VECTORS:
            raise BundleError(f"{where}: {name} is {value!r}, legal are 1 to {MAX_PARITY_VECTORS}")
