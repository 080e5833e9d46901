"""Pictures of studies: learning curves of every seed by robot, and settings side by side as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.study import Study
from toolkit.study_report import Finished, Row, rows
from toolkit.study_result import Result

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
    shown: list[tuple[str, list[Row]]] = []
    for study, finished in studies:
        of_study = [row for row in rows(study, finished) if row.robot != "all" and row.iqm is not None]
        if study.name in SIDE_BY_SIDE and of_study:
            shown.append((f"{study.name}: {study.meaning}", of_study))
    if not shown:
        return None
    plt = _pyplot()
    heights = [0.9 + 0.32 * len(group) for _, group in shown]
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(8, sum(heights) + 0.8), squeeze=False, height_ratios=heights, sharex=True,
        constrained_layout=True,
    )  # fmt: skip
    robots = list(dict.fromkeys(row.robot for _, group in shown for row in group))
    for axis, (title, group) in zip(axes[:, 0], shown, strict=True):
        _draw_bars(axis, group, robots)
        axis.set_title(title, loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("return / demos' mean return")
    marks = [plt.Rectangle((0, 0), 1, 1, color=f"C{i}", alpha=0.55, label=robot) for i, robot in enumerate(robots)]
    marks.append(plt.Line2D([], [], color="0.1", marker="o", markersize=3.5, linestyle="", label="a seed"))
    marks.append(plt.Line2D([], [], color="0.1", marker="x", markersize=5, linestyle="", label="a failed seed"))
    marks.append(plt.Line2D([], [], color="0.2", linewidth=1.2, label="95 % interval of the bar"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    return _save(figure, path)


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


def _draw_bars(axis: Any, group: Sequence[Row], robots: Sequence[str]) -> None:
    names = list(dict.fromkeys(row.name for row in group))
    width = 0.8 / len(robots)
    for row in group:
        place = robots.index(row.robot)
        y = names.index(row.name) + (place - (len(robots) - 1) / 2) * width
        axis.barh(y, row.iqm, height=0.9 * width, color=f"C{place}", alpha=0.55)
        if row.interval:
            axis.plot(row.interval, [y, y], color="0.2", linewidth=1.2)
        for ratio, failed in zip(row.ratios, row.failed, strict=True):
            axis.plot(ratio, y, marker="x" if failed else "o", markersize=5 if failed else 3.5, color="0.1")
    axis.axvline(1.0, color="0.35", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
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
