"""The reading half of a demo store: attributes, arrays, episodes, the table of contents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from demos.chain import chained
from demos.durable import StoreError
from demos.episode import ENDINGS, Episode, EpisodeError
from demos.schema import layouts, read_attributes, stored_robot
from robots.spec import RobotSpec

# What zarr and its codecs raise for bytes that are not what they should be
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, TypeError)


@dataclass(frozen=True)
class EpisodeInfo:
    """One row of a store's table of contents."""

    index: int
    length: int  # steps
    return_: float  # sum of true rewards, NaN = unknown
    ended_by: str  # one of ENDINGS
    operator: str
    task: str
    seed: int  # -1 = unknown
    success: bool | None
    excluded: bool
    start_time_ns: int  # [ns] since the Unix epoch


class StoreReader:
    """Reads a store, counting only what its root attributes say is committed."""

    def __init__(self, path: Path, store: LocalStore) -> None:
        """Opens what is there.

        Args:
            path: The store, for messages.
            store: Gives access to its files.

        Raises:
            StoreError: Not a store, damaged, or of a newer format.
        """
        self.path = path
        self._store = store
        self._load()

    def __len__(self) -> int:
        return self.n_episodes

    @property
    def n_episodes(self) -> int:
        """Committed episodes, excluded ones too."""
        return self.attributes["n_episodes"]

    @property
    def n_steps(self) -> int:
        """Committed steps, those of excluded episodes too."""
        return self.attributes["n_steps"]

    @property
    def chain_sha256(self) -> str:
        """Hex digest of all episodes in order: c_k = SHA256(c_{k-1} || sha_k), c_0 = the robot's."""
        return self.attributes["chain_sha256"]

    def begins_with(self, count: int, chain_sha256: str) -> bool:
        """Whether the first `count` episodes are those of a store whose `chain_sha256` was this one."""
        return count <= self.n_episodes and chained(self.spec_sha256, self.digests()[:count]) == chain_sha256

    @property
    def spec_sha256(self) -> str:
        """Hex identity of the robot."""
        return self.attributes["spec_sha256"]

    def identity(self) -> dict[str, Any]:
        """What a checkpoint or bundle keeps of the demonstrations it was learned from."""
        return {
            "spec_sha256": self.spec_sha256,
            "chain_sha256": self.chain_sha256,
            "n_episodes": self.n_episodes,
            "n_steps": self.n_steps,
            "excluded": np.flatnonzero(self.column("excluded") == 1).tolist(),
        }

    def episodes(self, include_excluded: bool = False) -> list[Episode]:
        """Reads all episodes into memory, checked against their digests.

        Args:
            include_excluded: Also those excluded from learning.

        Returns:
            The episodes in the order of recording.

        Raises:
            StoreError: Something in the store is not what was saved.
        """
        return self.select(range(self.n_episodes) if include_excluded else self.learned())

    def learned(self) -> list[int]:
        """Numbers of the episodes that are to be learned from: those not excluded."""
        return np.flatnonzero(self.column("excluded") != 1).tolist()

    def select(self, indices: Iterable[int]) -> list[Episode]:
        """Reads chosen episodes.

        Args:
            indices: Which; each in [0, n_episodes).

        Returns:
            The episodes, in the order asked for.

        Raises:
            StoreError: No such episode, or something in the store is not what was saved.
        """
        chosen = self.check_indices(indices)
        if not chosen:
            return []
        arrays = {layout.path: self.read(layout.path) for layout in layouts(self.spec)}
        episodes = []
        for i in chosen:
            try:
                episodes.append(build_episode(arrays, self.attributes, i))
            except EpisodeError as error:
                raise StoreError(f"{self.path}: episode {i} is damaged: {error}") from error
        return episodes

    def table(self) -> list[EpisodeInfo]:
        """The table of contents, without observations and actions.

        Raises:
            StoreError: Something in the store cannot be read.
        """
        reward = self.read("data/reward").astype(np.float64)
        ends = self.column("episode_ends").tolist()
        names = ("ended_by", "success", "operator", "task", "excluded", "seed", "start_time_ns")
        columns = {name: self.column(name).tolist() for name in names}
        rows = []
        for i, end in enumerate(ends):
            start, success = ends[i - 1] if i else 0, columns["success"][i]
            try:
                words = {
                    "ended_by": _decoded(ENDINGS, columns["ended_by"][i], "ended_by"),
                    "operator": _decoded(self.attributes["operators"], columns["operator"][i], "operator"),
                    "task": _decoded(self.attributes["tasks"], columns["task"][i], "task"),
                }
            except EpisodeError as error:
                raise StoreError(f"{self.path}: episode {i} is damaged: {error}") from error
            row = EpisodeInfo(
                index=i,
                length=end - start,
                return_=float(reward[start:end].sum()),
                seed=columns["seed"][i],
                success=None if success < 0 else bool(success),
                excluded=columns["excluded"][i] == 1,
                start_time_ns=columns["start_time_ns"][i],
                **words,
            )
            rows.append(row)
        return rows

    def array(self, path: str) -> zarr.Array:
        """One array as it lies there, possibly with rows beyond the commit."""
        return self._arrays[path]

    def read(self, path: str) -> np.ndarray:
        """The committed rows of one array.

        Args:
            path: Such as "data/action".

        Returns:
            (n_steps, ...) or (n_episodes, ...).

        Raises:
            StoreError: It is damaged.
        """
        rows = self.n_steps if path.startswith("data/") else self.n_episodes
        try:
            values = np.asarray(self._arrays[path][:rows])
        except _DAMAGE as error:
            raise StoreError(f"{self.path}: {path} is damaged: {' '.join(str(error).split())}") from error
        if len(values) != rows:
            raise StoreError(f"{self.path}: {path} is damaged: it has {len(values)} rows of the {rows} committed")
        return values

    def column(self, name: str) -> np.ndarray:
        """The committed rows of a column of `meta/`, (n_episodes, ...)."""
        return self.read(f"meta/{name}")

    def digests(self) -> list[bytes]:
        """`Episode.sha256` of each committed episode, by which one that is here already is known."""
        return [row.tobytes() for row in self.column("sha256")]

    def note(self, index: int) -> dict[str, Any] | None:
        """What was noted about where an episode comes from; None if nothing was."""
        return self.attributes.get("notes", {}).get(str(index))

    def check_indices(self, indices: Iterable[int]) -> list[int]:
        """Refuses episodes that are not there.

        Args:
            indices: Episode numbers.

        Returns:
            The same, as a list.

        Raises:
            StoreError: One of them does not exist.
        """
        chosen = [int(i) for i in indices]
        wrong = [i for i in chosen if not 0 <= i < self.n_episodes]
        if wrong:
            legal = f"0 to {self.n_episodes - 1}" if self.n_episodes else "none, it is empty"
            raise StoreError(f"{self.path}: no episode {', '.join(map(str, wrong))}; legal are {legal}")
        return chosen

    def _load(self) -> None:
        """(Re)reads the attributes and opens the arrays."""
        self.attributes = read_attributes(self.path)
        self.spec: RobotSpec = stored_robot(self.path, self.attributes)
        try:
            self._root = zarr.open_group(
                self._store, mode="r" if self._store.read_only else "r+", zarr_format=3, use_consolidated=False
            )
            arrays = {layout.path: self._root[layout.path] for layout in layouts(self.spec)}
        except _DAMAGE as error:
            raise StoreError(f"{self.path}: damaged: {' '.join(str(error).split())}") from error
        self._arrays: dict[str, zarr.Array] = {}
        for layout in layouts(self.spec):
            array = arrays[layout.path]
            tail = () if layout.width is None else (layout.width,)
            if not isinstance(array, zarr.Array) or array.shape[1:] != tail or array.dtype != np.dtype(layout.dtype):
                raise StoreError(f"{self.path}: damaged: {layout.path} is not (rows, {layout.width}) {layout.dtype}")
            # Without this a chunk of nothing but fill values is not stored, and cannot be told from a lost one
            self._arrays[layout.path] = array.with_config({"write_empty_chunks": True})


def build_episode(arrays: dict[str, np.ndarray], attributes: dict[str, Any], i: int) -> Episode:
    """Cuts one episode out of the arrays of a store and compares it with its digest.

    Args:
        arrays: By path, as in `schema.layouts`; their rows as far as they are committed.
        attributes: Of the root.
        i: Which episode.

    Returns:
        The episode, with arrays of its own.

    Raises:
        EpisodeError: It is not what was saved.
    """
    ends = arrays["meta/episode_ends"]
    start, stop = int(ends[i - 1]) if i else 0, int(ends[i])
    rewards = arrays["data/reward"][start:stop].copy()
    success = int(arrays["meta/success"][i])
    final_observation, final_timestamp = arrays["meta/final_observation"][i], arrays["meta/final_timestamp"][i]
    episode = Episode(
        observations=np.concatenate([arrays["data/observation"][start:stop], final_observation[None]]),
        actions=arrays["data/action"][start:stop].copy(),
        timestamps=np.concatenate([arrays["data/timestamp"][start:stop], final_timestamp[None]]),
        rewards=None if np.isnan(rewards).all() else rewards,
        ended_by=_decoded(ENDINGS, arrays["meta/ended_by"][i], "ended_by"),
        operator=_decoded(attributes["operators"], arrays["meta/operator"][i], "operator"),
        task=_decoded(attributes["tasks"], arrays["meta/task"][i], "task"),
        seed=int(arrays["meta/seed"][i]),
        start_time_ns=int(arrays["meta/start_time_ns"][i]),
        success=None if success < 0 else bool(success),
    )
    if episode.sha256 != arrays["meta/sha256"][i].tobytes():
        raise EpisodeError("it is not what was saved (its SHA-256 differs)")
    return episode


def _decoded(words: list[str] | tuple[str, ...], code: int, column: str) -> str:
    if not 0 <= code < len(words):
        raise EpisodeError(f"{column} code {code}, of {len(words)}")
    return words[code]
