"""DemoStore: demonstrations of one robot in one Zarr directory, whole after a `kill -9` at any instant.

Saving an episode grows the arrays, then the columns, and then changes the root attributes once: that one rename is the
commit. Readers count by the root attributes, so what lies beyond them does not exist; a writer trims it when it opens
the store, and brings back from their journals the episodes that never came to their commit (`recovery.py`).
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.storage import LocalStore

from demos.chain import chained
from demos.durable import DurableStore, StoreError, WriterLock, sync_folder
from demos.episode import ENDINGS, Episode
from demos.journal import Journal, JournalHeader
from demos.recovery import Recovery, journal_folder, restore_journals, sweep, trim
from demos.schema import check_same_robot, create_arrays, layouts, read_attributes, root_attributes
from demos.store_reader import EpisodeInfo, StoreReader
from demos.verify import find_problems
from robots.spec import RobotSpec

__all__ = ["DemoStore", "Entry", "EpisodeInfo", "StoreError"]

_SUFFIX = ".zarr"


@dataclass(frozen=True)
class Entry:
    """An episode, and what a store keeps of it beside what was recorded."""

    episode: Episode
    excluded: bool | None = None  # from being learned from; None excludes those interrupted
    note: dict[str, Any] | None = None  # JSON-ready facts about where it comes from


class DemoStore(StoreReader):
    """The demonstrations of one robot. Made by `create` or `open`; a context manager."""

    def __init__(self, path: Path, lock: WriterLock | None) -> None:
        """Opens what is there; use `create` or `open`."""
        super().__init__(path, LocalStore(path, read_only=True) if lock is None else DurableStore(path))
        self.recovery = Recovery()
        self._lock = lock
        self._journal: Journal | None = None

    @classmethod
    def create(cls, path: str | Path, spec: RobotSpec, source: str = "sim", entries: Iterable[Entry] = ()) -> DemoStore:
        """Makes a store and opens it for writing.

        Args:
            path: A name ending in ".zarr" that does not exist yet.
            spec: The robot.
            source: How the demonstrations come about: "sim", "robot", "import:<format>".
            entries: What it begins with. Only with all of them in it does it get its name, so that whoever is stopped
                while they are written leaves no part of them that looks like the whole.

        Returns:
            The store, locked by this process until closed.

        Raises:
            StoreError: Something is there already, the name ends otherwise, or it cannot be written.
            EpisodeError: An entry of another robot's size.
        """
        path = Path(path)
        if path.suffix != _SUFFIX:
            raise StoreError(f"{path}: the name of a demo store ends in {_SUFFIX}")
        lock = WriterLock(journal_folder(path) / "lock", str(path))
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            if path.exists():
                raise StoreError(f"{path}: something is there already; a new store needs a new name")
            for leftover in path.parent.glob(f"{path.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            attributes = root_attributes(spec, source, path)
            root = zarr.create_group(DurableStore(unfinished), zarr_format=3, attributes=attributes)
            create_arrays(root, spec)
            begun = cls(unfinished, lock)
            for entry in entries:
                begun._commit(entry)
            unfinished.rename(path)
            sync_folder(path.parent)
            return cls(path, lock)
        except BaseException as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            lock.release()
            if isinstance(error, OSError):
                raise StoreError(f"{path}: no store can be made here: {error.strerror or error}") from error
            raise

    @classmethod
    def open(cls, path: str | Path, spec: RobotSpec | None = None, mode: Literal["r", "a"] = "r") -> DemoStore:
        """Opens a store.

        Args:
            path: The store.
            spec: Refuse the store of any other robot; None takes whichever it is.
            mode: "r" reads, also while somebody records; "a" adds, and first mends what a crash left behind.

        Returns:
            The store; in mode "a" locked by this process until closed, and `recovery` says what was mended.

        Raises:
            StoreError: Not a store, damaged, of a newer format, of another robot, or being written by somebody else.
        """
        path = Path(path)
        read_attributes(path)  # before the lock, which would leave a folder beside what is no store
        lock = WriterLock(journal_folder(path) / "lock", str(path)) if mode == "a" else None
        try:
            store = cls(path, lock)
            if spec is not None:
                check_same_robot(path, store.spec, spec)
            if lock is not None:
                store.recover()
            return store
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def __enter__(self) -> DemoStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write. A journal still open keeps its episode for the next writer."""
        self._close_journal()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def append(self, episode: Episode, excluded: bool | None = None, note: dict[str, Any] | None = None) -> int:
        """Saves an episode. When this returns, the episode is on the disk and stays there.

        Args:
            episode: What to save. If its journal is open, that one is removed after the commit.
            excluded: Keep it from being learned from; None excludes those interrupted.
            note: JSON-ready facts about where it comes from, kept in the root attribute `notes` under its index.

        Returns:
            Its index.

        Raises:
            StoreError: Opened for reading, or the disk would not take it; what was committed before is untouched.
            EpisodeError: Of another robot's size.
        """
        self._check_writable("add episodes")
        try:
            self._commit(Entry(episode, excluded, note))
        except OSError as error:
            raise StoreError(
                f"{self.path}: episode not saved: {error.strerror or error}; "
                f"the {self.n_episodes} saved before are intact"
            ) from error
        if self._journal is not None and self._journal.header.is_of(episode):
            self._journal.discard()
            self._journal = None
        return self.n_episodes - 1

    def exclude(self, indices: Iterable[int], excluded: bool = True) -> None:
        """Keeps episodes from being learned from, or lets them back in. Nothing is deleted.

        Args:
            indices: Which; nothing changes if one of them does not exist.
            excluded: False to let them back in.

        Raises:
            StoreError: No such episode, opened for reading, or the disk would not take it.
        """
        self._check_writable("exclude episodes")
        chosen = self.check_indices(indices)
        if not chosen:
            return
        flags = self.column("excluded")
        flags[chosen] = int(excluded)
        try:
            self._arrays["meta/excluded"][: self.n_episodes] = flags
            sync_folder(self.path / "meta" / "excluded" / "c")
        except OSError as error:
            raise StoreError(f"{self.path}: not changed: {error.strerror or error}") from error

    def start_journal(self, seed: int, operator: str) -> Journal:
        """Begins the journal of an episode that will be appended to this store.

        Args:
            seed: Of the reset, -1 = unknown.
            operator: Who or what acts.

        Returns:
            The journal; `append` removes it, `recover` brings its episode back.

        Raises:
            StoreError: Opened for reading, or the disk would not take it.
        """
        self._check_writable("record")
        self._close_journal()
        header = JournalHeader(
            store_id=self.attributes["store_id"],
            spec_sha256=self.spec_sha256,
            obs_dim=self.spec.obs_dim,
            act_dim=self.spec.act_dim,
            seed=seed,
            operator=operator,
            task=self.spec.task or "",
            start_time_ns=time.time_ns(),
        )
        self._journal = Journal(journal_folder(self.path), header)
        return self._journal

    def recover(self) -> Recovery:
        """Mends what a crash or a fault left behind: torn tails, half-written files, episodes without a commit.

        Returns:
            What was mended, also kept as `recovery`. An episode cut short comes back `interrupted` and excluded; one
            whose end was in its journal comes back whole. A journal that makes no episode is set aside.

        Raises:
            StoreError: Opened for reading, the disk would not take it, or the store is damaged beyond this.
        """
        self._check_writable("mend it")
        self._close_journal()
        try:
            swept = sweep(self.path)
            self._load()
            trimmed = trim(self)
            restored, dropped, set_aside = restore_journals(self)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be mended: {error.strerror or error}") from error
        self.recovery = Recovery(trimmed, swept, restored, dropped, set_aside)
        return self.recovery

    def verify(self) -> list[str]:
        """Checks everything that can be checked.

        Returns:
            One line a problem; empty for a sound store.
        """
        return find_problems(self)

    def _commit(self, entry: Entry) -> None:
        episode, excluded = entry.episode, entry.excluded
        episode.check_robot(self.spec)
        commit = self._write(episode, episode.ended_by == "interrupted" if excluded is None else excluded)
        if entry.note is not None:
            commit["notes"] = {**self.attributes.get("notes", {}), str(self.n_episodes): entry.note}
        self._root.update_attributes(commit)
        self.attributes |= commit

    def _write(self, episode: Episode, excluded: bool) -> dict[str, Any]:
        """Writes one episode beyond the commit; returns the root attributes that would commit it."""
        operators, operator = _coded(self.attributes["operators"], episode.operator)
        tasks, task = _coded(self.attributes["tasks"], episode.task)
        steps = self.n_steps + episode.length
        sha256 = episode.sha256
        rows = {
            "data/observation": episode.observations[:-1],
            "data/action": episode.actions,
            "data/timestamp": episode.timestamps[:-1],
            "data/reward": np.full(episode.length, np.nan) if episode.rewards is None else episode.rewards,
            "meta/episode_ends": steps,
            "meta/ended_by": ENDINGS.index(episode.ended_by),
            "meta/success": -1 if episode.success is None else int(episode.success),
            "meta/excluded": int(excluded),
            "meta/operator": operator,
            "meta/task": task,
            "meta/seed": episode.seed,
            "meta/start_time_ns": episode.start_time_ns,
            "meta/final_observation": episode.observations[-1],
            "meta/final_timestamp": episode.timestamps[-1],
            "meta/sha256": np.frombuffer(sha256, np.uint8),
        }
        for layout in layouts(self.spec):
            array = self._arrays[layout.path]
            before, after = (self.n_steps, steps) if layout.counts_steps else (self.n_episodes, self.n_episodes + 1)
            # Sets the length whatever it was: an append that failed may have left it longer
            array.resize((after, *array.shape[1:]))
            array[before:after] = np.asarray(rows[layout.path], array.dtype).reshape(after - before, *array.shape[1:])
        return {
            "n_episodes": self.n_episodes + 1,
            "n_steps": steps,
            "chain_sha256": chained(self.chain_sha256, [sha256]),
            "operators": operators,
            "tasks": tasks,
        }

    def _check_writable(self, to_do: str) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path}: opened for reading, or closed; open it with mode 'a' to {to_do}")

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _coded(words: list[str], word: str) -> tuple[list[str], int]:
    """The table with the word in it, and the word's place."""
    table = words if word in words else [*words, word]
    return table, table.index(word)
