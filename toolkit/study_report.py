"""The table of a study: one row a setting and robot, every seed in it, failed ones as 0."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.seed_statistics import bootstrap_interval, interquartile_mean
from toolkit.studies import GOOD_EXPERT
from toolkit.study import Job, Study
from toolkit.study_result import Result, write_json

Finished = tuple[Job, Result | None]  # a job, and what it came to if it has been run

_HOW_TO_READ = """
A figure is the true return over the mean return of the demos, where a note does not say otherwise. The return is
measured in dm_control over whole episodes, as many as the table says, on seeds that no training uses. A seed that
failed counts as 0. IQM is the interquartile mean over seeds, with its 95 % bootstrap interval (stratified over robots,
2,000 draws), which is rough for three seeds. Seconds are those of learning, cloning included; start-up and evaluations
on the way are only in wall s. Seconds to 0.9 and 0.95 are those of the first evaluation on the way that reached it, of
one to three episodes, each seed; a curve may dip again.
"""


@dataclass(frozen=True)
class Row:
    """The seeds of one setting on one robot, or on all ("all")."""

    robot: str
    name: str
    planned: int
    """Jobs there are to be."""
    ratios: tuple[float, ...]
    """Of each seed that has been run; 0 for one that failed."""
    failed: tuple[bool, ...]
    """Which of them failed."""
    episodes: tuple[int, ...]
    """Of the evaluations, each number that occurs."""
    iqm: float | None
    """Interquartile mean of the ratios; None if nothing has been run."""
    interval: tuple[float, float] | None
    """Of the interquartile mean, 95 %; None for a single seed."""
    steps: float | None
    """Mean control steps of training."""
    seconds: float | None
    """Mean seconds of training."""
    wall_seconds: float | None
    """Mean seconds from the start to the end of the training process."""
    first_90: tuple[float | None, ...]
    """Seconds of training until 0.9 of the demos' mean return, each seed; None for never."""
    first_95: tuple[float | None, ...]
    """The same for 0.95."""
    demos_mean: float | None
    """The demos' mean return."""
    met: bool | None
    """Whether the target is met by what has been run; None where there is none, or nothing to judge. That of all robots
    together is not met where that of one of them is not."""


def rows(study: Study, finished: Sequence[Finished]) -> list[Row]:
    """The rows of a study's table.

    Args:
        study: The study.
        finished: Its jobs with their results.

    Returns:
        A row for each setting and robot in the order of the jobs, then, where there are several robots, one for all of
        them together, its interval stratified over robots.
    """
    groups: dict[tuple[str, str], list[Finished]] = {}
    for job, result in finished:
        groups.setdefault((job.name, job.shown_robot), []).append((job, result))
    made = {key: _row(study, key[1], [members]) for key, members in groups.items()}
    for name in dict.fromkeys(name for name, _ in groups):
        robots = [members for (other, _), members in groups.items() if other == name]
        if len(robots) > 1 and sum(made[key].iqm is not None for key in groups if key[0] == name) > 1:
            together = _row(study, "all", robots)
            alone = [made[key].met for key in groups if key[0] == name]
            made[name, "all"] = dataclasses.replace(together, met=False) if False in alone else together
    return list(made.values())


def untrained_rows(study: Study, finished: Sequence[Finished]) -> list[Row]:
    """What the policy that came with a reward does on a changed robot, of one trained on the true reward there.

    Args:
        study: The study.
        finished: Its jobs of kind "transfer" with their results.

    Returns:
        A row for each changed robot, in the order of the jobs; where jobs of several settings share reward and robot,
        each seed once.
    """
    found: dict[str, dict[int, Finished]] = {}
    for job, result in finished:
        untrained = None if result is None else _measured_too(result).get("mean")
        if result is not None and untrained is not None and "eval-truth" in result.stages:
            ratio = untrained / result.stages["eval-truth"]["mean"]
            as_it_is = dataclasses.replace(result, ratio=ratio, failed=None)
            found.setdefault(job.shown_robot, {}).setdefault(job.seed, (job, as_it_is))
    return [_row(study, robot, [list(by_seed.values())]) for robot, by_seed in found.items()]


def missed(study: Study, finished: Sequence[Finished]) -> bool:
    """Whether any row misses its target, or has not been run to the end."""
    return any(row.met is False or len(row.ratios) < row.planned for row in rows(study, finished))


def write_report(folder: Path, studies: Sequence[tuple[Study, Sequence[Finished]]], command: str) -> dict[str, Any]:
    """Writes `learning.json` and `learning.md`.

    Args:
        folder: Where to.
        studies: Each with its jobs and their results.
        command: What was typed.

    Returns:
        What `learning.json` holds.
    """
    results = [result for _, finished in studies for _, result in finished if result is not None]
    data = {
        "command": command,
        "commits": _distinct(commit for result in results for commit in result.commit.split(", ")),
        "machines": _distinct(_machine(result) for result in results),
        "dates": sorted({result.date for result in results}),
        "studies": [
            {
                "name": study.name,
                "meaning": study.meaning,
                "target": study.target,
                "rows": [dataclasses.asdict(row) for row in rows(study, finished)],
            }
            for study, finished in studies
        ],
        "results": [dataclasses.asdict(result) for result in results],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "learning.json", data)
    lines = _head(data)
    for study, finished in studies:
        lines += _section(study, finished)
    (folder / "learning.md").write_text("\n".join(lines).rstrip() + "\n")
    return data


def _row(study: Study, robot: str, by_robot: Sequence[Sequence[Finished]]) -> Row:
    jobs = [job for members in by_robot for job, _ in members]
    tasks = [[result for _, result in members if result is not None] for members in by_robot]
    results = [result for task in tasks for result in task]
    ratios = tuple(_ratio(result) for result in results)
    run = [[_ratio(result) for result in task] for task in tasks if task]
    iqm = interquartile_mean(ratios) if ratios else None
    single = len(run) == 1
    return Row(
        robot=robot,
        name=jobs[0].name,
        planned=len(jobs),
        ratios=ratios,
        failed=tuple(result.failed is not None for result in results),
        episodes=tuple(sorted({result.episodes for result in results if result.episodes is not None})),
        iqm=iqm,
        interval=bootstrap_interval(run) if any(len(task) > 1 for task in run) else None,
        steps=_mean([result.steps for result in results]),
        seconds=_mean([result.seconds for result in results]),
        wall_seconds=_mean([result.wall_seconds for result in results]),
        first_90=tuple(result.first_second(0.9) for result in results) if single else (),
        first_95=tuple(result.first_second(0.95) for result in results) if single else (),
        demos_mean=_mean([result.demos_mean for result in results]) if single else None,
        met=_met(study, jobs[0], iqm, results),
    )


def _met(study: Study, job: Job, iqm: float | None, results: Sequence[Result]) -> bool | None:
    if iqm is None or (job.at_least is None and study.no_seed_under is None):
        return None
    worst_is_good = study.no_seed_under is None or min(map(_ratio, results)) >= study.no_seed_under
    right = job.correlation_at_least is None or all(
        pearson is not None and pearson >= job.correlation_at_least for pearson in map(_pearson, results)
    )
    return worst_is_good and right and (job.at_least is None or iqm >= job.at_least)


def _ratio(result: Result) -> float:
    return result.ratio if result.failed is None and result.ratio is not None else 0.0


def _head(data: dict[str, Any]) -> list[str]:
    dates = data["dates"]
    span = "nothing has been run" if not dates else dates[0][:10] if dates[0][:10] == dates[-1][:10] else None
    return [
        "# Learning: what was measured",
        "",
        f"- command: `{data['command']}`; each job's own commands are in `learning.json`",
        f"- commit: {', '.join(data['commits']) or '-'}",
        f"- machine: {'; '.join(data['machines']) or '-'}",
        f"- date: {span or f'{dates[0][:10]} to {dates[-1][:10]}'}",
        "",
        *_HOW_TO_READ.strip().splitlines(),
        "",
    ]


def _section(study: Study, finished: Sequence[Finished]) -> list[str]:
    lines = [f"## {study.name}: {study.meaning}", "", f"Target: {study.target}.", ""]
    made = rows(study, finished)
    if not made:
        return [*lines, "No jobs yet.", ""]
    titles = (
        "robot", "setting", "seeds", "episodes", "each seed", "IQM [95 %]", "least", "steps", "seconds", "wall s",
        "s to 0.9", "s to 0.95", "demos' mean", "met",
    )  # fmt: skip
    lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in made]
    notes = _notes(finished)
    return [*lines, "", *(f"- {note}" for note in notes), *([""] if notes else [])]


def _cells(row: Row) -> tuple[str, ...]:
    each = ", ".join(
        "failed" if bad else f"{ratio:.3f}" for ratio, bad in zip(row.ratios, row.failed, strict=True)
    )  # fmt: skip
    interval = f" [{row.interval[0]:.3f}, {row.interval[1]:.3f}]" if row.interval else ""
    everything = row.robot == "all"
    return (
        f"**{row.robot}**" if everything else row.robot,
        row.name,
        str(row.planned) if len(row.ratios) == row.planned else f"{len(row.ratios)} of {row.planned}",
        ", ".join(map(str, row.episodes)) or "-",
        "" if everything else each or "-",
        "-" if row.iqm is None else f"**{row.iqm:.3f}**{interval}",
        f"{min(row.ratios):.3f}" if row.ratios else "-",
        "-" if row.steps is None else f"{row.steps:,.0f}",
        "-" if row.seconds is None else f"{row.seconds:.0f}",
        "-" if row.wall_seconds is None else f"{row.wall_seconds:.0f}",
        _times(row.first_90),
        _times(row.first_95),
        _demos_cell(row),
        {None: "", True: "yes", False: "no"}[row.met],
    )


def _times(seconds: Sequence[float | None]) -> str:
    return ", ".join("never" if value is None else f"{value:.0f}" for value in seconds)


def _demos_cell(row: Row) -> str:
    if row.demos_mean is None:
        return ""
    good = GOOD_EXPERT.get(row.robot, -math.inf)
    return f"{row.demos_mean:.0f}" + ("" if row.demos_mean >= good else f" (under {good:.0f})")


def _notes(finished: Sequence[Finished]) -> list[str]:
    notes = []
    for job, result in finished:
        who = f"{job.shown_robot}, {job.name}, seed {job.seed}"
        if result is not None and result.failed is not None:
            notes.append(f"failed: {who}: {result.failed}")
        elif result is not None and job.kind != "train":
            notes.append(f"{who}: {_details(job, result)}")
    return notes


def _details(job: Job, result: Result) -> str:
    """The parts of a figure that is not measured against the demos."""
    one = "the policy it was learned with" if job.kind == "reoptimise" else "a policy trained on the true reward"
    against = result.stages["eval" if job.kind == "reoptimise" else "eval-truth"]["mean"]
    pearson, untrained = _pearson(result), _measured_too(result).get("mean")
    return (
        f"{result.mean:.0f} against {against:.0f} of {one}"
        + ("" if result.demos_mean is None else f"; demos {result.demos_mean:.0f}")
        + ("" if pearson is None else f"; Pearson {pearson:.3f}")
        + ("" if untrained is None else f"; the policy that came with the reward, untrained there, {untrained:.0f}")
    )


def _pearson(result: Result) -> float | None:
    return _measured_too(result).get("pearson")


def _measured_too(result: Result) -> dict[str, Any]:
    """What the job's further command printed; empty where it has none, or did not come to it."""
    return result.stages.get("too") or {}


def _machine(result: Result) -> str:
    facts = result.machine
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['jobs side by side']} job(s) at a time"


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
