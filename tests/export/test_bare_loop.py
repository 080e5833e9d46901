"""The bare loop: it sleeps to a grid, counts what came late, and asks the system for nothing it is not told to."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from export import bare_loop
from export.real_time import RealTimeOptions
from toolkit.cli import main

WISHES = RealTimeOptions(fifo_priority=50, lock_memory=True, cpu=max(os.sched_getaffinity(0)), stay_awake=True)


def test_every_deadline_is_kept_or_counted() -> None:
    """Ticks and those skipped after a miss are all the deadlines there were in the time."""
    report = bare_loop.keep_time(hz=1000.0, seconds=0.3)
    assert report.wake.count == report.ticks
    assert 0 <= report.misses < report.ticks <= 299
    if report.misses == 0:
        assert report.ticks == 299  # the first is a period after the start


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], []),
        (["--realtime"], [WISHES]),
        (["--realtime", "--cpu", "7"], [dataclasses.replace(WISHES, cpu=7)]),
    ],
)
def test_it_asks_for_real_time_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], asked: list[RealTimeOptions]
) -> None:
    """With --realtime it asks for what the control loop asks for then; without, nothing makes it more than bare."""
    seen: list[RealTimeOptions] = []

    @contextlib.contextmanager
    def remembered(options: RealTimeOptions) -> Iterator[dict[str, str]]:
        seen.append(options)
        yield {}

    monkeypatch.setattr(bare_loop, "left_alone", remembered)
    monkeypatch.setattr(sys, "argv", ["x", "--hz", "100", "--seconds", "0.05", *words])
    bare_loop.main()
    assert json.loads(capsys.readouterr().out)["ticks"] > 0
    assert seen == asked


def test_a_core_without_real_time_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop that asks for nothing does not ask for a core; `gcl bench loop` says so before it starts anything."""
    monkeypatch.setattr(sys, "argv", ["x", "--hz", "100", "--seconds", "0.05", "--cpu", "1"])
    with pytest.raises(SystemExit):
        bare_loop.main()
    assert "--realtime" in capsys.readouterr().err
    result = CliRunner().invoke(main, ["bench", "loop", "--cpu", "1"])
    assert result.exit_code == 2 and "--realtime" in result.stderr
