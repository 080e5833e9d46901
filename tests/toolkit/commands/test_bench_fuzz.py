"""`gcl bench fuzz` counts what it throws, and ends with 1 when a driver did what it must not."""

import json
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from toolkit.commands import bench_fuzz
from toolkit.commands.bench_fuzz import fuzz
from toolkit.fuzzing.datagram_oracle import ViolationError


def test_counts() -> None:
    """Each driver has its packets, accepted and refused ones, and its rate in the JSON."""
    result = CliRunner().invoke(fuzz, ["--packets", "7000", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    for driver in ("socket", "dds"):
        row = told[driver]
        assert row["packets"] >= 7000 and row["accepted"] + row["refused"] == row["packets"]
        assert row["violation"] is None and row["packets_per_s"] > 0 and row["accepted"] > 1000


def test_a_violation_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a driver broken on purpose the exit status is 1 and says why; the other drivers still have their turn."""
    monkeypatch.setattr("robots.mock.check_command", lambda *_: None)
    result = CliRunner().invoke(fuzz, ["--packets", "20000"])
    assert result.exit_code == 1
    assert "VIOLATION" in result.output and "dds: 20,000 packets" in result.output


def test_a_driver_that_dies_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found dead while packets were thrown, and once more at the end: one line says how it ended, and no traceback."""

    class Dead:
        counts = Counter({"steps": 3})

        def some(self, count: int) -> tuple[int, int]:
            raise ViolationError("the driver died")

        def close(self) -> None:
            raise ViolationError("the driver ended with -11")

    monkeypatch.setattr(bench_fuzz, "_targets", lambda *_: [Dead()])
    result = CliRunner().invoke(fuzz, ["--driver", "dds"])
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1
    assert "VIOLATION" in result.output and "ended with -11" in result.output


def test_without_cyclonedds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw packets need a running driver; where its library is missing, the message says what to install."""
    monkeypatch.delitem(sys.modules, "toolkit.fuzzing.rtps_target", raising=False)
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    monkeypatch.setitem(sys.modules, "cyclonedds.domain", None)
    result = CliRunner().invoke(fuzz, ["--driver", "rtps"])
    assert result.exit_code == 1 and "gcl-toolkit[ros2]" in result.output


def test_an_unfit_robot() -> None:
    """A robot that measures more than joints is refused with a sentence."""
    result = CliRunner().invoke(fuzz, ["--driver", "dds", "--robot", "walker"])
    assert result.exit_code != 0 and "joints alone" in str(result.exception)
