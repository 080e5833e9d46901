"""Pictures of studies: learning curves of every seed by robot; settings, and policies on changed robots, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.study import Study
from toolkit.study_report import Finished, Row, rows, untrained_rows
from toolkit.study_result import Result

UNTRAINED = "the old policy as it is"
SIDE_BY_SIDE = ("family", "ablation", "scratch")  # compared by their ends, not by their curves
_MOST_RATIO = 1.2  # above it a curve is cut off: what matters is near 1


def plot_curves(path: Path, studies: Sequence[tuple[Study, Sequence[Finished]]]) -> Path | None:
    """Draws return over the demos' mean return against seconds of training: a panel a study and robot, a line a seed.

    Args:
        path: The PNG to write.
        studies: Each with its jobs and their results.

    Returns:
        `path`, or None if there is no curve to draw.
    """
    panels: dict[str, dict[str, list[Result]]] = {}
    for study, finished in studies:
        for job, result in finished if study.name not in SIDE_BY_SIDE else ():
            # What is measured against another policy has a second training behind its figure, which no curve shows
            if result is not None and result.curve and result.demos_mean and job.kind == "train":
                panels.setdefault(f"{study.name}: {job.shown_robot}", {}).setdefault(job.name, []).append(result)
    if not panels:
        return None
    plt = _pyplot()
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (max(6.0, 3.7 * columns), 2.5 * lines + 0.6)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharey=True, constrained_layout=True)
    for axis, (title, groups) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(axis, title, groups)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    said = "training [s], evaluations left out; a line is a seed, its dot the final measurement, a cross a failure"
    figure.supxlabel(said if columns == 3 else said.replace("; ", "\n"), fontsize=10)
    figure.supylabel("return / demos' mean return", fontsize=10)
    return _save(figure, path)


def plot_bars(path: Path, studies: Sequence[tuple[Study, Sequence[Finished]]]) -> Path | None:
    """Draws the studies that compare settings: a bar is an interquartile mean, a point a seed, a cross a failed one.

    Args:
        path: The PNG to write.
        studies: Each with its jobs and their results.

    Returns:
        `path`, or None if no such study has a result.
    """
    shown = [
        (f"{study.name}: {study.meaning}", [Bar(row.name, row.robot, row) for row in _filled(study, finished)])
        for study, finished in studies
        if study.name in SIDE_BY_SIDE
    ]
    return _draw_bars(path, [(title, bars) for title, bars in shown if bars], "return / demos' mean return", ())


def plot_transfer(path: Path, studies: Sequence[tuple[Study, Sequence[Finished]]]) -> Path | None:
    """Draws what became of policies on changed robots: the old one as it is, and those trained on the frozen reward.

    Args:
        path: The PNG to write.
        studies: Each with its jobs and their results.

    Returns:
        `path`, or None if no policy was trained on a changed robot.
    """
    bars: list[Bar] = []
    for study, finished in studies:
        some = sorted((entry for entry in finished if entry[0].kind == "transfer"), key=lambda entry: entry[0].robot)
        bars += [Bar(row.robot, UNTRAINED, row) for row in untrained_rows(study, some)]
        bars += [Bar(row.robot, row.name, row) for row in _filled(study, some)]
    moved = [job for study, _ in studies for job in study.jobs if job.kind == "transfer"]
    targets = {job.at_least for job in moved if job.at_least is not None}
    said = "return / that of a policy trained there on the true reward; dotted: the target"
    panels = [("transfer: the frozen reward on a changed robot", bars)] if bars else []
    return _draw_bars(path, panels, said, sorted(targets))


def _filled(study: Study, finished: Sequence[Finished]) -> list[Row]:
    return [row for row in rows(study, finished) if row.robot != "all" and row.iqm is not None]


@dataclass(frozen=True)
class Bar:
    """A row of a table, as it is drawn."""

    place: str
    """Beside what: the name at the left, shared by bars that are compared."""
    colour: str
    """As what: the name in the legend."""
    row: Row
    """How long."""


def _draw_panel(axis: Any, title: str, groups: dict[str, list[Result]]) -> None:
    for i, (name, results) in enumerate(groups.items()):
        for k, result in enumerate(results):
            assert result.demos_mean is not None
            seconds = [row["seconds"] for row in result.curve]
            ratios = [row["mean"] / result.demos_mean for row in result.curve]
            axis.plot(seconds, ratios, color=f"C{i}", linewidth=1.2, alpha=0.8, label=name if k == 0 else None)
            if result.failed is not None:
                axis.plot(seconds[-1], ratios[-1], marker="x", color=f"C{i}", zorder=3)
            elif result.ratio is not None:
                axis.plot(seconds[-1], result.ratio, marker="o", markersize=4, color=f"C{i}", zorder=3)
    axis.axhline(1.0, color="0.35", linewidth=1, linestyle="--", zorder=1)
    axis.set_title(title, fontsize=10)
    axis.set_xlim(left=0)
    axis.set_ylim(0, _MOST_RATIO)
    axis.grid(alpha=0.25)
    if len(groups) > 1:
        axis.legend(loc="lower right", fontsize=8)


def _draw_bars(
    path: Path, panels: Sequence[tuple[str, Sequence[Bar]]], measured: str, marks: Sequence[float]
) -> Path | None:
    """A panel each, one below the other, with one legend; `marks` are dotted lines."""
    if not panels:
        return None
    plt = _pyplot()
    colours = list(dict.fromkeys(bar.colour for _, bars in panels for bar in bars))
    heights = [0.9 + 0.14 * len(bars) + 0.12 * len({bar.place for bar in bars}) for _, bars in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, sum(heights) + 1.0), squeeze=False, height_ratios=heights, sharex=True,
        constrained_layout=True,
    )  # fmt: skip
    for axis, (title, bars) in zip(axes[:, 0], panels, strict=True):
        _draw_bar_panel(axis, bars, colours, marks)
        axis.set_title(title, loc="left", fontsize=10)
    axes[-1, 0].set_xlabel(measured)
    keys = [plt.Rectangle((0, 0), 1, 1, color=f"C{i}", alpha=0.55, label=name) for i, name in enumerate(colours)]
    keys.append(plt.Line2D([], [], color="0.1", marker="o", markersize=3.5, linestyle="", label="a seed"))
    keys.append(plt.Line2D([], [], color="0.1", marker="x", markersize=5, linestyle="", label="a failed seed"))
    keys.append(plt.Line2D([], [], color="0.2", linewidth=1.2, label="95 % interval of the bar"))
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _save(figure, path)


def _draw_bar_panel(axis: Any, bars: Sequence[Bar], colours: Sequence[str], marks: Sequence[float]) -> None:
    middles, y = list[float](), 0.0
    places = list(dict.fromkeys(bar.place for bar in bars))
    for place in places:
        begun = y
        for bar in (bar for bar in bars if bar.place == place):
            row, colour = bar.row, colours.index(bar.colour)
            axis.barh(y, row.iqm, height=0.9, color=f"C{colour}", alpha=0.55)
            if row.interval:
                axis.plot(row.interval, [y, y], color="0.2", linewidth=1.2)
            for ratio, failed in zip(row.ratios, row.failed, strict=True):
                axis.plot(ratio, y, marker="x" if failed else "o", markersize=5 if failed else 3.5, color="0.1")
            y += 1.0
        middles.append((begun + y - 1.0) / 2)
        y += 0.8
    axis.axvline(1.0, color="0.35", linewidth=1, linestyle="--")
    for mark in marks:
        axis.axvline(mark, color="0.35", linewidth=1, linestyle=":")
    axis.set_yticks(middles, places)
    axis.set_ylim(y - 0.8, -1.0)  # the first on top
    axis.set_xlim(left=-0.02)
    axis.grid(axis="x", alpha=0.25)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)
    return path
