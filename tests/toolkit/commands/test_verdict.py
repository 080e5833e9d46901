"""`gcl verdict`, and the verdict at the end of `gcl train`: the same words, the same file, judged by demos alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from demos.episode import Episode
from demos.store import DemoStore
from robots.robot_yaml import load_robot
from toolkit.cli import main
from toolkit.verdict import Verdict, learned_episodes

SPEC = load_robot("cartpole")
TINY = [
    "--set", "threads=1", "--set", "ppo.num_envs=8", "--set", "ppo.horizon=16", "--set", "policy.hidden=[8]",
    "--set", "policy.warm_start=5", "--set", "reward.segment=8", "--set", "reward.batch_steps=128",
    "--steps", "256", "--eval-every", "0",
]  # fmt: skip


def gcl(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def record(path: Path, seed: int) -> Path:
    """A store of three short made-up demos; those are added if there is one."""
    rng = np.random.default_rng(seed)
    with DemoStore.open(path, SPEC, mode="a") if path.exists() else DemoStore.create(path, SPEC) as store:
        for _ in range(3):
            store.append(
                Episode(
                    observations=rng.normal(size=(61, SPEC.obs_dim)).astype(np.float32),
                    actions=rng.uniform(-1, 1, (60, SPEC.act_dim)).astype(np.float32),
                    timestamps=np.arange(61) * SPEC.control_dt,
                    ended_by="truncation",
                )
            )
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished run, and what `gcl train --json` said."""
    folder = tmp_path_factory.mktemp("verdict")
    result = gcl("train", "--demos", record(folder / "demos.zarr", 0), "--out", folder / "run", "--json", *TINY)
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_training_ends_with_a_verdict(trained: tuple[Path, dict]):
    """--json holds the whole record, and so does verdict.json."""
    folder, report = trained
    verdict = report["verdict"]
    assert set(verdict) == {field.name for field in dataclasses.fields(Verdict)}
    assert verdict["word"] in ("converged", "not converged", "collapsed", "inconclusive")
    assert verdict["reasons"] and verdict["steps"] == 60 and verdict["demos"] == 3 and verdict["held_out"]
    written = json.loads((folder / "run" / "verdict.json").read_text())
    assert written.pop("judged_by")["n_episodes"] == 3 and written == verdict


def test_judging_again_says_the_same(trained: tuple[Path, dict]):
    """From the checkpoint alone, with nothing of the process that trained, to the last digit."""
    folder, report = trained
    (folder / "run" / "verdict.json").unlink()
    result = gcl("verdict", folder / "run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == report["verdict"]
    written = json.loads((folder / "run" / "verdict.json").read_text())
    judged_by = written.pop("judged_by")
    assert written == report["verdict"] and judged_by["episodes"] == [0, 1, 2] and judged_by["learned_from"]


def test_a_person_reads_a_table_and_a_sentence(trained: tuple[Path, dict]):
    """The word, its reason and the figures."""
    folder, report = trained
    result = gcl("verdict", folder / "run")
    assert result.exit_code == 0, result.output
    assert f"{report['verdict']['word']}: {report['verdict']['reasons'][0]}" in result.stdout
    assert "distance to the demos" in result.stdout and "AUC, held-out demos" in result.stdout


def test_other_demos_judge_too(trained: tuple[Path, dict], tmp_path: Path):
    """Another store is compared with instead; without --demos, a store that changed since is refused."""
    folder, report = trained
    shutil.copytree(folder / "run", tmp_path / "run")
    result = gcl("verdict", tmp_path / "run", "--demos", record(tmp_path / "other.zarr", 1), "--json")
    assert result.exit_code == 0, result.output
    other = json.loads(result.stdout)
    assert other["held_out"] and other["energy_distance_of_demos"] != report["verdict"]["energy_distance_of_demos"]
    store = folder / "demos.zarr"
    shutil.move(store, tmp_path / "kept.zarr")
    record(store, 2)
    result = gcl("verdict", tmp_path / "run")
    shutil.rmtree(store)
    shutil.move(tmp_path / "kept.zarr", store)
    assert result.exit_code == 2
    assert "no longer the demos this run learned from" in result.output


def test_what_it_learned_from_is_never_called_held_out(trained: tuple[Path, dict], tmp_path: Path):
    """Not when other demos are excluded by now, nor when there are more: by name, those judge that it has not seen."""
    folder, report = trained
    shutil.copytree(folder, tmp_path / "now")
    run, store = tmp_path / "now" / "run", tmp_path / "now" / "demos.zarr"
    assert gcl("demos", "exclude", store, "1").exit_code == 0

    def judged(*words: str | Path) -> tuple[dict, dict]:
        result = gcl("verdict", run, *words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), json.loads((run / "verdict.json").read_text())["judged_by"]

    said, by = judged("--demos", store)
    assert said == report["verdict"] and (by["episodes"], by["learned_from"]) == ([0, 1, 2], True)
    record(store, 5)
    said, by = judged("--demos", store)
    assert (by["episodes"], by["learned_from"]) == ([3, 4, 5], False) and said["held_out"] and said["demos"] == 3
    with DemoStore.open(store, SPEC, mode="a") as grown:
        grown.append(grown.select([0])[0])
    _, by = judged("--demos", store)
    assert by["episodes"] == [3, 4, 5]
    assert gcl("demos", "copy", store, tmp_path / "copy.zarr", "0", "2", "4").exit_code == 0
    _, by = judged("--demos", tmp_path / "copy.zarr")
    assert (by["episodes"], by["learned_from"]) == ([2], False)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    checkpoint["demos"]["path"] = "nowhere/demos.zarr"
    torch.save(checkpoint, run / "checkpoint.pt")
    result = gcl("verdict", run)
    assert result.exit_code == 2 and "say where with --demos" in result.output


def test_of_what_it_learned_from_a_run_with_a_count_saw_the_first():
    """Those that were excluded at the time do not count."""
    demos = {"n_episodes": 5, "excluded": [1]}
    assert learned_episodes(demos) == [0, 2, 3, 4] and learned_episodes({**demos, "used": 2}) == [0, 2]


def test_an_expert_has_no_verdict(tmp_path: Path):
    """It learned from no demos: no verdict at the end of its training, and one line if asked for."""
    out = tmp_path / "expert"
    result = gcl("train", "--objective", "task-reward", "--robot", "cartpole", "--out", out, "--json", *TINY)
    assert result.exit_code == 0, result.output
    assert "verdict" not in json.loads(result.stdout)
    result = gcl("verdict", out)
    assert result.exit_code == 2
    assert "learned from no demos" in result.output
