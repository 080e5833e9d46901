"""Our own run in a comparison: what `gcl train` does, evaluated at the rivals' times by the rivals' clock."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demos.episode import Episode
from robots.spec import RobotSpec
from toolkit.rivals.comparison import COLUMNS


class OurRun:
    """Trains until the given seconds or the configured steps are over, whichever comes first."""

    def __init__(self, folder: Path, times: Sequence[float], clock: str, eval_episodes: int) -> None:
        """Prepares a run.

        Args:
            folder: Gets `ours.csv`, `ours.json` at the end, and the run itself in `ours/`.
            times: Seconds at which to evaluate; the last one ends the run.
            clock: Whose seconds: "wall", or "cpu" of all threads of this process.
            eval_episodes: Episodes of each evaluation.
        """
        self.folder = folder
        self._times = list(times)
        self._cpu_counts, self._eval_episodes = clock == "cpu", eval_episodes
        self._paused = (0.0, 0.0)  # wall and processor seconds that were not learning
        self._rows: list[dict[str, float]] = []

    def run(self, spec: RobotSpec, episodes: Sequence[Episode], settings: list[str]) -> bool:
        """Trains.

        Args:
            spec: The robot.
            episodes: The demos.
            settings: As for `gcl train --set`.

        Returns:
            Whether it came to its end; False after Ctrl-C.

        Raises:
            ConfigError: A setting that does not exist.
        """
        from robots.model import compile_source
        from toolkit.config import TrainConfig, with_settings
        from toolkit.run import Run
        from toolkit.trainer import Trainer

        config = with_settings(TrainConfig(), settings)
        compile_source(spec)  # imports what the simulator needs: nobody's imports count
        self._started = _now()
        trainer = Trainer(spec, config, episodes)
        run = Run(self.folder / "ours", trainer, {}, list(episodes))
        ended = False
        self._evaluate_if_due(trainer)

        def on_progress(trainer: Any, metrics: dict[str, float], evaluation: Any) -> None:
            nonlocal ended
            self._evaluate_if_due(trainer, last=trainer.iteration == trainer.iterations)
            if not self._times:
                ended = True
                run.interrupt()

        run.train(on_progress, eval_every=0, eval_episodes=0)
        if run.interrupted and not ended:
            return False
        run.save()  # the clock ended it between two checkpoints
        facts = {**self._rows[-1], "settings": trainer.config.to_dict()}
        (self.folder / "ours.json").write_text(json.dumps(facts, indent=2) + "\n")
        return True

    def _evaluate_if_due(self, trainer: Any, last: bool = False) -> None:
        from toolkit.checkpoint import DeterministicPolicy
        from toolkit.evaluate import evaluate

        before = _now()
        wall, cpu = (
            now - start - paused for now, start, paused in zip(before, self._started, self._paused, strict=True)
        )
        seconds = cpu if self._cpu_counts else wall
        if not last and not (self._times and seconds >= self._times[0]) and self._rows:
            return
        measured = evaluate(trainer.spec, DeterministicPolicy(trainer.policy).act, self._eval_episodes)
        values = (seconds, wall, cpu, float(trainer.steps), measured.mean, float(np.std(measured.returns)))
        self._rows.append(dict(zip(COLUMNS, values, strict=True)))
        self._times = [] if last else [t for t in self._times if t > seconds]
        write_rows(self.folder / "ours.csv", self._rows)
        after = _now()
        self._paused = tuple(p + a - b for p, a, b in zip(self._paused, after, before, strict=True))


def write_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes the evaluations of a contender, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
