"""Flight logs are written beside the watching, one after the other, and a slow disk holds up nobody."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from controller_process import write_row

import export.flight_writer as flight_writer
from export.black_box import BlackBox
from export.flight_writer import FlightWriter
from robots.spec import RobotSpec


@pytest.fixture
def box(arm: RobotSpec) -> Iterator[BlackBox]:
    """A box with one row."""
    made = BlackBox.create(arm, seconds=0.1)
    write_row(made, 0)
    yield made
    made.close()


def test_the_same_log_again_counts_once(box: BlackBox, tmp_path: Path) -> None:
    """The log of the end is replaced by a newer one; those that were asked for are numbered beside it."""
    writer = FlightWriter(tmp_path / "flight.npz")
    writer.write(box.snapshot(), "a fault")
    writer.write(box.snapshot(), "asked for", number=7)
    writer.write(box.snapshot(), "a fault, and what came after")
    writer.close()
    assert writer.written == [tmp_path / "flight.npz", tmp_path / "flight-7.npz"]
    assert not writer.errors and not writer.busy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flight-7.npz", "flight.npz"]


def test_a_slow_disk_holds_up_nobody(box: BlackBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk takes its time, further wishes are refused with an error, and the log of the end is not."""
    slow, written = threading.Event(), []

    def save(path: Path, snapshot: object, reason: str) -> None:
        slow.wait(20)
        written.append(reason)

    monkeypatch.setattr(flight_writer, "save_flight", save)
    writer = FlightWriter(tmp_path / "flight.npz")
    for number in range(1, 6):
        writer.write(box.snapshot(), f"wish {number}", number)
    writer.write(box.snapshot(), "the end")
    assert writer.busy and len(writer.errors) == 3 and "still busy" in writer.errors[0]
    slow.set()
    writer.close()
    assert written == ["wish 1", "wish 2", "the end"]


def test_whatever_goes_wrong_is_an_error(box: BlackBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of is kept, too, and the next log is written."""
    monkeypatch.setattr(flight_writer, "save_flight", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    writer = FlightWriter(tmp_path / "flight.npz")
    writer.write(box.snapshot(), "a fault")
    writer.close()
    assert writer.written == [] and writer.errors == [
        f"{tmp_path / 'flight.npz'}: flight log cannot be written: MemoryError: no room"
    ]
