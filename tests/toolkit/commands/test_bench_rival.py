"""`gcl bench rival`: the report, the rival's command line, and (opt-in) the rival itself."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit import cli
from toolkit.commands.bench_rival import worker_words, write_report
from toolkit.rivals.comparison import COLUMNS
from toolkit.rivals.ours import write_rows

SETUP: dict[str, Any] = {
    "robot": "cheetah", "demos_mean": 600.0, "seconds": 60.0, "clock": "cpu", "threads": 1, "seed": 3,
    "eval_episodes": 2, "rival_set": ["rl.rl_kwargs.gamma=0.99"],
}  # fmt: skip


def rows(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [dict(zip(COLUMNS, (s, s, s, 10 * s, mean, 0.0), strict=True)) for s, mean in points]


def test_report_of_whoever_has_run(tmp_path: Path) -> None:
    """A contender that is still running is in the report and marked; JSON, markdown and picture say the same."""
    write_rows(tmp_path / "ours.csv", rows((0, 0), (30, 560)))
    write_rows(tmp_path / "gail.csv", rows((0, 0), (60, 100)))
    report = write_report(tmp_path, SETUP)
    saved = json.loads((tmp_path / "comparison.json").read_text())
    assert saved["contenders"]["gail"]["factor"] == 2.0
    assert saved["contenders"]["gail"]["is_lower_bound"] and not saved["contenders"]["gail"]["finished"]
    assert "airl" not in saved["contenders"]
    assert "| gail | not within 60 s | > 2x |" in report["table"]
    assert (tmp_path / "comparison.md").read_text() == report["table"] + "\n"
    assert (tmp_path / "comparison.png").is_file()


def test_the_rival_is_told_the_same_as_ours(tmp_path: Path) -> None:
    """Its seconds, clock, threads and seed are the setup's, its evaluations are on our evaluation seeds."""
    words = worker_words("airl", Path("venv/bin/python"), tmp_path, SETUP)
    assert words[0] == "venv/bin/python" and Path(words[1]).is_file() and words[2] == str(tmp_path)
    for word in ("--objective=airl", "--clock=cpu", "--seed=3", "--threads=1", "--eval-seed=1000000",
                 "--eval-episodes=2", "--set=rl.rl_kwargs.gamma=0.99", "--tuned-for=half_cheetah"):  # fmt: skip
        assert word in words
    assert next(word for word in words if word.startswith("--times=")).endswith(",60")


def test_contenders_share_one_setup(tmp_path: Path) -> None:
    """A folder takes no contender with other seconds than those before, and says what differs."""
    (tmp_path / "setup.json").write_text(json.dumps({**SETUP, "seconds": 7.0}))
    (tmp_path / "ours.json").write_text("{}")
    result = CliRunner().invoke(
        cli.main, ["bench", "rival", "--only", "ours", "--out", str(tmp_path), "--seconds", "60"]
    )
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2
    assert "seconds: was 7.0, now 60.0" in result.output


@pytest.mark.skipif("GCL_RIVAL" not in os.environ, reason="installs 2 GB and trains: set GCL_RIVAL=1 to run it")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["gail", "airl"])
def test_the_rival_learns_in_our_world(name: str, tmp_path: Path) -> None:
    """It installs, finds our world in its dm_control, trains two rounds, and is measured."""
    words = ["--only", name, "--seconds", "4", "--clock", "cpu", "--eval-episodes", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli.main, ["bench", "rival", "--json", *words])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / f"{name}.json").read_text())
    assert facts["steps"] > 0 and facts["cpu_seconds"] >= 4.0
    # The published batch of GAIL is larger than five demos.
    assert facts["demo_batch_size"] == {"gail": 5000, "airl": 2048}[name]
