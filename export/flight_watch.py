"""Decides when a flight log is due: on request, on a fault, on the loss of the controller, at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass

from export.black_box import BlackBox, State
from export.flight_snapshot import Status
from export.flight_writer import FlightWriter

LOST = "controller_lost"
_BEFORE_AND_AFTER = (State.NOT_ARMED, State.ENDED)  # states in which no heartbeat is due


@dataclass(frozen=True)
class WatchReport:
    """What came of the watching."""

    reason: str  # how the run ended: "ended", a fault's reason, or "controller_lost: ..."
    logs: tuple[str, ...]  # paths of the flight logs
    errors: tuple[str, ...]  # why those that were due are not there


class FlightWatch:
    """Looks at a black box from time to time. One thread drives it."""

    def __init__(self, box: BlackBox, writer: FlightWriter, keep: bool = False, lost_seconds: float = 1.0) -> None:
        """Remembers what has been asked for so far.

        Args:
            box: Of the controller.
            writer: Gets the snapshots.
            keep: Write a log also of a run that ended well.
            lost_seconds: [s] without a heartbeat before the controller counts as lost, and at least 20 periods.
        """
        self.lost: str | None = None  # why the controller counts as lost
        self._box, self._writer, self._keep = box, writer, keep
        self._lost_ns = round(1e9 * max(lost_seconds, 20 * box.spec.control_dt))
        self._saves = box.status().save_request
        self._fault_seen = False

    def poll(self, status: Status, now_ns: int) -> None:
        """Starts the logs that are due.

        Args:
            status: The box's words.
            now_ns: [ns] monotonic clock.
        """
        if status.save_request != self._saves:
            self._saves = status.save_request
            self._write("asked for", self._saves)
        if status.fault is not None and not self._fault_seen:
            # At once, for who knows what comes next; `finish` writes it again with what came next.
            self._fault_seen = True
            self._write(_fault_text(status))
        silent_ns = now_ns - status.heartbeat_ns
        if status.state in _BEFORE_AND_AFTER or status.heartbeat_ns == 0 or silent_ns <= self._lost_ns:
            self.lost = None
        elif self.lost is None:
            self.lost = f"{LOST}: no heartbeat for {silent_ns / 1e9:.2f} s while {status.state.text}"
            self._write(self.lost)

    def finish(self, status: Status) -> WatchReport:
        """The controller's end of the pipe is closed: writes the last log, if one is due, and waits for all.

        Args:
            status: The box's words.

        Returns:
            What came of it.
        """
        reason, due = "ended", self._keep
        if status.fault is not None:
            reason, due = _fault_text(status), True
        if status.state is not State.ENDED:
            self.lost = f"{LOST}: it went away while {status.state.text}"
            reason, due = self.lost if status.fault is None else f"{reason}; then {self.lost}", True
        if status.save_request != self._saves:
            self._write("asked for", status.save_request)
        if due and status.heartbeat_ns:
            self._write(reason)
        self._writer.close()
        return WatchReport(reason, tuple(map(str, self._writer.written)), tuple(self._writer.errors))

    def _write(self, reason: str, number: int | None = None) -> None:
        self._writer.write(self._box.snapshot(), reason, number)


def _fault_text(status: Status) -> str:
    return "" if status.fault is None else f"{status.fault.reason}: {status.fault.detail}"
