"""A training run as a folder: checkpoint, metrics, evaluations, settings; started, stopped and resumed."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from demos.durable import StoreError, WriterLock
from demos.episode import Episode
from robots.spec import RobotSpec
from toolkit import checkpoint as checkpoints
from toolkit.checkpoint import Checkpoint, DeterministicPolicy
from toolkit.config import TrainConfig
from toolkit.evaluate import Evaluation, evaluate
from toolkit.metrics import MetricsLog
from toolkit.networks import GaussianPolicy
from toolkit.stop_signals import stop_on_signals
from toolkit.trainer import TrainingError

_EVALUATION_COLUMNS = ["iteration", "steps", "seconds", "mean", "std", "episodes"]

OnProgress = Callable[[Any, dict[str, float], Evaluation | None], None]


class Learner(Protocol):
    """What a run can train: `trainer.Trainer`, or `offline.OfflineLearner`."""

    spec: RobotSpec
    config: TrainConfig
    policy: GaussianPolicy
    device: torch.device
    iteration: int
    cloning_seconds: float  # [s] spent before the first iteration

    @property
    def steps(self) -> int:
        """Steps so far, of whatever the learner counts."""
        ...

    @property
    def steps_per_iteration(self) -> int:
        """Of the same."""
        ...

    @property
    def iterations(self) -> int:
        """Iterations in the whole run."""
        ...

    def iterate(self) -> dict[str, float]:
        """One iteration; its metrics by name, those under "time/" wall-clock seconds."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run back where `state_dict` found it."""
        ...


AnyLearner = TypeVar("AnyLearner", bound=Learner)


class Run(Generic[AnyLearner]):
    """Trains in a folder. Every file in it is either written whole or can be cut back to the last checkpoint."""

    def __init__(self, folder: Path, trainer: AnyLearner, demos: dict[str, Any], episodes: Sequence[Episode]) -> None:
        """Prepares a run; nothing is written yet.

        Args:
            folder: The run folder; made if missing.
            trainer: What to run.
            demos: Identity of the demo store, for checkpoint and bundle.
            episodes: The demos, of which a sample goes into the checkpoint.
        """
        self.folder = folder
        self.trainer = trainer
        self.demos = demos
        self.episodes = episodes
        # Wall clock spent learning: cloning included, evaluations left out, earlier sessions included
        self.seconds = trainer.cloning_seconds
        self._stop = threading.Event()
        self._known: tuple[int, int] | None = None  # the checkpoint that this run goes on from, or wrote last
        observations = [e.observations[:-1] for e in episodes] or [np.zeros((0, trainer.spec.obs_dim), np.float32)]
        actions = [e.actions for e in episodes] or [np.zeros((0, trainer.spec.act_dim), np.float32)]
        sample = checkpoints.sample_steps(np.concatenate(observations), np.concatenate(actions))
        self._sample = torch.from_numpy(sample[0]), torch.from_numpy(sample[1])

    def resume(self) -> None:
        """Takes up the folder's checkpoint.

        Raises:
            CheckpointError: None there, or damaged.
            TrainingError: It belongs to other settings, another robot, other demos or another reward, or only one of
                the two began with another run's policy.
        """
        known, saved = self._checkpoint(), checkpoints.load(self.folder)
        ours = _identity(self.trainer.spec, self.demos, self.trainer.config)
        theirs = _identity(saved.spec, saved.demos, saved.config)
        # A longer run of the same settings is the one change that makes sense.
        differ = [key for key in ours if ours[key] != theirs[key] and key != "total_steps"]
        if differ:
            changes = "; ".join(f"{key}: was {theirs[key]}, now {ours[key]}" for key in differ)
            raise TrainingError(f"{self.folder}: cannot resume with other settings ({changes})")
        self._known = known
        self.trainer.load_state_dict(saved.state["trainer"])
        if self.trainer.iteration > self.trainer.iterations:
            done, wanted = self.trainer.steps, self.trainer.config.total_steps
            raise TrainingError(f"{self.folder}: it has made {done:,} steps already; steps {wanted:,} are less")
        self.seconds = saved.state["seconds"]

    def save(self) -> None:
        """Writes the checkpoint.

        Raises:
            CheckpointError: The disk would not take it.
        """
        state = {"trainer": self.trainer.state_dict(), "seconds": self.seconds}
        trainer = self.trainer
        checkpoints.save(
            self.folder / checkpoints.FILE_NAME,
            Checkpoint(trainer.spec, trainer.config, self.demos, *self._sample, state),
        )
        self._known = self._checkpoint()

    def train(
        self, on_progress: OnProgress, eval_every: int, eval_episodes: int, seconds: float | None = None
    ) -> list[dict[str, float]]:
        """Trains to the end, or until Ctrl-C or SIGTERM, which save first; a second one ends at once.

        Args:
            on_progress: Called after each iteration with the trainer, its metrics and the evaluation if one was due.
            eval_every: Iterations between evaluations; 0 for none.
            eval_episodes: Episodes of each.
            seconds: Stop, as if all steps were done, after so many seconds of training [s], earlier sessions included.

        Returns:
            The evaluations so far, as rows of `evaluations.csv`.

        Raises:
            CheckpointError: A checkpoint could not be written; the last one is intact.
            TrainingError: Another process trains in the folder, or has done so since this run was prepared; or weights
                of the policy are not numbers any more, and the last checkpoint is intact.
        """
        with self._alone(), stop_on_signals(self._stop):
            return self._train(on_progress, eval_every, eval_episodes, seconds)

    def _train(
        self, on_progress: OnProgress, eval_every: int, eval_episodes: int, seconds: float | None
    ) -> list[dict[str, float]]:
        trainer = self.trainer
        (self.folder / "config.json").write_text(json.dumps(trainer.config.to_dict(), indent=2) + "\n")
        evaluations = [row for row in read_evaluations(self.folder) if row["iteration"] <= trainer.iteration]
        log = MetricsLog(self.folder, trainer.iteration)

        def measure() -> Evaluation:
            evaluation = self._evaluate(eval_episodes)
            evaluations.append(self._row(evaluation))
            _write_evaluations(self.folder, evaluations)
            return evaluation

        def on_iteration(trainer: Learner, metrics: dict[str, float]) -> bool:
            self.seconds += sum(value for name, value in metrics.items() if name.startswith("time/"))
            self._check_finite()
            log.add(trainer.iteration, trainer.steps, metrics)
            out_of_time = seconds is not None and self.seconds >= seconds
            last = out_of_time or trainer.iteration == trainer.iterations
            due = eval_every > 0 and (trainer.iteration % eval_every == 0 or last)
            if due or last or trainer.iteration % trainer.config.checkpoint_every == 0:
                self.save()  # before an evaluation, which takes a while and may fail
            on_progress(trainer, metrics, measure() if due else None)
            return not (self.interrupted or out_of_time)

        try:
            if trainer.iterations == 0:  # cloning is all there is to it, and it is done
                self.save()
            while trainer.iteration < trainer.iterations and on_iteration(trainer, trainer.iterate()):
                pass
            if self.interrupted:
                self.save()
            # Also where an earlier session ended after its last checkpoint and before its last evaluation
            measured = bool(evaluations) and evaluations[-1]["iteration"] == trainer.iteration
            if eval_every and trainer.iteration >= trainer.iterations and not measured:
                measure()
        finally:
            log.close()
        return evaluations

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else trains in the folder meanwhile, nor has done so since this run was begun or taken up."""
        try:
            lock = WriterLock(self.folder / ".lock", str(self.folder), "a run")
        except StoreError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise TrainingError(str(error)) from error
            lock = None  # a disk that knows no locks: as it was before there were any here
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._checkpoint() != self._known:
                raise TrainingError(f"{self.folder}: another process has trained there meanwhile; begin again")
            yield
        finally:
            if lock is not None:
                lock.release()

    def _checkpoint(self) -> tuple[int, int] | None:
        """What tells the checkpoint in the folder from any other; None if there is none."""
        try:
            status = (self.folder / checkpoints.FILE_NAME).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    @property
    def interrupted(self) -> bool:
        """Whether the training was stopped before its end, as by Ctrl-C; what was done until then is saved."""
        return self._stop.is_set()

    def interrupt(self) -> None:
        """Stops the training once the iteration under way is done."""
        self._stop.set()

    def _check_finite(self) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.trainer.policy.parameters()):
            raise TrainingError(
                f"{self.folder}: at iteration {self.trainer.iteration} weights of the policy are not numbers any more; "
                "what was saved last is from before that, and a smaller learning rate may get past it"
            )

    def _evaluate(self, episodes: int) -> Evaluation:
        policy = self.trainer.policy
        if self.trainer.device.type != "cpu":
            import copy

            policy = copy.deepcopy(policy).cpu()
        return evaluate(self.trainer.spec, DeterministicPolicy(policy).act, episodes)

    def _row(self, evaluation: Evaluation) -> dict[str, float]:
        trainer = self.trainer
        values = (
            trainer.iteration,
            trainer.steps,
            self.seconds,
            evaluation.mean,
            evaluation.std,
            len(evaluation.returns),
        )
        return dict(zip(_EVALUATION_COLUMNS, map(float, values), strict=True))


def new_folder(name: str) -> Path:
    """A fresh folder `runs/<name>-<UTC time>`, made at once: who begins in the same second gets another one.

    Args:
        name: What the run is about.

    Returns:
        The path.
    """
    first = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    first.parent.mkdir(parents=True, exist_ok=True)
    for folder in itertools.chain([first], (first.with_name(f"{first.name}-{k}") for k in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("there is always a next number")


def read_evaluations(folder: Path) -> list[dict[str, float]]:
    """Rows of a run's `evaluations.csv`: iteration, steps, seconds, mean and std of the return, episodes."""
    path = folder / "evaluations.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _write_evaluations(folder: Path, rows: list[dict[str, float]]) -> None:
    partial = folder / "evaluations.partial"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, _EVALUATION_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(folder / "evaluations.csv")


def _identity(spec: RobotSpec, demos: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """What has to be the same for a run to go on."""
    return {
        "robot": spec.sha256,
        "terminate": spec.terminate,
        "demos": demos.get("chain_sha256"),
        "count": demos.get("used"),
        "excluded": demos.get("excluded"),
        "background": demos.get("background", {}).get("chain_sha256"),
        "excluded of the background": demos.get("background", {}).get("excluded"),
        "reward": demos.get("reward_sha256"),
        "start": demos.get("start"),
        **_flat(config),
    }


def _flat(config: TrainConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        flat |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat
