"""Parity vectors: inputs and what torch made of them, so that the robot's own CPU can prove it computes the same."""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.manifest import BundleError, BundleManifest
from robots.spec import spec_from_dict


@dataclass(frozen=True)
class ParityVectors:
    """Inputs and what torch made of them, all float32."""

    observation: np.ndarray  # (n, obs_dim)
    action: np.ndarray  # (n, act_dim) the reward's input
    policy_action: np.ndarray  # (n, act_dim) the policy's output
    reward: np.ndarray  # (n,) the reward's output
    next_observation: np.ndarray | None = None  # (n, obs_dim), where the reward takes it


def pack_parity(vectors: ParityVectors) -> bytes:
    """The bytes of `parity.npz`.

    Args:
        vectors: What to keep.

    Returns:
        An uncompressed npz without pickles.
    """
    buffer = io.BytesIO()
    given = {f.name: getattr(vectors, f.name) for f in dataclasses.fields(vectors)}
    arrays: dict[str, Any] = {name: np.ascontiguousarray(a, dtype="<f4") for name, a in given.items() if a is not None}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack_parity(raw: bytes, manifest: BundleManifest, where: str) -> ParityVectors:
    """Reads `parity.npz`, trusting nothing in it.

    Args:
        raw: The file's bytes.
        manifest: Says how many vectors of which length must be there.
        where: Path for messages.

    Returns:
        The vectors, finite.

    Raises:
        BundleError: Not such vectors.
    """
    shapes = _parity_shapes(manifest)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            # Stored, not compressed: what unpacks can then be no larger than the file, whose size was bounded.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise BundleError(f"{where}: holds compressed data; a bundle's parity vectors are stored plain")
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if names != set(shapes):
                raise BundleError(f"{where}: holds {sorted(names)}, expected {sorted(shapes)}")
            for name, shape in shapes.items():
                if archive.getinfo(f"{name}.npy").file_size > 4 * math.prod(shape) + 4096:
                    raise BundleError(f"{where}: {name} is larger than {shape} float32 can be")
        with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in shapes}
    except (ValueError, KeyError, EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{where}: not readable as parity vectors: {error}") from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.float32 or not np.isfinite(arrays[name]).all():
            raise BundleError(
                f"{where}: {name} is {arrays[name].dtype} {arrays[name].shape}, expected finite float32 {shape}"
            )
    return ParityVectors(**arrays)


def _parity_shapes(manifest: BundleManifest) -> dict[str, tuple[int, ...]]:
    spec, n = spec_from_dict(manifest.spec), manifest.parity_vectors
    shapes = {
        "observation": (n, spec.obs_dim),
        "action": (n, spec.act_dim),
        "policy_action": (n, spec.act_dim),
        "reward": (n,),
    }
    return {**shapes, "next_observation": (n, spec.obs_dim)} if "next_observation" in manifest.reward_inputs else shapes
