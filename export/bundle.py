"""The bundle: one folder with everything a robot needs to run a policy, and what it needs to refuse a wrong one.

<name>.bundle/
  policy.onnx    observation -> action, normaliser inside
  reward.onnx    observation, action -> reward, the learned reward
  parity.npz     inputs and what torch made of them, replayed on the robot's own CPU before it moves
  bundle.json    the manifest: robot spec, training settings, demos, SHA-256 and size of each file
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from export.manifest import FILE_NAMES, BundleError, BundleManifest, FileRecord, read_manifest, write_manifest
from export.parity import ParityVectors, unpack_parity
from robots.spec import RobotSpec, spec_from_dict

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

    @cached_property
    def spec(self) -> RobotSpec:
        """The robot the policy was made for."""
        return spec_from_dict(self.manifest.spec)


def write_bundle_folder(path: str | Path, manifest: BundleManifest, contents: dict[str, bytes]) -> BundleManifest:
    """Writes a bundle so that at `path` there is, at any instant, a whole one or none.

    A bundle already there is replaced, and stays if that fails; anything else at `path` is refused. Replacing takes two
    renames: of a process killed between them, both bundles lie whole in a dotted folder beside.

    Args:
        path: The folder to make.
        manifest: The manifest; its `files` are filled in here.
        contents: The bytes of each of FILE_NAMES.

    Returns:
        The manifest as written.

    Raises:
        BundleError: `path` is something else than a bundle, or cannot be written (the disk is full, say).
    """
    path = Path(path)
    refuse_foreign(path)
    files = {name: FileRecord(hashlib.sha256(contents[name]).hexdigest(), len(contents[name])) for name in FILE_NAMES}
    manifest = dataclasses.replace(manifest, files=files)
    raw = write_manifest(manifest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            folder = staging / "new"
            folder.mkdir()
            for name, content in [*contents.items(), (MANIFEST_NAME, raw)]:
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


def read_bundle(path: str | Path) -> Bundle:
    """Reads a bundle and checks every byte of it.

    Args:
        path: The bundle's folder.

    Returns:
        The bundle.

    Raises:
        BundleError: Not a bundle, a newer format, or a file of it missing, truncated, changed, or not an ordinary file
            inside the folder; sizes are compared before anything is read.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(
            f"{path}: {'not a folder' if path.exists() else 'not there'}; a bundle is the folder `gcl export` wrote"
        )
    if not os.path.lexists(path / MANIFEST_NAME):
        raise BundleError(f"{path}: has no {MANIFEST_NAME}, so it is not a bundle that `gcl export` wrote")
    manifest = read_manifest(_read_regular(path / MANIFEST_NAME, None), str(path / MANIFEST_NAME))
    contents = {name: _read_regular(path / name, record) for name, record in manifest.files.items()}
    parity = unpack_parity(contents["parity.npz"], manifest, str(path / "parity.npz"))
    return Bundle(path, manifest, contents["policy.onnx"], contents["reward.onnx"], parity)


def _read_regular(path: Path, record: FileRecord | None) -> bytes:
    """Reads one ordinary file whole; `record` says what it must be, None bounds it as a manifest."""
    limit = _MAX_MANIFEST if record is None else record.size
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
