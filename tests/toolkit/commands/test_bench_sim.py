"""`gcl bench sim`: adjacent rounds are compared, and EnvPool's part fails in words."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from robots import load_robot
from toolkit.cli import main
from toolkit.commands import rival_envpool
from toolkit.commands.bench_sim import alternate, median_ratio
from toolkit.commands.rival_envpool import EnvPoolRival, RivalError, installed, task_name


def test_command() -> None:
    """One row a robot, with a rate of each side and a ratio to each other side."""
    arguments = "bench sim --robots cartpole,cheetah-weak --envs 3 --steps 2 --rounds 2 --threads 1".split()
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)
    assert [row["robot"] for row in rows] == ["cartpole", "cheetah-weak"]
    for row in rows:
        assert set(row["steps_per_s"]) == {"gcl", "rollout"} and set(row["ratio"]) == {"rollout"}
        assert min(*row["steps_per_s"].values(), *row["ratio"].values()) > 0
    table = CliRunner().invoke(main, arguments).output
    assert "of rollout" in table and "cheetah-weak" in table


def test_median_of_adjacent_rounds() -> None:
    """A machine that gets ten times slower half-way changes no ratio; one bad round does not either."""
    assert median_ratio([1.0, 10.0, 10.0], [0.9, 9.0, 9.0]) == pytest.approx(0.9)
    assert median_ratio([1.0, 50.0, 10.0], [0.9, 9.0, 9.0]) == pytest.approx(0.9)


def test_sides_take_turns() -> None:
    """a, b, a, b, and the first round of each is not counted."""
    order: list[str] = []
    seconds = alternate({"a": lambda: order.append("a") or len(order), "b": lambda: order.append("b") or len(order)}, 2)
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [3, 5], "b": [4, 6]}


@pytest.mark.parametrize(
    ("robot", "task"),
    [("cheetah", "CheetahRun-v1"), ("humanoid", "HumanoidStand-v1"), ("walker-long", "WalkerWalk-v1")],
)
def test_task_name(robot: str, task: str) -> None:
    """EnvPool's names for dm_control's tasks."""
    assert task_name(load_robot(robot)) == task


def test_what_envpool_has_not() -> None:
    """A robot without a task of the suite is refused."""
    with pytest.raises(RivalError, match="dm_control.suite's tasks only"):
        task_name(load_robot("jaco"))


def test_pip_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip's last line is quoted, and what is half made is not taken for complete next time."""
    monkeypatch.setattr(rival_envpool.venv, "create", lambda *_, **__: None)
    failed = subprocess.CompletedProcess([], 1, "", "some\nno network\n")
    monkeypatch.setattr(rival_envpool.subprocess, "run", lambda *_, **__: failed)
    for _ in range(2):
        with pytest.raises(RivalError, match="envpool.*no network"):
            installed(tmp_path)


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(rival_envpool, "installed", lambda: python)


def test_rounds_come_from_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asked round is answered with the worker's own seconds."""
    stand_in(tmp_path, monkeypatch, "echo ready; while read _; do echo 0.25; done")
    with EnvPoolRival(load_robot("cheetah"), 1, 1, 1) as rival:
        assert [rival.round(), rival.round()] == [0.25, 0.25]


def test_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker said last is in the error."""
    stand_in(tmp_path, monkeypatch, "echo 'ImportError: no envpool' >&2; exit 1")
    with pytest.raises(RivalError, match="ready: ImportError: no envpool"):
        EnvPoolRival(load_robot("cheetah"), 1, 1, 1)
