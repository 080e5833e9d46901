"""Runs the jobs of studies side by side. What is done is not done again, and what was cut short goes on."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robots.spec import ToolkitError
from toolkit.child_commands import ChildCommands
from toolkit.study import Job, Plan, Stage, StudyError, plan
from toolkit.study_result import Result, commit, load_result, machine, read_json, save_result, write_json

_BEGUN_FILE = "begun.json"
_IN_USE: dict[Path, threading.Lock] = {}  # folders that jobs side by side may share


def _lock(folder: Path) -> threading.Lock:
    return _IN_USE.setdefault(folder, threading.Lock())


class Stopped(Exception):  # noqa: N818 - not an error: Ctrl-C
    """The job was stopped before its end; what it has is kept."""


@dataclass(frozen=True)
class Prepared:
    """A job with all that decides its outcome."""

    job: Job
    folder: Path
    plan: Plan
    demos: str
    demos_sha256: str | None
    demos_mean: float | None
    problem: str | None  # why it cannot even begin

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would type them."""
        return tuple(stage.command for stage in self.plan.stages)

    def result(self) -> Result | None:
        """What is on record for the same commands and the same demos; None if nothing is."""
        found = load_result(self.folder)
        same = found is not None and (found.commands, found.demos_sha256) == (self.commands, self.demos_sha256)
        return found if same else None


def prepare(job: Job, out: Path) -> Prepared:
    """Finds a job's demos and makes its commands.

    Args:
        job: The job.
        out: Folder of all studies.

    Returns:
        The job, ready to run; without demos it has a `problem` instead.
    """
    folder = out / job.study / job.folder_name
    demos, chain, mean, problem = job.demos, None, None, None
    try:
        demos, chain, mean = _demos(job.demos, job.count)
        if job.yardstick is not None:
            _, _, mean = _demos(job.yardstick, job.count)
        if not np.isfinite(mean):
            mean, problem = None, f"{demos}: the demos' return is not known, so there is nothing to measure against"
    except ToolkitError as error:
        problem = str(error)
    return Prepared(job, folder, plan(job, demos, folder), demos, chain, mean, problem)


def run_jobs(
    jobs: Sequence[Prepared],
    children: ChildCommands,
    side_by_side: int,
    on_start: Callable[[Job], None],
    on_result: Callable[[Job, Result], None],
) -> None:
    """Runs all jobs: those of one thread side by side, then the others one at a time.

    Args:
        jobs: What to run.
        children: Runs their commands.
        side_by_side: How many at once.
        on_start: Called from a thread of its own when a job begins.
        on_result: Called when a job has ended, failed ones too.

    Raises:
        KeyboardInterrupt: Ctrl-C; the children have been stopped and have saved.
    """

    def work(prepared: Prepared) -> Result | None:
        on_start(prepared.job)
        try:
            return run_job(prepared, children, side_by_side if prepared.job.threads == 1 else 1)
        except Stopped:
            return None

    alone = [job for job in jobs if job.job.threads > 1]
    for some, count in (([job for job in jobs if job.job.threads == 1], side_by_side), (alone, 1)):
        with ThreadPoolExecutor(count) as pool:
            running = {pool.submit(work, job): job for job in some}
            try:
                for future in as_completed(running):
                    result = future.result()
                    if result is not None:
                        on_result(running[future].job, result)
            except BaseException:
                for future in running:
                    future.cancel()
                children.stop()
                raise


def run_job(prepared: Prepared, children: ChildCommands, side_by_side: int = 1) -> Result:
    """Runs one job's commands, those that have not been run, and writes `result.json`.

    Args:
        prepared: The job.
        children: Runs the commands.
        side_by_side: How many jobs run at once, for the record.

    Returns:
        The result, also where a command failed.

    Raises:
        Stopped: `children` were stopped meanwhile; nothing is written.
        StudyError: The folder holds something that no job left there.
    """
    folder, now = prepared.folder, commit()
    commits: dict[str, None] = {}  # in order, each once
    for where, commands in _commands_by_folder(prepared).items():
        with _lock(where):
            commits[_begin(where, {"commands": commands, "demos_sha256": prepared.demos_sha256}, now)] = None
    outputs: dict[str, Any] = {}
    failed, wall = prepared.problem, None
    for stage in prepared.plan.stages if failed is None else ():
        with _lock(stage.folder):
            outcome = _run_stage(stage, prepared, children)
        if outcome["failed"] is not None:
            failed = f"{stage.name}: {outcome['failed']}"
            break
        outputs[stage.name] = outcome["output"]
        wall = outcome["wall_seconds"] if stage.name == "train" else wall
    figures, failed = _figures(prepared, outputs, failed)
    result = Result(
        study=prepared.job.study,
        name=prepared.job.name,
        robot=prepared.job.robot,
        seed=prepared.job.seed,
        commands=prepared.commands,
        commit=", ".join(commits | {now: None}),
        machine={**machine(), "jobs side by side": side_by_side},
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        demos=prepared.demos,
        demos_sha256=prepared.demos_sha256,
        demos_mean=prepared.demos_mean,
        failed=failed,
        wall_seconds=wall,
        curve=_curve(prepared.plan.stages[0].run),
        stages=outputs,
        **figures,
    )
    save_result(folder, result)
    return result


def _commands_by_folder(prepared: Prepared) -> dict[Path, list[str]]:
    """What decides about a folder's content: of one that is shared its own commands, of the job's own all of them."""
    stages = prepared.plan.stages
    shared = {stage.folder: [x.command for x in stages if x.folder == stage.folder] for stage in stages}
    return shared | {prepared.folder: list(prepared.commands)}


def _begin(folder: Path, identity: dict[str, Any], now: str) -> str:
    """Makes a folder, or empties one of other commands; returns the commit that these were begun with."""
    there = read_json(folder / _BEGUN_FILE)
    if there is not None and {name: there.get(name) for name in identity} == identity:
        return there["commit"]
    if folder.exists():
        if there is None and any(folder.iterdir()):
            raise StudyError(f"{folder}: something is there that no study left; move it, or give another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(folder / _BEGUN_FILE, {**identity, "commit": now})
    return now


def _run_stage(stage: Stage, prepared: Prepared, children: ChildCommands) -> dict[str, Any]:
    """Runs one command unless it has been run: {"failed": why or None, "output": its JSON, "wall_seconds": ...}."""
    from toolkit.checkpoint import FILE_NAME

    log = stage.folder / stage.name
    record, out, err = (Path(f"{log}.{suffix}") for suffix in ("json", "out", "err"))
    done = read_json(record)
    if done is not None:
        return done
    resume = ["--resume"] if stage.run is not None and (stage.run / FILE_NAME).exists() else []
    said_before = err.stat().st_size if err.is_file() else 0
    started = time.perf_counter()
    code = children.run([*stage.arguments, *resume], log, prepared.job.threads)
    seconds = time.perf_counter() - started
    if children.stopped:
        raise Stopped
    if code != 0:
        said = _last_line(err, said_before)
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return {"failed": f"{ended}: {said}" if said else ended}
    try:
        output = json.loads(_last_line(out))
    except ValueError:
        return {"failed": f"no JSON in the last line of {out}"}
    # How long the part before an interruption took is not known
    done = {"failed": None, "output": output, "wall_seconds": None if resume else seconds}
    write_json(record, done)
    return done


def _figures(prepared: Prepared, outputs: dict[str, Any], failed: str | None) -> tuple[dict[str, Any], str | None]:
    """Steps, seconds, and the figure that counts with what it is made of; and why there is none."""
    train = outputs.get("train", {})
    figures: dict[str, Any] = {"steps": train.get("steps"), "seconds": train.get("seconds")}
    if failed is not None:
        return figures, failed
    measured, against = outputs[prepared.plan.measured], prepared.plan.against
    one = prepared.demos_mean if against is None else outputs[against]["mean"]
    figures |= {"mean": measured["mean"], "std": measured["std"], "episodes": len(measured["returns"])}
    if one is None or one <= 0.0:
        return figures, f"{against or 'demos'}: a mean return of {one} is nothing to measure against"
    return figures | {"ratio": measured["mean"] / one}, None


def _demos(name: str, count: int | None) -> tuple[str, str, float]:
    """(path, chain digest, mean return) of a store's first `count` demos that are not excluded."""
    from demos.store import DemoStore
    from toolkit.commands.quickstart import shipped_demos

    path = Path(name) if name.endswith(".zarr") else shipped_demos(name)
    # A command that names the checkout's place on this machine would be of no use on another
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    store = DemoStore.open(path)
    used = [row.return_ for row in store.table() if not row.excluded][:count]
    if not used or (count is not None and len(used) < count):
        raise StudyError(f"{path} holds {len(used)} demos to learn from; {count or 'at least 1'} are needed")
    return str(path), store.chain_sha256, float(np.mean(used))


def _curve(run: Path | None) -> tuple[dict[str, float], ...]:
    from toolkit.run import read_evaluations

    return () if run is None else tuple(read_evaluations(run))


def _last_line(path: Path, start: int = 0) -> str:
    """The last line behind byte `start` that is not empty; "" if there is none."""
    lines = path.read_bytes()[start:].decode(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1].strip() if lines else ""
