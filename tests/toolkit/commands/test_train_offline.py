"""`gcl train --offline` from the command line: learn, stop, resume, export; one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from demos.episode import Episode
from demos.store import DemoStore
from export.runtime import load_bundle
from robots.robot_yaml import load_robot
from toolkit.cli import main
from toolkit.commands.train_offline import POLICY_NOTE
from toolkit.metrics import read_metrics
from toolkit.offline import OfflineLearner

TINY = [
    "--set", "threads=1", "--set", "policy.hidden=[8]", "--set", "policy.warm_start=200", "--set", "reward.hidden=[8]",
    "--set", "reward.segment=8", "--set", "reward.batch_steps=128", "--set", "reward.updates=4",
]  # fmt: skip


def write_store(path: Path, noise: float, seed: int, centre: float = 0.0) -> None:
    spec, rng = load_robot("cartpole"), np.random.default_rng(seed)
    with DemoStore.create(path, spec) as store:
        for i in range(3):
            state = np.cumsum(0.1 * rng.normal(size=(161, spec.obs_dim)), 0) + centre
            action = np.clip(0.5 * np.tanh(state[:-1, :1]) + noise * rng.normal(size=(160, 1)), -1.0, 1.0)
            clock = np.arange(161) * spec.control_dt
            store.append(Episode(state.astype(np.float32), action.astype(np.float32), clock, "truncation", seed=i))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "demos.zarr", 0.1, 0)
    write_store(folder / "near.zarr", 0.3, 1)
    write_store(folder / "far.zarr", 0.3, 2, centre=50.0)
    return folder


def train(stores: Path, out: Path, *more: str, background: str = "near.zarr") -> Result:
    words = ["train", "--offline", "--demos", stores / "demos.zarr", "--background", stores / background]
    return CliRunner().invoke(main, [*map(str, words), "--out", str(out), *TINY, *more])


def test_a_run_is_learned_and_exported(stores: Path, tmp_path: Path):
    """The report has the overlap, both effective sample sizes and says what the policy is; the bundle loads."""
    result = train(stores, tmp_path / "run", "--steps", "24", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["steps"] == 24 and report["iterations"] == 6
    assert report["policy"] == POLICY_NOTE and not report["interrupted"]
    assert 0.0 < report["overlap"]["ess"] <= 1.0 and 0.0 < report["overlap"]["support"] <= 1.0
    assert 0.0 < report["reward_ess_exact"] <= report["reward_ess"] <= 1.0
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 6
    exported = CliRunner().invoke(main, ["export", "--checkpoint", str(tmp_path / "run"), "--json"])
    assert exported.exit_code == 0, exported.output
    assert load_bundle(tmp_path / "run" / "cartpole.bundle")[0].spec.name == "cartpole"


def test_words_for_a_person(stores: Path, tmp_path: Path):
    """Without --json: the overlap before, and at the end that the policy is a clone."""
    result = train(stores, tmp_path / "run", "--steps", "4")
    assert result.exit_code == 0, result.output
    assert "of demo segments in the background's support" in result.stdout
    assert "4 gradient steps" in result.stdout and POLICY_NOTE in result.stdout


def test_stopped_and_resumed_is_the_same_run(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C ends the run after a whole iteration with exit code 130; --resume gives the straight run's numbers."""
    assert train(stores, tmp_path / "straight", "--steps", "24", "--json").exit_code == 0
    iterate = OfflineLearner.iterate

    def interrupted(learner: OfflineLearner) -> dict[str, float]:
        metrics = iterate(learner)
        if learner.iteration == 2:
            import signal

            signal.raise_signal(signal.SIGINT)
        return metrics

    monkeypatch.setattr(OfflineLearner, "iterate", interrupted)
    result = train(stores, tmp_path / "run", "--steps", "24", "--json")
    assert result.exit_code == 130 and json.loads(result.stdout)["iterations"] == 2
    monkeypatch.undo()
    assert train(stores, tmp_path / "run", "--steps", "24", "--json", "--resume").exit_code == 0
    rows = [read_metrics(tmp_path / name / "metrics.csv") for name in ("straight", "run")]
    untimed = [[{k: v for k, v in row.items() if not k.startswith("time/")} for row in table] for table in rows]
    assert untimed[0] == untimed[1] and len(untimed[0]) == 6


def test_a_far_background_is_refused_in_one_line(stores: Path, tmp_path: Path):
    """Measured, needed, and what to do; nothing is written."""
    result = train(stores, tmp_path / "run", "--json", background="far.zarr")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "0.0% of the demos' segments" in result.stderr
    assert "are needed" in result.stderr and "gcl record --operator policy" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--offline", "--demos", "demos.zarr"], "needs --background"),
        (["--offline", "--background", "near.zarr"], "needs --demos"),
        (["--offline", "--demos", "demos.zarr", "--background", "demos.zarr"], "the same episodes as the demos"),
        (["--demos", "demos.zarr", "--background", "near.zarr"], "--background is for --offline"),
        (["--demos", "demos.zarr", "--objective", "offline"], "without --offline"),
        (["--offline", "--demos", "demos.zarr", "--objective", "gan-gcl"], "with --offline"),
        (["--offline", "--demos", "demos.zarr", "--eval-every", "1"], "gcl eval"),
        (["--offline", "--demos", "demos.zarr", "--start", "runs/x"], "cloned from the demos"),
        (["--offline", "--demos", "demos.zarr", "--reward", "x.onnx"], "it learns a reward"),
        (["--offline", "--demos", "demos.zarr", "--background", "near.zarr", "--count", "9"], "holds 3 demos"),
    ],
)
def test_mistakes_take_one_line(stores: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str):
    """Each wrong combination is named; nothing falls back to something else in silence."""
    monkeypatch.chdir(stores)
    result = CliRunner().invoke(main, ["train", *words, "--json"])
    assert result.exit_code == 2, result.output
    assert message in result.stderr and result.stderr.count("\n") == 1
