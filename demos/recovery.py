"""What a writer does on opening a store: cuts off what was never committed and brings back what journals hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.durable import StoreError
from demos.journal import read_episode, read_header
from demos.schema import layouts

if TYPE_CHECKING:
    from demos.store import DemoStore


@dataclass(frozen=True)
class Recovery:
    """What opening for writing had to mend."""

    trimmed_steps: int = 0  # rows of an episode that never came to its commit
    swept_files: int = 0  # half-written files
    restored: tuple[int, ...] = ()  # episodes brought back from their journals
    dropped_journals: int = 0  # of episodes that are in the store, or that hold no whole step


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


def restore_journals(store: DemoStore) -> tuple[tuple[int, ...], int]:
    """Appends the episodes of journals that have no commit, and removes the journals.

    Args:
        store: Opened for writing and trimmed.

    Returns:
        Indices of the episodes brought back, and the number of journals removed because their episode was in the store
        already or they hold no whole step. Journals of another store that used to have this name stay where they are.
    """
    committed = set(zip(store.column("start_time_ns").tolist(), store.column("seed").tolist(), strict=True))
    restored, dropped = [], 0
    for file in sorted(journal_folder(store.path).glob("*.bin")):
        header = read_header(file)
        if header is not None and header.store_id != store.attributes["store_id"]:
            continue
        episode = None
        if header is not None and (header.start_time_ns, header.seed) not in committed:
            episode = read_episode(file)
        if episode is None:
            dropped += 1
        else:
            restored.append(store.append(episode))
        file.unlink()
    return tuple(restored), dropped
