"""Demonstrations elsewhere: another store, one `.npz` file, exact both ways, and Zarr format 2 for older readers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from demos.chain import chained
from demos.durable import StoreError
from demos.episode import Episode, EpisodeError
from demos.idle import busy_parts, trimmed
from demos.schema import STEP_CHUNK, check_attributes, layouts, stored_robot, with_model_of
from demos.store import DemoStore, Entry
from demos.store_reader import StoreReader, build_episode
from robots.spec import RobotSpec

# What numpy, zipfile and zlib raise for bytes that are not what they should be
_DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_ATTRIBUTES = "attributes"  # name of the entry with the root attributes, as JSON


def export_npz(store: StoreReader, path: Path) -> None:
    """Writes all of a store into one file that numpy reads.

    Args:
        store: The store.
        path: The `.npz` file; replaced in one step if it is there.

    Raises:
        StoreError: The store is damaged, or the disk would not take it.
    """
    arrays = {layout.path: store.read(layout.path) for layout in layouts(store.spec)}
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays, **{_ATTRIBUTES: np.array(json.dumps(store.attributes))})  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: not written: {error.strerror or error}") from error
    finally:  # after Ctrl-C as well
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def import_npz(path: Path, out: Path, robot: RobotSpec | None = None) -> DemoStore:
    """Makes a store of a file that `export_npz` wrote.

    Args:
        path: The file.
        out: The new store, "<name>.zarr".
        robot: Whose demos they are, with the directory of its model; None leaves it to the file to find that.

    Returns:
        The store, opened for writing, with the same episodes and notes in the same order and the same chain of digests.

    Raises:
        StoreError: Not such a file, damaged, another robot's, or `out` cannot be made. Nothing is left under that name.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            attributes = json.loads(str(file[_ATTRIBUTES]))
            check_attributes(path, attributes)
            stored = stored_robot(path, attributes)
            arrays = {layout.path: file[layout.path] for layout in layouts(stored)}
        excluded, notes = arrays["meta/excluded"].tolist(), dict(attributes.get("notes", {}))
        entries = [
            Entry(build_episode(arrays, attributes, i), excluded[i] == 1, notes.get(str(i)))
            for i in range(attributes["n_episodes"])
        ]
    except (*_DAMAGE, EpisodeError) as error:
        raise StoreError(f"{path}: not a whole export of a demo store: {' '.join(str(error).split())}") from error
    spec = stored if robot is None else with_model_of(path, stored, robot)
    if chained(spec.sha256, (entry.episode.sha256 for entry in entries)) != attributes["chain_sha256"]:
        raise StoreError(f"{path}: damaged: its episodes do not give its chain_sha256")
    return DemoStore.create(out, spec, "import:npz", entries)


@dataclasses.dataclass(frozen=True)
class Copied:
    """What `copy_episodes` did; episodes by their number in the store copied from."""

    store: DemoStore  # the one copied to, opened for writing
    there: list[int]  # episodes that it had already
    shortened: dict[int, tuple[int, int]]  # steps [start, stop) that are left of those with idle ends


def copy_episodes(
    store: StoreReader, out: Path, indices: Iterable[int], actions: bool = True, trim: bool = False
) -> Copied:
    """Copies episodes into another store of the same robot, with whether they are excluded and what was noted.

    Args:
        store: Where from.
        out: Where to; "<name>.zarr", made if it is not there, else added to. What it has already is not added again.
        indices: Which.
        actions: False keeps observations only, as of an expert whose actions nobody measured.
        trim: Cuts off the ends in which nothing happened, as seen beside all demos that are not excluded; a note says
            so. What is shortened has no true rewards any more.

    Returns:
        What was done.

    Raises:
        StoreError: No such episode, the very same store, one of another robot, or one that cannot be written.
    """
    chosen = store.check_indices(indices)
    if out.exists() and out.samefile(store.path):
        raise StoreError(f"{out}: a store is not copied into itself; say another name")
    excluded, entries = store.column("excluded"), []
    beside = store.learned() if trim else []
    numbers = sorted({*chosen, *beside})
    episodes = dict(zip(numbers, store.select(numbers), strict=True))
    parts = _shorter_parts({i: episodes[i] for i in beside})
    shortened = {i: parts[i] for i in chosen if i in parts}
    for i in chosen:
        episode, note = episodes[i], store.note(i)
        if i in shortened:
            start, stop = shortened[i]
            note = (note or {}) | {"trimmed": {"start": start, "stop": stop, "of_steps": episode.length}}
            episode = trimmed(episode, start, stop)
        unknown = np.full_like(episode.actions, np.nan)
        kept = episode if actions else dataclasses.replace(episode, actions=unknown)
        entries.append(Entry(kept, bool(excluded[i] == 1), note))
    if not out.exists():
        return Copied(DemoStore.create(out, store.spec, store.attributes["source"], entries), [], shortened)
    target = DemoStore.open(out, store.spec, mode="a")
    try:
        return Copied(target, _added(target, chosen, entries), shortened)
    except BaseException:
        target.close()
        raise


def _added(target: DemoStore, chosen: list[int], entries: list[Entry]) -> list[int]:
    """Appends what is not there; gives the numbers of what is."""
    there, skipped = {digest: at for at, digest in enumerate(target.digests())}, []
    for i, entry in zip(chosen, entries, strict=True):
        at = there.get(entry.episode.sha256)
        if at is None:
            target.append(entry.episode, entry.excluded, entry.note)
            continue
        skipped.append(i)
        if entry.excluded:  # excluded episodes stay so
            target.exclude([at])
    return skipped


def _shorter_parts(episodes: Mapping[int, Episode]) -> dict[int, tuple[int, int]]:
    """Of episodes by number those with idle ends, and what these leave: judged as `gcl demos check` does."""
    parts = zip(episodes, busy_parts([*episodes.values()]), strict=True)
    return {i: part for i, part in parts if part != (0, episodes[i].length)}


def export_zarr2(store: StoreReader, path: Path) -> None:
    """Writes Zarr format 2 with `data/*` and `meta/episode_ends`, as Diffusion Policy reads; without excluded episodes.

    Args:
        store: The store.
        path: A directory that does not exist yet.

    Raises:
        StoreError: Something is there already, the store is damaged, or the disk would not take it.
    """
    if path.exists():
        raise StoreError(f"{path}: something is there already; an export needs a new name")
    episodes = store.episodes()
    if not episodes:
        raise StoreError(f"{store.path}: no episode to export, or all are excluded")
    rows: dict[str, Any] = {
        "data/observation": np.concatenate([episode.observations[:-1] for episode in episodes]),
        "data/action": np.concatenate([episode.actions for episode in episodes]),
        "data/timestamp": np.concatenate([episode.timestamps[:-1] for episode in episodes]),
        "meta/episode_ends": np.cumsum([episode.length for episode in episodes], dtype=np.int64),
    }
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    kept = ("schema", "spec", "spec_sha256", "chain_sha256")
    try:
        root = zarr.create_group(partial, zarr_format=2, attributes={key: store.attributes[key] for key in kept})
        for name, values in rows.items():
            chunks = (min(STEP_CHUNK, len(values)), *values.shape[1:])
            root.create_array(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[...] = values
        partial.rename(path)
    except OSError as error:
        raise StoreError(f"{path}: not written: {error.strerror or error}") from error
    finally:  # after Ctrl-C as well
        shutil.rmtree(partial, ignore_errors=True)
