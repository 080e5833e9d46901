"""What makes a Zarr directory survive a power cut and two eager writers: a store that syncs, and a lock."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import uuid
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from robots.spec import ToolkitError

_ROOT_KEY = "zarr.json"


class StoreError(ToolkitError):
    """A demo store that cannot be opened, read or written as asked."""


class DurableStore(LocalStore):
    """A LocalStore whose files are on the disk, and not merely on their way there, before the root key changes.

    zarr's own store replaces each file in one step, so a killed process leaves the old or the new one. After a power
    cut the new name may still stand for an empty file; hence the syncs: every file before it gets its name, and every
    folder before the root key, whose change is the commit.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        """Opens lazily, as its parent does."""
        super().__init__(root, read_only=read_only)
        self._unsynced_folders: set[Path] = set()

    async def _set(self, key: str, value: Buffer, exclusive: bool = False) -> None:
        if not self._is_open:
            await self._open()
        self._check_writable()
        await asyncio.to_thread(self._put, key, value, exclusive)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Writes a key without an event loop, as newer versions of zarr do."""
        self._ensure_open_sync()
        self._check_writable()
        self._put(key, value, exclusive=False)

    def _put(self, key: str, value: Buffer, exclusive: bool) -> None:
        path = self.root / key
        if exclusive and path.exists():
            raise FileExistsError(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if key == _ROOT_KEY:
            folders, self._unsynced_folders = self._unsynced_folders, set()
            for folder in folders:
                sync_folder(folder)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                file.write(value.as_buffer_like())
                file.flush()
                os.fsync(file.fileno())
            if exclusive:
                os.link(partial, path)
                partial.unlink()
            else:
                partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        if key == _ROOT_KEY:
            sync_folder(path.parent)
        else:
            # A folder may be new itself, and then its name is in its parent
            self._unsynced_folders.update(folder for folder in (path.parent, path.parent.parent) if folder.is_dir())


def sync_folder(folder: Path) -> None:
    """Puts a folder's list of names on the disk.

    Args:
        folder: The folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class WriterLock:
    """Holds the one right to write to a store; the system lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path, owner: str, what: str = "a store") -> None:
        """Takes the lock or refuses at once.

        Args:
            path: Lock file, made if need be. It stays there: removing it would let two writers lock two files.
            owner: What is locked, for the message.
            what: What kind of thing that is, for the message.

        Raises:
            StoreError: Somebody else holds it, or the file cannot be made.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{owner}: cannot be locked for writing: {error.strerror} ({path})") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreError(f"{owner}: process {holder} is writing to it, and {what} takes one writer") from error
        except OSError as error:  # of a disk that knows no locks
            os.close(self._descriptor)
            raise StoreError(f"{owner}: cannot be locked for writing: {error.strerror} ({path})") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
