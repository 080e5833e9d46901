"""Hot swap: another bundle for the same robot, loaded and proven beside the running one, takes over between ticks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import MANIFEST_NAME
from export.monitor import RewardMonitor
from export.signature import SIGNATURE_NAME
from robots.spec import ToolkitError

if TYPE_CHECKING:
    from export.control_step import Policy, Reward


@dataclass(frozen=True)
class Successor:
    """What takes over. One for the same robot; whoever makes it has checked that."""

    policy: Policy
    reward: Reward | None
    monitor: RewardMonitor | None


class HotSwap:
    """Watches a bundle's folder from a thread of its own; `gcl export --force` puts another one there in one rename."""

    def __init__(self, path: str | Path, load: Callable[[Path], Successor], poll_seconds: float = 1.0) -> None:
        """Begins to watch.

        Args:
            path: The folder of the running bundle.
            load: Makes what takes over of what is there now, or raises ToolkitError; runs in the thread.
            poll_seconds: [s] between looks.
        """
        self.refused: list[str] = []  # why bundles that came did not take over
        self._path, self._load, self._poll_seconds = Path(path), load, poll_seconds
        self._ready: Successor | None = None
        self._seen = self._mark()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="hot-swap")
        self._thread.start()

    def take(self) -> Successor | None:
        """What is to take over now, once; None for nothing."""
        if self._ready is None:
            return None
        successor, self._ready = self._ready, None
        return successor

    def close(self) -> None:
        """Stops watching."""
        self._ended.set()
        self._thread.join(5.0)

    def _watch(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            mark = self._mark()
            if mark is None or mark == self._seen:
                continue  # the folder is being renamed, or nothing has changed
            self._seen = mark
            try:
                self._ready = self._load(self._path)
            except ToolkitError as error:
                self.refused.append(str(error))

    def _mark(self) -> tuple[int, ...] | None:
        """What tells one bundle, and one signature of it, from another without reading them; None if there is none."""
        try:
            status = (self._path / MANIFEST_NAME).stat()
        except OSError:
            return None
        try:
            signed_ns = (self._path / SIGNATURE_NAME).stat().st_mtime_ns
        except OSError:
            signed_ns = 0  # not signed, or not yet: a signature that comes later is a change
        return status.st_ino, status.st_mtime_ns, status.st_size, signed_ns
