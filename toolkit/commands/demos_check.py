"""`gcl demos check`: is a store sound, and are the demos in it fit to be learned from?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.console import print_rows

if TYPE_CHECKING:
    from demos.quality import EpisodeQuality, QualityReport
    from demos.store import DemoStore


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), help="Draw how far the demos lie apart into this .png.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, store: Path, plot: Path | None, as_json: bool) -> None:
    """Check a store from end to end, and how good its demos are.

    Exit code 1 if anything is damaged. Then, for each demo to be learned from: the share of its actions at a limit
    (saturated) and beyond (outside), seconds in which nothing happened (idle), how far it lies from the others (away, 0
    to 1) and what it therefore weighs in learning. The true reward is not looked at.

    \b
    Example:
      gcl demos check my_demos.zarr
    """
    from demos.store import DemoStore

    opened = DemoStore.open(store)
    problems = opened.verify()
    report = None if problems else _judged(opened)
    if plot is not None and report is not None:
        from toolkit.plot_quality import plot_quality

        plot_quality(report, plot)
    if as_json:
        about: dict[str, Any] = {"store": str(store), **opened.identity(), "problems": problems}
        click.echo(json.dumps(about | _as_dict(report)))
    else:
        for problem in problems:
            click.echo(problem)
        if report is not None:
            print_rows([_row(episode) for episode in report.episodes], False, empty="")
            for line in report.advice():
                click.echo(line)
        verdict = f"{len(problems)} problems" if problems else "sound"
        click.echo(f"{store}: {opened.n_episodes} episodes, {opened.n_steps} steps: {verdict}")
    ctx.exit(1 if problems else 0)


def _judged(store: DemoStore) -> QualityReport | None:
    """The report on the demos to be learned from; None if there are none."""
    from demos.quality import judge_demos

    learned = store.learned()
    return judge_demos(store.select(learned), learned) if learned else None


def _as_dict(report: QualityReport | None) -> dict[str, Any]:
    if report is None:
        return {"episodes": [], "operators": {}, "distance": [], "advice": []}
    episodes = [
        {
            "index": e.index,
            "operator": e.operator,
            "length": e.length,
            "seconds": e.seconds,
            "saturated": _number(e.saturated),
            "outside": _number(e.outside),
            "idle": [list(stretch) for stretch in e.idle],
            "duplicate_of": e.duplicate_of,
            "away": e.away,
            "weight": e.weight,
        }
        for e in report.episodes
    ]
    operators = {name: {"episodes": n, "weight": weight} for name, (n, weight) in report.operators().items()}
    return {
        "episodes": episodes,
        "operators": operators,
        "distance": report.distance.tolist(),
        "advice": report.advice(),
    }


def _row(episode: EpisodeQuality) -> dict[str, Any]:
    """What fits on a line."""
    return {
        "episode": episode.index,
        "operator": episode.operator,
        "seconds": round(episode.seconds, 2),
        "saturated": _percent(episode.saturated),
        "outside": _percent(episode.outside),
        "idle steps": ", ".join(f"{start}-{stop - 1}" for start, stop in episode.idle) or None,
        "repeats": episode.duplicate_of,
        "away": f"{episode.away:.4f}",
        "weight": f"{episode.weight:.2f}",
    }


def _percent(share: float) -> str | None:
    return None if math.isnan(share) else f"{share:.0%}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
