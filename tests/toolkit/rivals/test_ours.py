"""Our own run in a comparison: ends by the clock, and evaluations take no part in its seconds."""

from pathlib import Path
from typing import Any

import pytest

from demos.store import DemoStore
from toolkit import checkpoint, evaluate
from toolkit.commands.quickstart import shipped_demos
from toolkit.evaluate import Evaluation
from toolkit.rivals import ours
from toolkit.rivals.comparison import read_rows
from toolkit.rivals.ours import OurRun
from toolkit.trainer import Trainer

TINY = [
    "threads=1", "ppo.num_envs=4", "ppo.horizon=32", "ppo.epochs=1", "reward.updates=1", "reward.batch_steps=128",
    "policy.warm_start=1", "policy.hidden=[8]", "reward.hidden=[8]",
]  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time by hand: an iteration takes 1 s of the wall and 0.5 s of the processor, an evaluation 100 s and 50 s.

    Evaluations return how many there were before, and the list holds what they returned.
    """
    made: list[float] = []
    now = [1000.0]
    iterate = Trainer.iterate

    def evaluation(*_: Any, **__: Any) -> Evaluation:
        now[0] += 100.0
        made.append(float(len(made)))
        return Evaluation((made[-1],), (0,))

    def iteration(trainer: Trainer) -> dict[str, float]:
        now[0] += 1.0
        return iterate(trainer)

    monkeypatch.setattr(evaluate, "evaluate", evaluation)
    monkeypatch.setattr(Trainer, "iterate", iteration)
    monkeypatch.setattr(ours, "_now", lambda: (now[0], now[0] / 2))
    return made


def test_evaluations_do_not_count_and_the_clock_ends_the_run(tmp_path: Path, measured: list[float]) -> None:
    """By the processor's clock, 1 s is two iterations; a hundred seconds of evaluating between them are in no row."""
    store = DemoStore.open(shipped_demos("cartpole"))
    assert OurRun(tmp_path, [0.0, 1.0, 2.0], "cpu", 1).run(store.spec, store.episodes()[:1], TINY)
    rows = read_rows(tmp_path / "ours.csv")
    assert [row["mean"] for row in rows] == measured == [0.0, 1.0, 2.0]
    assert [row["seconds"] for row in rows] == [row["cpu_seconds"] for row in rows] == [0.0, 1.0, 2.0]
    assert [row["wall_seconds"] for row in rows] == [0.0, 2.0, 4.0]
    per_iteration = 4 * 32
    assert [row["steps"] for row in rows] == [0, 2 * per_iteration, 4 * per_iteration]
    assert (tmp_path / "ours.json").is_file()
    assert checkpoint.load(tmp_path / "ours").state["trainer"]["iteration"] == 4


def test_steps_may_end_it_sooner(tmp_path: Path, measured: list[float]) -> None:
    """A run whose configured steps are over ends with an evaluation, long before the seconds are."""
    store = DemoStore.open(shipped_demos("cartpole"))
    settings = [*TINY, "total_steps=256"]
    assert OurRun(tmp_path, [0.0, 3600.0], "wall", 1).run(store.spec, store.episodes()[:1], settings)
    rows = read_rows(tmp_path / "ours.csv")
    assert [(row["steps"], row["seconds"]) for row in rows] == [(0.0, 0.0), (256.0, 2.0)]
