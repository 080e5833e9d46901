"""Studies: named lists of jobs, each of them a few `gcl` commands that end in one figure."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from robots.spec import ToolkitError

KINDS = ("train", "reoptimise", "transfer")
EVALUATION_EPISODES = 20
# Folders beside those of the studies: learned rewards, and policies of changed robots trained on the true reward
REWARDS, TRUTHS = "rewards", "truths"


class StudyError(ToolkitError):
    """A study or a job that does not exist or cannot be run."""


@dataclass(frozen=True)
class Job:
    """One seed of one setting on one robot. What its commands are is `plan`."""

    study: str
    """The study it belongs to."""
    name: str
    """The setting, such as "gail"; jobs that differ in the seed alone share it, and a row of the table."""
    robot: str
    """Robot name or path."""
    demos: str
    """Demo store: a path ending in .zarr, or the name of one that ships."""
    count: int | None
    """Learn from the first so many demos; None for all."""
    settings: tuple[str, ...]
    """Arguments of --set."""
    seed: int
    """Of training."""
    steps: int | None = None
    """Control steps of training; None for the default."""
    again_settings: tuple[str, ...] | None = None
    """Of the policy that is trained from nothing on the learned reward; None for `settings`."""
    again_steps: int | None = None
    """Control steps of that policy; None for `steps`."""
    again_options: tuple[str, ...] = ()
    """Further arguments of `gcl train` for that policy; {run} stands for the run that learned the reward."""
    reward: str | None = None
    """Names the reward it is trained on, which jobs of other names may share; None for `name`."""
    truth_steps: int | None = None
    """Control steps of the policy that is trained on a changed robot's true reward; None for `again_steps`."""
    seconds: float | None = None
    """Training is stopped after so many seconds [s]; None for never."""
    kind: str = "train"
    """One of KINDS: train and evaluate; then again from scratch on the frozen reward; that on a changed robot."""
    options: tuple[str, ...] = ()
    """Further arguments of `gcl train`."""
    episodes: int = EVALUATION_EPISODES
    """Of the policy's evaluation; few do not see a beginning in fifty from which it fails."""
    threads: int = 1
    """Threads of training; a job with more than one runs with no other beside it."""
    yardstick: str | None = None
    """Store whose demos' mean return is 1; None for `demos`, as it should be unless those are bad on purpose."""
    variant: str | None = None
    """The changed robot of kind "transfer", name or path."""
    at_least: float | None = None
    """What the interquartile mean of its row should reach; None where nothing is demanded."""
    correlation_at_least: float | None = None
    """What the correlation of learned and true return should reach on every seed; None where nothing is demanded."""
    measure_too: tuple[str, ...] = ()
    """Arguments of one more `gcl` command whose JSON is kept; {run} and {bundle} stand for the job's own, {robot} for
    the changed robot."""

    def __post_init__(self) -> None:
        """Refuses what no plan can be made for."""
        if self.kind not in KINDS:
            raise StudyError(f"{self.folder_name}: kind {self.kind!r}; legal are {', '.join(KINDS)}")
        if (self.kind == "transfer") != (self.variant is not None):
            raise StudyError(f"{self.folder_name}: kind {self.kind!r}, variant {self.variant!r}; the two go together")

    @property
    def folder_name(self) -> str:
        """Names its folder, unique within the study."""
        return _plain(f"{self.shown_robot} {self.name} s{self.seed}")

    @property
    def reward_folder_name(self) -> str:
        """Names the folder of a reward on which new policies are trained, be it on the same robot or a changed one."""
        return _plain(f"{_robot_name(self.robot)} {self.reward or self.name} s{self.seed}")

    @property
    def shown_robot(self) -> str:
        """The robot in words, without the folders of its path; of kind "transfer" both."""
        return " to ".join(_robot_name(robot) for robot in (self.robot, self.variant) if robot is not None)


@dataclass(frozen=True)
class Study:
    """A question, and the jobs that answer it."""

    name: str
    """One word, for --studies."""
    meaning: str
    """The question in one line."""
    target: str
    """What would be a good answer, in words."""
    jobs: tuple[Job, ...]
    """In the order they are begun."""
    no_seed_under: float | None = None
    """No single seed should be under this; None where nothing is demanded."""
    gate: bool = False
    """Whether a miss is a failure (exit code 1)."""


@dataclass(frozen=True)
class Stage:
    """One `gcl` command of a job."""

    name: str
    """Names its files in the job's folder."""
    arguments: tuple[str, ...]
    """After `gcl`."""
    folder: Path
    """Where its output and its record go: the job's, or one that it shares with others, and is then run once."""
    run: Path | None = None
    """The run folder it trains in, which it can go on with; None for other commands."""

    @property
    def command(self) -> str:
        """As a person would type it."""
        return shlex.join(("gcl", *self.arguments))


@dataclass(frozen=True)
class Plan:
    """What a job does, and which of its figures is the result."""

    stages: tuple[Stage, ...]
    """One after another."""
    measured: str = "eval"
    """The stage whose mean return is the numerator."""
    against: str | None = None
    """The stage whose mean return is the denominator; None for the demos' mean return."""


def plan(job: Job, demos: str, folder: Path) -> Plan:
    """The commands of a job.

    Args:
        job: The job.
        demos: Path of its demo store.
        folder: Its folder, `<out>/<study>/<folder_name>`; what it shares with other jobs goes to `<out>/rewards` and
            `<out>/truths`.

    Returns:
        The plan.
    """
    out = folder.parent.parent
    robot = job.variant or job.robot  # on which the new policy acts
    # What more than one job asks for is made once, whichever study they belong to
    learned_in = folder if job.kind == "train" else out / REWARDS / job.reward_folder_name
    run, bundle = learned_in / "run", learned_in / f"{_robot_name(job.robot)}.bundle"
    learned = ["--demos", demos] + (["--count", str(job.count)] if job.count is not None else [])
    again_steps = job.again_steps or job.steps
    stages = [_train("train", job, learned_in, run, *learned, *job.options)]
    stages.append(_evaluate("eval", learned_in, run, job.episodes))
    if job.kind in ("reoptimise", "transfer"):
        export = ("export", "--checkpoint", str(run), "--out", str(bundle), "--force", "--json")
        frozen = ["--objective", "reward", "--reward", str(bundle / "reward.onnx"), "--robot", robot]
        own = job.settings if job.again_settings is None else job.again_settings
        again, new = folder / "again", dataclasses.replace(job, steps=again_steps, settings=own)
        stages += [
            Stage("export", export, learned_in),
            _train("again", new, folder, again, *frozen, *(word.format(run=run) for word in job.again_options)),
            _evaluate("eval-again", folder, again, job.episodes),
        ]
    if job.variant is not None:
        place = out / TRUTHS / _plain(f"{_robot_name(job.variant)} s{job.seed}")
        known = ["--objective", "task-reward", "--robot", job.variant]
        # By the defaults: the settings are for learned rewards, whose scale is another
        plain = dataclasses.replace(job, steps=job.truth_steps or again_steps, settings=())
        truth = _train("truth", plain, place, place / "run", *known)
        stages += [truth, _evaluate("eval-truth", place, place / "run", job.episodes)]
    if job.measure_too:
        filled = (word.format(run=run, bundle=bundle, robot=robot) for word in job.measure_too)
        stages.append(Stage("too", tuple(filled), folder))
    against = {"train": None, "reoptimise": "eval", "transfer": "eval-truth"}[job.kind]
    return Plan(tuple(stages), "eval" if job.kind == "train" else "eval-again", against)


def _train(name: str, job: Job, folder: Path, out: Path, *what: str) -> Stage:
    arguments = ["train", *what, "--out", str(out), "--seed", str(job.seed), "--json"]
    if job.steps is not None:
        arguments += ["--steps", str(job.steps)]
    if job.seconds is not None:
        arguments += ["--seconds", f"{job.seconds:g}"]
    for setting in (f"threads={job.threads}", *job.settings):
        arguments += ["--set", setting]
    return Stage(name, tuple(arguments), folder, out)


def _evaluate(name: str, folder: Path, run: Path, episodes: int) -> Stage:
    return Stage(name, ("eval", str(run), "-n", str(episodes), "--json"), folder)


def _robot_name(robot: str) -> str:
    """Of a name, or of a path to a robot.yaml or to its folder."""
    path = Path(robot)
    return path.parent.name if path.name == "robot.yaml" else path.stem


def _plain(words: str) -> str:
    """As a folder's name that is no trouble in a shell."""
    return re.sub(r"[^A-Za-z0-9._=]+", "-", words)
