"""A run folder: whatever stops a run, what is in it can be gone on with, and nobody writes over it."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import pytest
import torch
from small_training import episodes, trainer

from toolkit import checkpoint as checkpoints
from toolkit.evaluate import Evaluation
from toolkit.metrics import read_metrics
from toolkit.run import Run, new_folder
from toolkit.trainer import Trainer, TrainingError


def quiet(*_: object) -> None:
    """Watches nothing."""


def test_what_an_evaluation_breaks_off_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It takes a while and may fail, or be stopped by hand: what was learned until then is on the disk."""
    run = Run(tmp_path, trainer(), {}, episodes())

    def stopped(*_: object) -> Evaluation:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolkit.run.evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.train(quiet, eval_every=2, eval_episodes=1)
    again = Run(tmp_path, trainer(), {}, episodes())
    again.resume()
    assert again.trainer.iteration == 2


def test_a_last_evaluation_that_was_missed_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that was saved as done, and broken off before it was measured."""
    monkeypatch.setattr("toolkit.run.evaluate", lambda *_: Evaluation((3.0,), (0,)))
    Run(tmp_path, done := trainer(), {}, episodes()).train(quiet, eval_every=0, eval_episodes=1)
    again = Run(tmp_path, trainer(), {}, episodes())
    again.resume()
    rows = again.train(quiet, eval_every=2, eval_episodes=1)
    assert [(row["iteration"], row["mean"]) for row in rows] == [(done.iterations, 3.0)]
    assert again.train(quiet, eval_every=2, eval_episodes=1) == rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_signal_saves_the_iteration_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, evaluating: bool
):
    """Whenever it comes; and afterwards signals mean what they meant."""
    run, before = Run(tmp_path, trainer(), {}, episodes()), signal.getsignal(number)

    def send(*_: object) -> Evaluation:
        if run.trainer.iteration == 3:
            signal.raise_signal(number)
        return Evaluation((1.0,), (0,))

    monkeypatch.setattr("toolkit.run.evaluate", send)
    run.train(quiet if evaluating else lambda *_: send() and None, eval_every=int(evaluating), eval_episodes=1)
    assert run.interrupted and run.trainer.iteration == 3 and signal.getsignal(number) is before
    assert checkpoints.load(tmp_path).state["trainer"]["iteration"] == 3


def test_a_policy_that_is_no_numbers_is_not_saved_over_a_good_one(tmp_path: Path):
    """The last checkpoint from before stays."""
    run = Run(tmp_path, trainer(None, "checkpoint_every=1"), {}, episodes())

    def spoil(learner: Trainer, *_: object) -> None:
        if learner.iteration == 2:
            with torch.no_grad():
                learner.policy.log_std_raw.fill_(float("nan"))

    with pytest.raises((TrainingError, ValueError)):
        run.train(spoil, eval_every=0, eval_episodes=1)
    saved = checkpoints.load(tmp_path)
    assert saved.state["trainer"]["iteration"] == 2
    assert saved.state["trainer"]["policy"]["log_std_raw"].isfinite().all()


def test_one_folder_takes_one_run_at_a_time(tmp_path: Path):
    """A second one is refused before it writes anything, while the first one trains and when it has ended."""
    late = Run(tmp_path, trainer(None, "seed=5"), {}, episodes())

    def intrude(learner: Trainer, *_: object) -> None:
        if learner.iteration == 1:
            with pytest.raises(TrainingError, match="is writing to it, and a run takes one writer"):
                Run(tmp_path, trainer(None, "seed=5"), {}, episodes()).train(quiet, eval_every=0, eval_episodes=1)

    first = Run(tmp_path, trainer(), {}, episodes())
    first.train(intrude, eval_every=0, eval_episodes=1)
    with pytest.raises(TrainingError, match="another process has trained there meanwhile"):
        late.train(quiet, eval_every=0, eval_episodes=1)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
    stale, again = (Run(tmp_path, trainer(None, "total_steps=768"), {}, episodes()) for _ in range(2))
    stale.resume()
    again.resume()
    again.train(quiet, eval_every=0, eval_episodes=1)
    with pytest.raises(TrainingError, match="meanwhile"):
        stale.train(quiet, eval_every=0, eval_episodes=1)


def test_a_disk_without_locks_is_trained_on_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("demos.durable.fcntl.flock", no_locks)
    Run(tmp_path / "run", trainer(), {}, episodes()).train(quiet, eval_every=0, eval_episodes=1)
    assert (tmp_path / "run" / checkpoints.FILE_NAME).is_file()


def test_runs_of_the_same_second_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Made at once, so that nobody else gets it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolkit.run.time.strftime", lambda *_: "20261130-203039")
    folders = [new_folder("cheetah") for _ in range(3)]
    assert [f.name.removeprefix("cheetah-20261130-203039") for f in folders] == ["", "-2", "-3"]
    assert all(f.is_dir() for f in folders)


def test_resume_goes_on_with_the_very_demos(tmp_path: Path):
    """Which ones were excluded is part of what a run is, of the background's too."""
    demos = {"chain_sha256": "a", "excluded": [1], "background": {"chain_sha256": "b", "excluded": []}}
    Run(tmp_path, trainer(), demos, episodes()).save()
    Run(tmp_path, trainer(), demos, episodes()).resume()
    with pytest.raises(TrainingError, match=r"excluded: was \[1\], now \[\]"):
        Run(tmp_path, trainer(), {**demos, "excluded": []}, episodes()).resume()
    other = {**demos, "background": {"chain_sha256": "b", "excluded": [0]}}
    with pytest.raises(TrainingError, match="excluded of the background"):
        Run(tmp_path, trainer(), other, episodes()).resume()


def test_fewer_steps_than_there_are_is_refused(tmp_path: Path):
    """Nothing is undone, and nothing is called done that was to be shorter."""
    run = Run(tmp_path, trainer(), {}, episodes())
    run.train(quiet, eval_every=0, eval_episodes=1)
    with pytest.raises(TrainingError, match="steps already"):
        Run(tmp_path, trainer(None, f"total_steps={run.trainer.steps_per_iteration}"), {}, episodes()).resume()


def test_a_last_line_torn_inside_a_number_is_dropped(tmp_path: Path):
    """As one that lacks fields is."""
    (tmp_path / "metrics.csv").write_text("iteration,steps,reward/loss\n1,32,0.5\n2,64,1e-")
    assert read_metrics(tmp_path / "metrics.csv") == [{"iteration": 1.0, "steps": 32.0, "reward/loss": 0.5}]


def test_a_run_may_start_from_one_without_a_value(tmp_path: Path):
    """Such as an offline one, whose policy is a clone."""
    first, second = trainer(None, "seed=3"), trainer()
    Run(tmp_path, first, {}, episodes()).save()
    saved = checkpoints.load(tmp_path)
    del saved.state["trainer"]["value"]
    second.start_from(saved)
    theirs = second.policy.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in first.policy.state_dict().items())
