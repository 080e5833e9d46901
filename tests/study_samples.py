"""Results of studies that nobody ran, for tests of what is made of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from toolkit.study import Job, Study
from toolkit.study_report import Finished
from toolkit.study_result import Result

JOB = Job("reach", "segment", "cheetah", "cheetah", 5, (), 0, 1000, at_least=0.98)


def result(job: Job, ratio: float | None, mean: float = 600.0) -> Result:
    """A result that ends at `ratio`, or failed if that is None, of demos with that mean return."""
    curve = tuple({"seconds": 10.0 * i, "mean": mean * share} for i, share in enumerate((0.2, 0.92, 0.96), start=1))
    return Result(
        study=job.study, name=job.name, robot=job.robot, seed=job.seed, commands=("gcl train", "gcl eval"),
        commit="abc123", machine={"cpu": "Abacus", "cores": 2, "system": "Linux x86_64", "jobs side by side": 2},
        date="2026-01-02T03:04:05Z", demos="d.zarr", demos_sha256="s", demos_mean=mean, steps=1000, seconds=30.0,
        ratio=ratio, mean=None if ratio is None else ratio * mean, curve=curve, wall_seconds=40.0,
        episodes=None if ratio is None else 20,
        failed="train: exit code 1: RuntimeError: NaN" if ratio is None else None,
    )  # fmt: skip


def finished(*ratios: float | None, robot: str = "cheetah", mean: float = 600.0) -> list[Finished]:
    """Seeds 0, 1, ... of `JOB` with these ratios."""
    jobs = [dataclasses.replace(JOB, robot=robot, seed=seed) for seed in range(len(ratios))]
    return [(job, result(job, ratio, mean)) for job, ratio in zip(jobs, ratios, strict=True)]


def moved(name: str, *ratios: float | None, untrained: float = 150.0) -> list[Finished]:
    """Seeds 0, 1, ... of a setting of that name on a changed robot, where a policy on the true reward earns 500."""
    stages = {"too": {"mean": untrained}, "eval-truth": {"mean": 500.0}}
    made = []
    for seed, ratio in enumerate(ratios):
        job = dataclasses.replace(JOB, name=name, kind="transfer", variant="cheetah-lame", seed=seed, at_least=0.8)
        made.append((job, dataclasses.replace(result(job, ratio, 600.0), stages=stages if ratio else {})))
    return made


def study(some: Sequence[Finished], **more: Any) -> Study:
    """The study they are of."""
    return dataclasses.replace(Study("reach", "m", "t", tuple(job for job, _ in some), no_seed_under=0.9), **more)
