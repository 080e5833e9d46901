"""The comparison's figures: who arrives when, how many times sooner, and when only a bound is known."""

from pathlib import Path

import pytest

from toolkit.rivals.comparison import (
    COLUMNS,
    Outcome,
    evaluation_times,
    factor,
    factor_text,
    outcome,
    plot,
    read_rows,
    table,
)
from toolkit.rivals.ours import write_rows
from toolkit.rivals.shared_world import RivalError


def rows(*points: tuple[float, float]) -> list[dict[str, float]]:
    """Evaluations from (seconds, mean), at 100 steps/s."""
    return [dict(zip(COLUMNS, (s, 2 * s, s, 100 * s, mean, 1.0), strict=True)) for s, mean in points]


def test_the_first_evaluation_at_nine_tenths_counts() -> None:
    """Arrival is the first row at 0.9 of the demos, even if a later one falls back; the boundary itself has arrived."""
    found = outcome("ours", rows((0, 0), (10, 89.9), (20, 90.0), (30, 50), (40, 70)), demos_mean=100.0)
    assert found == Outcome("ours", seconds=40, steps_per_s=100, best=90, final=70, reached=20)


def test_a_rival_that_never_arrives_gives_a_lower_bound() -> None:
    """The factor is then against the length of the rival's run, and the table says so."""
    ours = outcome("ours", rows((0, 0), (20, 95)), 100.0)
    slow, late = outcome("airl", rows((0, 0), (900, 60)), 100.0), outcome("gail", rows((0, 0), (600, 91)), 100.0)
    assert factor(ours, slow) == (45.0, True)
    assert factor(ours, late) == (30.0, False)
    text = table([ours, late, slow], 100.0, "cpu")
    assert "| ours | 20 s | - | 100 | 95 | 95 |" in text
    assert "| gail | 600 s | 30x | 100 | 91 | 91 |" in text
    assert "| airl | not within 900 s | > 45x | 100 | 60 | 60 |" in text


def test_no_factor_where_ours_does_not_arrive() -> None:
    """A rival's time alone makes no factor."""
    ours, rival = outcome("ours", rows((20, 5)), 100.0), outcome("gail", rows((30, 95)), 100.0)
    assert factor(ours, rival) is None
    assert factor_text(ours, rival) == factor_text(None, rival) == "-"


def test_nobody_without_rows() -> None:
    """No evaluation, no figures."""
    with pytest.raises(RivalError, match="gail: no evaluations"):
        outcome("gail", [], 100.0)


def test_evaluation_times_begin_dense_and_end_at_the_end() -> None:
    """5 s apart at first, 5 % later, 30 s at most, and the last one is the end of the run."""
    times = evaluation_times(5400.0)
    gaps = [b - a for a, b in zip(times[:-1], times[1:], strict=True)]
    assert times[:3] == [0.0, 5.0, 10.0] and times[-1] == 5400.0
    assert max(gaps) <= 30.0 and min(gaps[:-1]) == 5.0
    assert evaluation_times(3.0) == [0.0, 3.0]


def test_rows_come_back_and_a_half_written_one_does_not(tmp_path: Path) -> None:
    """A report can be made while a contender is still running."""
    path = tmp_path / "gail.csv"
    write_rows(path, rows((0, 0), (10, 5)))
    with path.open("a") as file:
        file.write("20.0,40.0")
    assert read_rows(path) == rows((0, 0), (10, 5))
    assert read_rows(tmp_path / "nobody.csv") == []


def test_plot_is_a_picture(tmp_path: Path) -> None:
    """A PNG is written, the row at 0 s included although the axis is logarithmic."""
    plot(tmp_path / "c.png", {"ours": rows((0, 0), (20, 95)), "gail": rows((0, 0), (600, 91))}, 100.0, "cpu")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
