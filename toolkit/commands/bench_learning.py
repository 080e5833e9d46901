"""`gcl bench learning`: every experiment behind what the README says of learning, in one command."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolkit.study import Job, Study
    from toolkit.study_result import Result
    from toolkit.study_runner import Prepared

REPORT, CURVES, BARS, TRANSFER = "learning.md", "learning.png", "learning-bars.png", "learning-transfer.png"


@click.command(name="learning")
@click.option("--studies", "names", help="Which, separated by commas. Default: all that --list shows without a star.")
@click.option("--robots", help="Only jobs on these robots, separated by commas.")
@click.option("--settings", help="Only jobs of these settings, as the table names them, separated by commas.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Seeds of each setting.")
@click.option("--jobs", "side_by_side", type=click.IntRange(min=1), help="Jobs at a time. Default: one a core.")
@click.option("--smoke", is_flag=True, help="Only a two-minute check; exit code 1 if it misses its target.")
@click.option("--control", is_flag=True, help="Only the control run, with a reward that knows nothing.")
@click.option("--retry", is_flag=True, help="Run jobs again that failed.")
@click.option("--report", "report_only", is_flag=True, help="Run nothing; write the tables from what is there.")
@click.option("--list", "list_only", is_flag=True, help="Show the studies and run nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/bench-learning"), show_default=True,
    help="Folder of all jobs and tables.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON and no progress bar.")
def command(
    names: str | None, robots: str | None, settings: str | None, seeds: int, side_by_side: int | None, smoke: bool,
    control: bool, retry: bool, report_only: bool, list_only: bool, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Train, evaluate and compare on many robots, settings and seeds.

    Writes learning.json, learning.md and pictures. Each job is a few gcl commands with a folder of their own. Ctrl-C
    stops and saves; the same command goes on from there, and what is done is not done again. A failed job stays in the
    table. Exit code 1 means that a job failed or the smoke version missed its target.

    \b
    Examples:
      gcl bench learning --list
      gcl bench learning --smoke
      gcl bench learning --studies reach,family --seeds 3
    """
    studies = _chosen(names, seeds, smoke, control)
    studies = _narrowed(_narrowed(studies, "robot", robots), "name", settings)
    if list_only:
        _list(seeds, as_json)
        return
    from toolkit.study_report import missed
    from toolkit.study_runner import prepare

    prepared = {study.name: [prepare(job, out) for job in study.jobs] for study in studies}
    every = [job for jobs in prepared.values() for job in jobs]
    interrupted = False
    if not report_only:
        to_do = [job for job in every if (found := job.result()) is None or (retry and found.failed is not None)]
        interrupted = not _run(out, to_do, len(every), side_by_side, quiet=as_json)
    finished = [(study, [(job.job, job.result()) for job in prepared[study.name]]) for study in studies]
    _report(out, finished, as_json)
    if interrupted:
        click.echo("stopped and saved; the same command goes on from here", err=True)
        raise SystemExit(130)
    failed = any(result is not None and result.failed is not None for _, jobs in finished for _, result in jobs)
    if failed or any(study.gate and missed(study, jobs) for study, jobs in finished):
        raise SystemExit(1)


def _chosen(names: str | None, seeds: int, smoke: bool, control: bool) -> list[Study]:
    from toolkit.studies import NOT_BY_DEFAULT, all_studies
    from toolkit.study import StudyError

    studies = all_studies(seeds)
    if smoke + control + (names is not None) > 1:
        raise StudyError("--studies, --smoke and --control each say what to run; give one of them")
    if smoke or control:
        return [studies["smoke" if smoke else "control"]]
    if names is None:
        return [study for name, study in studies.items() if name not in NOT_BY_DEFAULT]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in studies]
    if unknown or not wanted:
        raise StudyError(
            f"--studies {names!r}: no study {', '.join(unknown) or 'named'}; legal are {', '.join(studies)}"
        )
    return [studies[name] for name in dict.fromkeys(wanted)]


def _narrowed(studies: list[Study], field: str, wanted: str | None) -> list[Study]:
    """The studies with those jobs only whose `field` is one of the `wanted`, those that have none left out."""
    from toolkit.study import StudyError

    if wanted is None:
        return studies
    names = {name.strip() for name in wanted.split(",")}
    known = {getattr(job, field) for study in studies for job in study.jobs}
    if not names <= known:
        option = {"robot": "--robots", "name": "--settings"}[field]
        raise StudyError(
            f"{option} {wanted!r}: no job on {', '.join(sorted(names - known))}; legal are {', '.join(sorted(known))}"
        )
    kept = [
        dataclasses.replace(study, jobs=tuple(job for job in study.jobs if getattr(job, field) in names))
        for study in studies
    ]
    return [study for study in kept if study.jobs]


def _list(seeds: int, as_json: bool) -> None:
    from toolkit.console import print_rows
    from toolkit.studies import NOT_BY_DEFAULT, all_studies

    rows: list[dict[str, Any]] = [
        {
            "study": study.name + ("*" if study.name in NOT_BY_DEFAULT and not as_json else ""),
            "jobs": len(study.jobs),
            "meaning": study.meaning,
            "target": study.target,
        }
        for study in all_studies(seeds).values()
    ]
    print_rows(rows, as_json, "no studies")


def _run(out: Path, to_do: Sequence[Prepared], total: int, side_by_side: int | None, quiet: bool) -> bool:
    """Runs jobs with a progress bar. False if it was interrupted."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from demos.durable import WriterLock
    from robots.processors import available_cpus
    from toolkit.child_commands import ChildCommands
    from toolkit.study_runner import run_jobs

    columns = [
        TextColumn("{task.completed} of {task.total} jobs"), BarColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[running]} running  {task.fields[last]}"),
    ]  # fmt: skip
    lock = WriterLock(out / ".lock", str(out), "a folder of studies")  # two would write to each other's runs
    children = ChildCommands()
    with Progress(*columns, disable=quiet) as progress:
        task = progress.add_task("jobs", total=total, completed=total - len(to_do), running=0, last="")
        running: set[Job] = set()

        def on_start(job: Job) -> None:
            running.add(job)
            progress.update(task, running=len(running))

        def on_result(job: Job, result: Result) -> None:
            running.discard(job)
            said = f"failed, {result.failed}" if result.failed is not None else f"ratio {result.ratio:.3f}"
            last = f"{job.study}/{job.folder_name}: {said}"
            progress.update(task, advance=1, running=len(running), last=last)
            if not progress.console.is_terminal and not quiet:
                click.echo(last)

        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the children and keep
        try:
            run_jobs(to_do, children, side_by_side or available_cpus(), on_start, on_result)
        except KeyboardInterrupt:
            return False
        finally:
            signal.signal(signal.SIGTERM, previous)
            lock.release()
    return True


def _report(out: Path, finished: Sequence[tuple[Study, Any]], as_json: bool) -> None:
    from toolkit.study_plot import plot_bars, plot_curves, plot_transfer
    from toolkit.study_report import write_report

    typed = shlex.join(["gcl", *sys.argv[1:]])
    data = write_report(out, finished, typed)
    pictures = [plot_curves(out / CURVES, finished), plot_bars(out / BARS, finished)]
    pictures.append(plot_transfer(out / TRANSFER, finished))
    if as_json:
        click.echo(json.dumps(data))
        return
    for path in (out / REPORT, *pictures):
        if path is not None:
            click.echo(f"wrote {path}")
