"""Parity vectors: inputs and what torch made of them, so that the robot's own CPU can prove it computes the same."""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import tokenize
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.manifest import BundleError, BundleManifest
from robots.spec import spec_from_dict

_OVERHEAD = 4096  # [byte] generous bound on what npy and zip add to one array
# What zipfile and numpy's reader of headers raise for bytes that are not what they should be
_DAMAGE = (
    ValueError, KeyError, EOFError, OSError, RuntimeError, SyntaxError, MemoryError, zipfile.BadZipFile, struct.error,
    tokenize.TokenError,
)  # fmt: skip


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
    """Reads `parity.npz`, trusting nothing in it: what it says of its sizes is compared before anything is unpacked.

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
    longest = sum(4 * math.prod(shape) + 2 * _OVERHEAD for shape in shapes.values())
    if len(raw) > longest:
        raise BundleError(f"{where}: {len(raw)} bytes, {manifest.parity_vectors} vectors take at most {longest}")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            # Stored, not compressed: what unpacks can then be no larger than the file, whose size was bounded.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise BundleError(f"{where}: holds compressed data; a bundle's parity vectors are stored plain")
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if sorted(names) != sorted(shapes):
                raise BundleError(f"{where}: holds {sorted(names)}, expected {sorted(shapes)}")
            arrays = {name: _unpack_array(archive, name, shape, where) for name, shape in shapes.items()}
    except _DAMAGE as error:
        raise BundleError(f"{where}: not readable as parity vectors: {error}") from error
    return ParityVectors(**arrays)


def stack_history(observation: np.ndarray, history: int, sequence: int) -> np.ndarray:
    """What a policy of stacked observations is fed on each step: the last `history` of them, oldest first.

    Args:
        observation: (n, obs_dim) in order of time.
        history: How many are stacked.
        sequence: Steps from one reset to the next; after a reset the first observation stands for those before it.

    Returns:
        (n, history * obs_dim)
    """
    step = np.arange(len(observation))
    first = step - step % sequence
    rows = np.maximum(step[:, None] - np.arange(history - 1, -1, -1), first[:, None])  # (n, history)
    return observation[rows].reshape(len(observation), -1)


def _unpack_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    """One array; its header, which would decide how much memory is taken, is compared before its data are read."""
    wanted = 4 * math.prod(shape)
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > wanted + _OVERHEAD:
        raise BundleError(f"{where}: {name} is larger than {shape} float32 can be")
    with archive.open(entry) as stream:
        content = io.BytesIO(stream.read(wanted + _OVERHEAD))
    if np.lib.format.read_magic(content) != (1, 0):
        raise BundleError(f"{where}: {name} is of another npy version than 1.0")
    there, fortran, dtype = np.lib.format.read_array_header_1_0(content)
    if there != shape or fortran or dtype != np.dtype("<f4"):
        raise BundleError(f"{where}: {name} is {dtype} {there}, expected finite float32 {shape}")
    data = content.read()
    if len(data) != wanted:
        raise BundleError(f"{where}: {name} has {len(data)} bytes, {shape} float32 are {wanted}")
    array = np.frombuffer(data, dtype="<f4").reshape(shape)
    if not np.isfinite(array).all():
        raise BundleError(f"{where}: {name} holds NaN or infinity, expected finite float32 {shape}")
    return array


def _parity_shapes(manifest: BundleManifest) -> dict[str, tuple[int, ...]]:
    spec, n = spec_from_dict(manifest.spec), manifest.parity_vectors
    shapes = {
        "observation": (n, spec.obs_dim),
        "action": (n, spec.act_dim),
        "policy_action": (n, spec.act_dim),
        "reward": (n,),
    }
    return {**shapes, "next_observation": (n, spec.obs_dim)} if "next_observation" in manifest.reward_inputs else shapes
