"""Writes flight logs beside the watching: in a thread of its own, so that a slow disk stops nobody's heartbeat."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from export.flight_log import FlightLogError, save_flight
from export.flight_snapshot import FlightSnapshot

_WAITING_AT_MOST = 2  # logs that a slow disk lets pile up; each holds a whole ring


class FlightWriter:
    """Takes snapshots and sees them written, one after the other. Asked by one thread, looked at by any."""

    def __init__(self, path: Path) -> None:
        """Writes nothing yet.

        Args:
            path: Where the log of how the run ended goes; those that were asked for go beside it, numbered.
        """
        self.path = path
        self.written: list[Path] = []  # each once
        self.errors: list[str] = []  # of what could not be written
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="flight-log")
        self._pending: list[Future[None]] = []

    @property
    def busy(self) -> bool:
        """Whether something is still being written."""
        return any(not future.done() for future in self._pending)

    def write(self, snapshot: FlightSnapshot, reason: str, number: int | None = None) -> None:
        """Has a log written; returns at once.

        Args:
            snapshot: The rows.
            reason: Why.
            number: Which of those that were asked for; None for the log of how the run ended.
        """
        self._pending = [future for future in self._pending if not future.done()]
        path = self.path if number is None else self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")
        if len(self._pending) >= _WAITING_AT_MOST and number is not None:
            self.errors.append(f"{path}: not written: the disk is still busy with the logs before")
            return
        self._pending.append(self._pool.submit(self._write, path, snapshot, reason))

    def close(self) -> None:
        """Waits until all is written or has failed."""
        self._pool.shutdown(wait=True)

    def _write(self, path: Path, snapshot: FlightSnapshot, reason: str) -> None:
        try:
            save_flight(path, snapshot, reason)
        except FlightLogError as error:
            self.errors.append(str(error))
        except Exception as error:  # a thread has nobody to raise to
            self.errors.append(f"{path}: flight log cannot be written: {type(error).__name__}: {error}")
        else:
            if path not in self.written:
                self.written.append(path)
