"""The bundle: one folder with everything a robot needs to run a policy, and what it needs to refuse a wrong one.

<name>.bundle/
  policy.onnx    observation -> action, normaliser inside
  reward.onnx    observation, action -> reward, the learned reward
  parity.npz     inputs and what torch made of them, replayed on the robot's own CPU before it moves
  bundle.json    the manifest: robot spec, training settings, demos, SHA-256 and size of each file
  bundle.sig     optional: who vouches for the manifest, and so for every file
  policy.float16.onnx, policy.int8.onnx    optional: smaller copies of the policy
Nothing else may lie in the folder: what nobody vouches for has no place beside what runs on a robot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from export.manifest import (
    BundleError,
    BundleManifest,
    FileRecord,
    expected_files,
    read_manifest,
    variant_file,
    write_manifest,
)
from export.parity import ParityVectors, unpack_parity
from export.signature import MAX_SIGNATURE, SIGNATURE_NAME, PublicKey, public_key_of, sign_manifest, verify_manifest
from robots.spec import RobotSpec, spec_from_dict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MANIFEST_NAME = "bundle.json"
_MAX_MANIFEST = 16 * 2**20  # [byte]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole. The networks are the very bytes that were hashed."""

    path: Path
    manifest: BundleManifest
    policy_onnx: bytes = field(repr=False)
    reward_onnx: bytes = field(repr=False)
    parity: ParityVectors = field(repr=False)
    variants: dict[str, bytes] = field(default_factory=dict, repr=False)  # smaller copies of the policy, by name
    signed_by: PublicKey | None = None  # whose signature was checked; None = none was asked for

    def policy_of(self, variant: str | None) -> bytes:
        """The policy's file: the float32 one for None, else that of a variant; BundleError if there is none."""
        if variant is None:
            return self.policy_onnx
        if variant not in self.variants:
            legal = ", ".join(self.variants) or "none"
            raise BundleError(
                f"{self.path}: has no variant {variant!r}; it has {legal}: gcl export --variant {variant}"
            )
        return self.variants[variant]

    @cached_property
    def spec(self) -> RobotSpec:
        """The robot the policy was made for."""
        return spec_from_dict(self.manifest.spec)


def write_bundle_folder(
    path: str | Path, manifest: BundleManifest, contents: dict[str, bytes], key: Ed25519PrivateKey | None = None
) -> BundleManifest:
    """Writes a bundle so that at `path` there is, at any instant, a whole one or none.

    A bundle already there is replaced, and stays if that fails; anything else at `path` is refused. Replacing takes two
    renames: of a process killed between them, both bundles lie whole in a dotted folder beside.

    Args:
        path: The folder to make.
        manifest: The manifest; its `files` are filled in here.
        contents: The bytes of each of `expected_files(manifest)`.
        key: Signs it; None leaves it unsigned.

    Returns:
        The manifest as written.

    Raises:
        BundleError: `path` is something else than a bundle, or cannot be written (the disk is full, say).
    """
    path = Path(path)
    refuse_foreign(path)
    given = {name: contents[name] for name in expected_files(manifest)}
    files = {name: FileRecord(hashlib.sha256(content).hexdigest(), len(content)) for name, content in given.items()}
    manifest = dataclasses.replace(manifest, files=files)
    given[MANIFEST_NAME] = raw = write_manifest(manifest)
    if key is not None:
        given[SIGNATURE_NAME] = sign_manifest(raw, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            folder = staging / "new"
            folder.mkdir()
            for name, content in given.items():
                _write_synced(folder / name, content)
            _sync_folder(folder)
            _put_in_place(folder, path, staging / "old")
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}") from error
    return manifest


def refuse_foreign(path: str | Path) -> None:
    """Refuses to write a bundle over something that is not one.

    Args:
        path: Where a bundle is to be written.

    Raises:
        BundleError: There is something at `path`, and it is no bundle.
    """
    path = Path(path)
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and (path / MANIFEST_NAME).is_file()):
        raise BundleError(f"{path}: exists and is not a bundle; it is not overwritten: give another path")


def sign_bundle(path: str | Path, key: Ed25519PrivateKey) -> PublicKey:
    """Signs a bundle that is whole; a signature already there is replaced.

    Args:
        path: The bundle's folder.
        key: Who vouches for it.

    Returns:
        The public half of the key.

    Raises:
        BundleError: The bundle is damaged, or the signature cannot be written.
    """
    path = Path(path)
    read_bundle(path)
    signature = sign_manifest(_read_regular(path / MANIFEST_NAME, _MAX_MANIFEST), key)
    # Written beside the folder, since a half-written file inside would make the bundle unreadable
    partial = path.parent / f".{path.name}.{SIGNATURE_NAME}.{os.getpid()}"
    try:
        _write_synced(partial, signature)
        os.replace(partial, path / SIGNATURE_NAME)
        _sync_folder(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BundleError(f"{path / SIGNATURE_NAME}: cannot be written: {error.strerror or error}") from error
    return public_key_of(key)


def read_bundle(path: str | Path, trusted: Sequence[PublicKey] | None = None) -> Bundle:
    """Reads a bundle and checks every byte of it.

    Args:
        path: The bundle's folder.
        trusted: Whose signature will do; None asks for none, and an empty sequence refuses everything.

    Returns:
        The bundle.

    Raises:
        BundleError: Not a bundle, a newer format, unsigned or signed by someone else, a file of it missing, truncated,
            changed, or not an ordinary file inside the folder, or one too many; sizes are compared before anything is
            read.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(
            f"{path}: {'not a folder' if path.exists() else 'not there'}; a bundle is the folder `gcl export` wrote"
        )
    if not os.path.lexists(path / MANIFEST_NAME):
        raise BundleError(f"{path}: has no {MANIFEST_NAME}, so it is not a bundle that `gcl export` wrote")
    raw = _read_regular(path / MANIFEST_NAME, _MAX_MANIFEST)
    # Before anything in the manifest is looked at: a parser need not face what nobody vouches for
    signed_by = None if trusted is None else _signer(path, raw, trusted)
    manifest = read_manifest(raw, str(path / MANIFEST_NAME))
    _refuse_strays(path, manifest)
    contents = {name: _read_regular(path / name, record) for name, record in manifest.files.items()}
    parity = unpack_parity(contents["parity.npz"], manifest, str(path / "parity.npz"))
    variants = {name: contents[variant_file(name)] for name in manifest.variants}
    return Bundle(path, manifest, contents["policy.onnx"], contents["reward.onnx"], parity, variants, signed_by)


def _signer(path: Path, manifest: bytes, trusted: Sequence[PublicKey]) -> PublicKey:
    if not os.path.lexists(path / SIGNATURE_NAME):
        names = ", ".join(key.key_id[:12] for key in trusted) or "none"
        raise BundleError(f"{path}: is unsigned, and only bundles signed by a trusted key will do; trusted: {names}")
    return verify_manifest(manifest, _read_regular(path / SIGNATURE_NAME, MAX_SIGNATURE), trusted, str(path))


def _refuse_strays(path: Path, manifest: BundleManifest) -> None:
    try:
        there = set(os.listdir(path))
    except OSError as error:
        raise BundleError(f"{path}: cannot be listed: {error.strerror or error}") from error
    strays = sorted(there - {*manifest.files, MANIFEST_NAME, SIGNATURE_NAME})
    if strays:
        raise BundleError(f"{path}: holds {', '.join(strays[:5])}, which the manifest does not list: take it out")


def _read_regular(path: Path, expected: FileRecord | int) -> bytes:
    """Reads one ordinary file whole; `expected` says what it must be, or how large it may be [byte]."""
    record = None if isinstance(expected, int) else expected
    limit = expected if isinstance(expected, int) else expected.size
    try:
        # Not following a link keeps the bundle self-contained; not blocking keeps a named pipe from hanging the robot.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if path.is_symlink():
            raise BundleError(f"{path}: is a symbolic link; every file of a bundle must lie in its folder")
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: is not an ordinary file; every file of a bundle must lie in its folder")
            if status.st_size > limit or (record is not None and status.st_size != record.size):
                at_most = "at most " if record is None else ""
                raise BundleError(f"{path}: {status.st_size} bytes, expected {at_most}{limit}: truncated or changed")
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}; export the bundle again") from error
    if record is not None and hashlib.sha256(content).hexdigest() != record.sha256:
        raise BundleError(
            f"{path}: SHA-256 does not match the manifest: the file was changed after the export; export again"
        )
    return content


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and needs no flush
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_place(new: Path, path: Path, old: Path) -> None:
    """Renames `new` to `path`; a bundle already there goes to `old` first and comes back if that fails."""
    refuse_foreign(path)
    replacing = path.exists()
    if replacing:
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if replacing:
            os.rename(old, path)
        raise
