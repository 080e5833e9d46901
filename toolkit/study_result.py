"""What a job came to, as a record in its folder that says how it came about."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """The outcome of one job, failed ones included."""

    study: str
    """Its study, setting, robot and seed, as in `Job`."""
    name: str
    robot: str
    seed: int
    commands: tuple[str, ...]
    """As a person would type them."""
    commit: str
    """Of the code; two, if the job was begun with one and ended with another."""
    machine: dict[str, Any]
    """Processor and cores."""
    date: str
    """When it ended, ISO 8601, UTC."""
    demos: str
    """Path of the store."""
    demos_sha256: str | None
    """Its content; None if there was no store."""
    demos_mean: float | None
    """Mean return of the demos that are the yardstick."""
    failed: str | None = None
    """Why there is no figure, in one line; None if there is one."""
    steps: int | None = None
    """Control steps of training."""
    seconds: float | None = None
    """Training [s], as the run counts them: evaluations left out."""
    wall_seconds: float | None = None
    """From the start of the training process to its end [s], start-up, cloning and evaluations included."""
    mean: float | None = None
    """Mean true return over `episodes` episodes of evaluation."""
    std: float | None = None
    """Their standard deviation."""
    episodes: int | None = None
    """How many."""
    ratio: float | None = None
    """`mean` over what it is measured against."""
    curve: tuple[dict[str, float], ...] = ()
    """Evaluations on the way, as in the run's evaluations.csv."""
    stages: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What each command printed, by stage."""

    def first_second(self, share: float) -> float | None:
        """Seconds of training at the first evaluation of at least `share` of the demos' mean return; None if never."""
        if self.demos_mean is None:
            return None
        return next((row["seconds"] for row in self.curve if row["mean"] >= share * self.demos_mean), None)


def save_result(folder: Path, result: Result) -> None:
    """Writes `result.json`, whole or not at all.

    Args:
        folder: The job's.
        result: What to write.
    """
    write_json(folder / RESULT_FILE, dataclasses.asdict(result))


def load_result(folder: Path) -> Result | None:
    """Reads `result.json`.

    Args:
        folder: The job's.

    Returns:
        The result; None if there is none, or one of another version's making.
    """
    data = read_json(folder / RESULT_FILE)
    try:
        result = Result(**data) if data is not None else None
    except TypeError:
        return None
    if result is None:
        return None
    return dataclasses.replace(result, commands=tuple(result.commands), curve=tuple(result.curve))


def write_json(path: Path, data: Any) -> None:
    """Writes JSON, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(data, indent=2) + "\n")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Reads JSON; None if it is not there or none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def machine() -> dict[str, Any]:
    """What a time measured here depends on: processor, cores this process may use, operating system."""
    from robots.processors import available_cpus

    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    return {"cpu": model, "cores": available_cpus(), "system": f"{platform.system()} {platform.machine()}"}


def commit() -> str:
    """The commit of this checkout, "-dirty" behind it if files differ; the version where it is an installed package."""
    git = ("git", "-C", str(Path(__file__).resolve().parent))
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # a look must not disturb who commits at the same time
    try:
        done = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        from importlib.metadata import version

        return f"version {version('gcl-toolkit')}"
