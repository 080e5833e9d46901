"""Hot swap: what comes is loaded beside the running bundle, taken once, and refused without harm."""

import time
from pathlib import Path

import pytest

from export.bundle import MANIFEST_NAME, BundleError
from export.hot_swap import HotSwap, Successor
from export.signature import SIGNATURE_NAME


class Loader:
    """Makes successors, or refuses as told."""

    def __init__(self) -> None:
        self.calls, self.refuse = 0, False

    def __call__(self, path: Path) -> Successor:
        self.calls += 1
        if self.refuse:
            raise BundleError("damaged")
        return Successor(object(), None, None)  # type: ignore[arg-type]


def put(folder: Path, text: str) -> None:
    """Puts another manifest there in one rename."""
    new = folder / "new"
    new.write_text(text)
    new.rename(folder / MANIFEST_NAME)


def wait(until: object) -> None:
    end = time.monotonic() + 10.0
    while not until() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    assert until()  # type: ignore[operator]


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Path, Loader, HotSwap]:
    put(tmp_path, "first")
    loader = Loader()
    return tmp_path, loader, HotSwap(tmp_path, loader, poll_seconds=0.01)


def test_what_is_there_already_does_not_take_over(watched: tuple[Path, Loader, HotSwap]) -> None:
    """Only a change counts."""
    folder, loader, swap = watched
    time.sleep(0.1)
    assert swap.take() is None and loader.calls == 0
    swap.close()


def test_a_new_one_is_taken_once(watched: tuple[Path, Loader, HotSwap]) -> None:
    """It is handed over once, and the next change gives the next."""
    folder, loader, swap = watched
    for k in (1, 2):
        put(folder, f"another {k}")
        wait(lambda: swap._ready is not None)
        assert swap.take() is not None and swap.take() is None and loader.calls == k
    swap.close()


def test_a_refused_one_changes_nothing(watched: tuple[Path, Loader, HotSwap]) -> None:
    """One that cannot be loaded is told and tried once; a folder that is gone for a moment is waited for."""
    folder, loader, swap = watched
    loader.refuse = True
    put(folder, "one that is not signed yet")
    wait(lambda: swap.refused == ["damaged"])
    (folder / SIGNATURE_NAME).write_text("signed, but still refused")
    wait(lambda: swap.refused == ["damaged"] * 2)
    (folder / MANIFEST_NAME).unlink()
    time.sleep(0.05)
    assert swap.take() is None and loader.calls == 2
    loader.refuse = False
    put(folder, "a good one at last")
    wait(lambda: swap._ready is not None)
    swap.close()
