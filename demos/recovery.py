"""What a writer does on opening a store: cuts off what was never committed and brings back what journals hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demos.durable import StoreError
from demos.episode import Episode, EpisodeError
from demos.journal import read_episode, read_header
from demos.schema import layouts
from robots.spec import RobotSpec

if TYPE_CHECKING:
    from demos.store import DemoStore

# What a journal raises whose checksums are right and whose contents are not: numbers that no episode may hold, or the
# header of another version
_UNFIT = (EpisodeError, TypeError, ValueError, LookupError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Recovery:
    """What opening for writing had to mend."""

    trimmed_steps: int = 0  # rows of an episode that never came to its commit
    swept_files: int = 0  # half-written files
    restored: tuple[int, ...] = ()  # episodes brought back from their journals
    dropped_journals: int = 0  # of episodes that are in the store, or that hold no whole step
    set_aside: tuple[str, ...] = ()  # journals that make no episode: under which name they were kept, and why

    def lines(self) -> list[str]:
        """What whoever opened the store should hear: what came back, and what did not."""
        restored = ", ".join(map(str, self.restored))
        return [f"brought back from the journal: episode {restored}"] * bool(restored) + list(self.set_aside)


def journal_folder(path: Path) -> Path:
    """Where lock and journals of a store lie: beside it, since zarr warns of foreign files inside.

    Args:
        path: The store, "<name>.zarr".

    Returns:
        "<name>.wal".
    """
    return path.with_suffix(".wal")


def sweep(path: Path) -> int:
    """Removes files whose writing was cut off before they got their name.

    Args:
        path: The store.

    Returns:
        How many there were.
    """
    partials = list(path.rglob("*.partial"))
    for partial in partials:
        partial.unlink()
    return len(partials)


def trim(store: DemoStore) -> int:
    """Cuts every array back to what is committed.

    Args:
        store: Opened for writing, attributes freshly read.

    Returns:
        Steps cut off.

    Raises:
        StoreError: An array is shorter than that.
    """
    beyond = 0
    for layout in layouts(store.spec):
        array = store.array(layout.path)
        rows = store.n_steps if layout.counts_steps else store.n_episodes
        if array.shape[0] < rows:
            raise StoreError(
                f"{store.path}: {layout.path} is damaged: it has {array.shape[0]} rows of the {rows} committed"
            )
        if array.shape[0] > rows:
            beyond = max(beyond, array.shape[0] - rows if layout.counts_steps else 0)
            array.resize((rows, *array.shape[1:]))
    return beyond


def restore_journals(store: DemoStore) -> tuple[tuple[int, ...], int, tuple[str, ...]]:
    """Appends the episodes of journals that have no commit, and removes the journals.

    One that makes no episode is kept under another name: it must not keep the others from coming back, today or later.

    Args:
        store: Opened for writing and trimmed.

    Returns:
        Indices of the episodes brought back; the number of journals removed because their episode was in the store
        already or they hold no whole step; where those are that make no episode, and why. Journals of another store
        that used to have this name stay where they are.
    """
    committed = set(zip(store.column("start_time_ns").tolist(), store.column("seed").tolist(), strict=True))
    restored, dropped, set_aside = [], 0, []
    for file in sorted(journal_folder(store.path).glob("*.bin")):
        try:
            header = read_header(file)
            if header is not None and header.store_id != store.attributes["store_id"]:
                continue
            episode = None
            if header is not None and (header.start_time_ns, header.seed) not in committed:
                episode = _fit_episode(file, store.spec)
        except _UNFIT as error:
            kept = file.rename(file.with_suffix(".unfit"))
            why = " ".join(str(error).split()) or type(error).__name__
            set_aside.append(f"a journal makes no episode and was set aside as {kept}: {why}")
            continue
        if episode is None:
            dropped += 1
        else:
            restored.append(store.append(episode))
        file.unlink()
    return tuple(restored), dropped, tuple(set_aside)


def _fit_episode(file: Path, spec: RobotSpec) -> Episode | None:
    """What a journal holds, if a store of the robot can hold it too; None if not even one step is whole."""
    episode = read_episode(file)
    if episode is not None:
        episode.check_robot(spec)
        np.array([episode.seed, episode.start_time_ns], np.int64)  # as the store keeps them
    return episode
