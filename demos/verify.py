"""Checks a demo store from end to end, without trusting any part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demos.chain import chained
from demos.durable import StoreError
from demos.schema import layouts

if TYPE_CHECKING:
    from demos.store_reader import StoreReader


def find_problems(store: StoreReader) -> list[str]:
    """Looks for everything that can be wrong with a store.

    Args:
        store: The store, opened in any mode.

    Returns:
        One line a problem; empty for a sound store. Rows beyond the commit are no problem for a reader, but a sign of a
        crash, so they are reported: opening for writing trims them.
    """
    problems = [problem for layout in layouts(store.spec) for problem in _array_problems(store, layout.path)]
    if problems:
        return problems
    ends = store.column("episode_ends")
    if len(ends) and (ends[0] < 1 or (np.diff(ends) < 1).any()):
        problems.append("meta/episode_ends does not increase")
    if (ends[-1] if len(ends) else 0) != store.n_steps:
        problems.append(
            f"meta/episode_ends stops at {ends[-1] if len(ends) else 0}, {store.n_steps} steps were committed"
        )
    if problems:
        return problems
    chain = chained(store.spec_sha256, store.digests())
    if chain != store.chain_sha256:
        problems.append(f"chain_sha256 is {store.chain_sha256[:12]}..., the episodes give {chain[:12]}...")
    return problems + _episode_problems(store)


def _array_problems(store: StoreReader, path: str) -> list[str]:
    array = store.array(path)
    rows = store.n_steps if path.startswith("data/") else store.n_episodes
    problems = []
    if array.shape[0] > rows:
        problems.append(
            f"{path} has {array.shape[0] - rows} rows that were never committed; recording again trims them"
        )
    # Counted, since a chunk that is not there reads as the fill value without a word
    if array.nchunks_initialized != array.nchunks:
        problems.append(f"{path}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks are missing")
    try:
        values = store.read(path)
    except StoreError as error:
        return [*problems, str(error)]
    # Unknown rewards and actions are NaN; whether they may be is for the episode to say
    if values.dtype.kind == "f" and path not in ("data/reward", "data/action") and not np.isfinite(values).all():
        problems.append(f"{path} is not finite in row {int(np.argwhere(~np.isfinite(values))[0][0])}")
    return problems


def _episode_problems(store: StoreReader) -> list[str]:
    try:
        store.episodes(include_excluded=True)
        return []
    except StoreError:
        pass  # one read for the good case; now one by one, to name every episode that is wrong
    problems = []
    for i in range(store.n_episodes):
        try:
            store.select([i])
        except StoreError as error:
            problems.append(str(error))
    return problems
