"""What a comparison with rivals says: who reaches 0.9 of the demonstrations when, as a table, JSON and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.rivals.shared_world import RivalError

COLUMNS: tuple[str, ...] = ("seconds", "wall_seconds", "cpu_seconds", "steps", "mean", "std")  # of <contender>.csv
SHARE = 0.9  # of the demos' mean return that counts as arrived

Row = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """One contender's run in figures."""

    name: str
    seconds: float
    """How long it ran, by the clock of the comparison."""
    steps_per_s: float
    best: float
    """Best mean return of an evaluation."""
    final: float
    reached: float | None
    """Seconds to SHARE of the demos' mean return; None: not within `seconds`."""


def evaluation_times(seconds: float) -> list[float]:
    """When to evaluate: every 5 s at first, then every twentieth part of the time gone by, at most 30 s apart.

    Args:
        seconds: Length of the run; the last evaluation is there.

    Returns:
        Increasing times from 0 [s].
    """
    times = [0.0]
    while times[-1] + _gap(times[-1]) < seconds:
        times.append(times[-1] + _gap(times[-1]))
    return [*times, seconds]


def _gap(time: float) -> float:
    return min(30.0, max(5.0, time / 20))


def outcome(name: str, rows: Sequence[Row], demos_mean: float) -> Outcome:
    """Figures of a run.

    Args:
        name: The contender.
        rows: Its evaluations in order, with the numbers of COLUMNS.
        demos_mean: Mean return of the demonstrations.

    Returns:
        The figures.

    Raises:
        RivalError: There are no rows.
    """
    if not rows:
        raise RivalError(f"{name}: no evaluations yet")
    last, means = rows[-1], [row["mean"] for row in rows]
    reached = next((row["seconds"] for row in rows if row["mean"] >= SHARE * demos_mean), None)
    speed = last["steps"] / last["seconds"] if last["seconds"] > 0.0 else 0.0
    return Outcome(name, last["seconds"], speed, max(means), means[-1], reached)


def factor(ours: Outcome, rival: Outcome) -> tuple[float, bool] | None:
    """How many times sooner ours arrives.

    Args:
        ours: Our run.
        rival: Theirs.

    Returns:
        The factor, and whether it is only a lower bound because the rival did not arrive; None if ours did not.
    """
    if ours.reached is None:
        return None
    return (rival.reached or rival.seconds) / max(ours.reached, 1e-9), rival.reached is None


def factor_text(ours: Outcome | None, rival: Outcome) -> str:
    """The factor for a table: "37x", "> 37x" for a lower bound, "-" where there is none."""
    found = None if ours is None or ours is rival else factor(ours, rival)
    if found is None:
        return "-"
    return f"> {found[0]:.0f}x" if found[1] else f"{found[0]:.0f}x"


def table(outcomes: Sequence[Outcome], demos_mean: float, clock: str) -> str:
    """The comparison as a markdown table.

    Args:
        outcomes: The contenders; ours, if there, is named "ours".
        demos_mean: Mean return of the demonstrations.
        clock: Whose seconds these are: "wall" or "cpu".

    Returns:
        Several lines.
    """
    ours = next((o for o in outcomes if o.name == "ours"), None)
    lines = [
        f"| {clock} seconds; demos {demos_mean:.0f} | to {SHARE:g} of the demos | ours is sooner by | steps/s | best "
        "| final |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for o in outcomes:
        reached = f"{o.reached:.0f} s" if o.reached is not None else f"not within {o.seconds:.0f} s"
        cells = (o.name, reached, factor_text(ours, o), f"{o.steps_per_s:,.0f}", f"{o.best:.0f}", f"{o.final:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_rows(path: Path) -> list[dict[str, float]]:
    """Evaluations of one contender; none if the file is not there. A row that is being written is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row.get(name) for name in COLUMNS)]
    return [{name: float(row[name]) for name in COLUMNS} for row in rows]


def plot(path: Path, runs: Mapping[str, Sequence[Row]], demos_mean: float, clock: str) -> None:
    """Draws return over seconds, on a logarithmic axis.

    Args:
        path: The PNG to write.
        runs: Evaluations by contender.
        demos_mean: Mean return of the demonstrations.
        clock: Whose seconds these are.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    for name, rows in runs.items():
        seconds = [max(row["seconds"], 1.0) for row in rows]
        axes.plot(seconds, [row["mean"] for row in rows], marker="o", markersize=3, label=name)
    axes.axhline(demos_mean, linestyle="--", color="tab:gray", label=f"demonstrations ({demos_mean:.0f})")
    axes.axhline(SHARE * demos_mean, linestyle=":", color="tab:gray", label=f"{SHARE:g} of them")
    axes.set_xscale("log")
    axes.set_xlabel(f"{clock} seconds of training")
    axes.set_ylabel("return in dm_control")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    figure.savefig(path, dpi=120)
    plt.close(figure)
