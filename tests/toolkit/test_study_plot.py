"""The pictures are drawn from whatever there is, and not where there is nothing."""

import dataclasses
from pathlib import Path

from study_samples import finished, moved, study

from toolkit.study_plot import plot_bars, plot_curves, plot_transfer


def test_curves_of_several_robots(tmp_path: Path) -> None:
    """Failed seeds keep the curve they had; a robot more than fits into one line begins another."""
    robots = ("cheetah", "walker", "finger", "hopper")
    some = [entry for robot in robots for entry in finished(1.0, None, robot=robot)]
    path = plot_curves(tmp_path / "curves.png", [(study(some), some)])
    assert path is not None and path.stat().st_size > 10_000


def test_bars_of_a_comparison(tmp_path: Path) -> None:
    """Settings of studies that compare them become bars, and those of other studies do not."""
    some = finished(0.9, 1.0, None) + finished(0.8, robot="walker")
    compared = study(some, name="ablation")
    path = plot_bars(tmp_path / "bars.png", [(compared, some)])
    assert path is not None and path.stat().st_size > 10_000
    assert plot_curves(tmp_path / "none.png", [(compared, some)]) is None
    assert plot_bars(tmp_path / "none.png", [(study(some), some)]) is None


def test_bars_of_policies_on_changed_robots(tmp_path: Path) -> None:
    """Studies of other kinds have no part in it, and one that nothing was run of is no picture."""
    some = moved("continued", 0.9, None) + moved("anew", 0.4) + finished(1.0)
    path = plot_transfer(tmp_path / "transfer.png", [(study(some), some)])
    assert path is not None and path.stat().st_size > 10_000
    assert plot_transfer(tmp_path / "none.png", [(study(finished(1.0)), finished(1.0))]) is None
    planned = [(job, None) for job, _ in moved("anew", 0.4)]
    assert plot_transfer(tmp_path / "none.png", [(study(planned), planned)]) is None


def test_nothing_to_draw_is_no_picture(tmp_path: Path) -> None:
    """Before the first result there is no file, and no error."""
    some = [(dataclasses.replace(job, seed=seed), None) for seed, (job, _) in enumerate(finished(1.0, 1.0))]
    assert plot_curves(tmp_path / "a.png", [(study(some), some)]) is None
    assert plot_bars(tmp_path / "b.png", [(study(some, name="family"), some)]) is None
    assert list(tmp_path.iterdir()) == []
