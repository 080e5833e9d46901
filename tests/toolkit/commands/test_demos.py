import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from demos.store import DemoStore
from toolkit.cli import main


def gcl(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes in the task's environment, one in the robot's simulator, one on the mock."""
    out = tmp_path_factory.mktemp("stores") / "a.zarr"
    for backend, count in (("task", 2), ("sim", 1), ("mock", 1)):
        result = gcl("record", "--robot", "cheetah", "--backend", backend, "--seconds", 0.2, "-n", count, "--out", out)
        assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    """A copy to do as one likes with."""
    import shutil

    return Path(shutil.copytree(original, tmp_path / "a.zarr"))


def test_list_of_episodes(store: Path) -> None:
    """Each episode is a row, for people and for scripts."""
    rows = json.loads(gcl("demos", "list", store, "--json").stdout)
    assert [(row["index"], row["length"], row["seed"]) for row in rows] == [(i, 20, i) for i in range(4)]
    assert rows[0]["return"] is not None and rows[3]["return"] is None
    table = gcl("demos", "list", store).stdout
    assert "ended_by" in table and table.count("truncation") == 4


def test_list_of_stores(store: Path) -> None:
    """A folder lists the stores in it, the broken ones with what is wrong with them."""
    broken = store.parent / "broken.zarr"
    broken.mkdir()
    (broken / "zarr.json").write_text("{}")
    rows = json.loads(gcl("demos", "list", store.parent, "--json").stdout)
    assert [(Path(row["store"]).name, row["episodes"]) for row in rows] == [("a.zarr", 4), ("broken.zarr", None)]
    assert rows[0]["problem"] is None and "not readable" in rows[1]["problem"]
    (empty := store.parent / "empty").mkdir()
    assert "nothing recorded there yet" in gcl("demos", "list", empty).stdout
    assert gcl("demos", "list", store.parent / "nowhere").exit_code == 2


def test_show(store: Path, tmp_path: Path) -> None:
    """The details of a store, and a picture of it."""
    result = gcl("demos", "show", store, "--plot", tmp_path / "a.png", "--json")
    about = json.loads(result.stdout)
    assert (about["robot"], about["episodes"], about["steps"], about["seconds"]) == ("cheetah", 4, 80, 0.8)
    assert about["chain_sha256"] == DemoStore.open(store).chain_sha256
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert about["chain_sha256"] in gcl("demos", "show", store).stdout


def test_check(store: Path) -> None:
    """A sound store gives 0, a damaged one 1 with the problem, what is no store 2."""
    sound = gcl("demos", "check", store)
    assert sound.exit_code == 0 and "4 episodes, 80 steps: sound" in sound.stdout
    chunk = store / "data" / "action" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[50] ^= 4
    chunk.write_bytes(content)
    damaged = gcl("demos", "check", store, "--json")
    assert damaged.exit_code == 1 and "data/action is damaged" in json.loads(damaged.stdout)["problems"][0]
    assert gcl("demos", "check", store.parent).exit_code == 2


def test_check_reports_quality(store: Path, tmp_path: Path) -> None:
    """Each demo to be learned from gets its facts and a weight, for people, for scripts and as a picture."""
    gcl("demos", "exclude", store, 2)
    result = gcl("demos", "check", store, "--plot", tmp_path / "a.png", "--json")
    report = json.loads(result.stdout)
    assert [row["index"] for row in report["episodes"]] == [0, 1, 3] and len(report["distance"]) == 3
    assert all(0.0 < row["weight"] <= 1.0 and 0.0 <= row["saturated"] <= 1.0 for row in report["episodes"])
    assert report["operators"]["random"]["episodes"] == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "saturated" in gcl("demos", "check", store).stdout
    gcl("demos", "exclude", store, 0, 1, 3)
    assert json.loads(gcl("demos", "check", store, "--json").stdout)["episodes"] == []


def test_copy(store: Path, tmp_path: Path) -> None:
    """Named episodes, or all; without actions they are for a reward of states, and cannot be replayed."""
    assert gcl("demos", "copy", store, tmp_path / "b.zarr", 1, 3).exit_code == 0
    assert "4 episodes; 2 of 4 were in it already: 1, 3" in gcl("demos", "copy", store, tmp_path / "b.zarr").stdout
    again = json.loads(gcl("demos", "copy", store, tmp_path / "b.zarr", "--json").stdout)
    assert (again["n_episodes"], again["skipped"]) == (4, [0, 1, 2, 3])
    itself = gcl("demos", "copy", store, store)
    assert itself.exit_code == 2 and "not copied into itself" in itself.output and len(DemoStore.open(store)) == 4
    busy = gcl("demos", "copy", store, tmp_path / "d.zarr", "--trim")
    assert busy.exit_code == 0 and "nothing to cut" in busy.stdout
    assert gcl("demos", "copy", store, tmp_path / "c.zarr", "--without-actions").exit_code == 0
    assert gcl("demos", "check", tmp_path / "c.zarr").exit_code == 0
    replay = gcl("demos", "replay", tmp_path / "c.zarr", 0)
    assert replay.exit_code == 2 and "observations only" in replay.output


def test_copy_trims(store: Path, tmp_path: Path) -> None:
    """What an idle end is cut off of is told, for a person and for a program."""
    (shown,) = DemoStore.open(store).select([0])
    still = dataclasses.replace(
        shown,
        observations=np.concatenate([shown.observations, np.repeat(shown.observations[-1:], 100, 0)]),
        actions=np.concatenate([shown.actions, np.repeat(shown.actions[-1:], 100, 0)]),
        timestamps=np.concatenate([shown.timestamps, shown.timestamps[-1] + 0.01 * np.arange(1, 101)]),
        rewards=None,
    )
    with DemoStore.open(store, mode="a") as opened:
        number = opened.append(still)
    told = gcl("demos", "copy", store, tmp_path / "e.zarr", "--trim").stdout
    assert f"of episode {number} steps 0-{shown.length - 1} are left" in told
    row = json.loads(gcl("demos", "copy", store, tmp_path / "f.zarr", "--trim", "--json").stdout)
    assert row["shortened"] == {str(number): [0, shown.length]}


@pytest.mark.parametrize(("episode", "simulator"), [(0, "dm_control's own"), (2, "the robot's simulator")])
def test_replay(store: Path, episode: int, simulator: str) -> None:
    """A simulated episode is repeated to the bit in the simulator it came from, which is found out."""
    result = gcl("demos", "replay", store, episode, "--json")
    row = json.loads(result.stdout)
    assert result.exit_code == 0 and row["simulator"].startswith(simulator)
    assert row["same_start"] and row["deviation_at_most"] == 0.0 and row["first_step_beyond"] is None
    assert row["steps"] == 20 and row["return"] == row["recorded_return"]


def test_replay_says_when_it_cannot(store: Path) -> None:
    """An episode of no simulator begins elsewhere, which is exit code 1 and no silent success."""
    result = gcl("demos", "replay", store, 3)
    assert result.exit_code == 1 and "begins elsewhere" in result.output
    assert gcl("demos", "replay", store, 4).exit_code == 2


def test_exclude_and_include(store: Path) -> None:
    """Excluded episodes are named and come back on demand; a wrong number changes nothing."""
    assert json.loads(gcl("demos", "exclude", store, 1, 3, "--json").stdout)["excluded"] == [1, 3]
    assert len(DemoStore.open(store).episodes()) == 2
    wrong = gcl("demos", "exclude", store, 0, 9)
    assert wrong.exit_code == 2 and "no episode 9; legal are 0 to 3" in wrong.output
    assert "1 of 4 episodes excluded: 3" in gcl("demos", "exclude", store, 1, "--include").stdout


def test_export_and_import(store: Path, tmp_path: Path) -> None:
    """Out into one file and back gives the same chain; format 2 is written for older readers."""
    assert gcl("demos", "export", store, tmp_path / "a.npz").exit_code == 0
    result = gcl("demos", "import", tmp_path / "a.npz", tmp_path / "b.zarr", "--json")
    assert json.loads(result.stdout)["chain_sha256"] == DemoStore.open(store).chain_sha256
    assert gcl("demos", "export", store, tmp_path / "c.zarr").exit_code == 0
    import zarr

    assert np.asarray(zarr.open_group(tmp_path / "c.zarr", mode="r")["data/action"]).shape == (80, 6)
    assert gcl("demos", "export", store, tmp_path / "c.zarr").exit_code == 2
    assert gcl("demos", "import", store, tmp_path / "d.zarr").exit_code == 2


def test_every_verb_has_an_example() -> None:
    """The help of each verb ends with a command one can copy."""
    for verb in ("list", "show", "check", "replay", "exclude", "copy", "export", "import"):
        assert f"gcl demos {verb}" in gcl("demos", verb, "--help").stdout
