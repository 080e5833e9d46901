"""`gcl bench learning` from the command line, on a stand-in for `gcl train` and `gcl eval`."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from demos.durable import WriterLock
from toolkit import child_commands
from toolkit.cli import main
from toolkit.commands import bench_learning
from toolkit.studies import all_studies
from toolkit.study import StudyError

STUB = Path(__file__).parents[2] / "study_stub.py"


@pytest.fixture(autouse=True)
def quiet_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "calls.txt"))


def learning(out: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **behaviour: object) -> Result:
    named = {name.replace("_", "-"): does for name, does in behaviour.items()}
    program = (sys.executable, str(STUB), json.dumps(named))
    real = child_commands.ChildCommands
    with monkeypatch.context() as patch:
        patch.setattr(child_commands, "ChildCommands", lambda: real(program))
        return CliRunner().invoke(main, ["bench", "learning", "--out", str(out), "--jobs", "2", *arguments])


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"cartpole_segment_s0": 800.0, "reacher_segment_s0": 900.0}, 0),
        ({"cartpole_segment_s0": 800.0, "reacher_segment_s0": 700.0}, 1),  # 0.72 of its demos
        ({"cartpole_segment_s0": 800.0, "reacher_segment_s0": "crash"}, 1),
    ],
)
def test_smoke_fails_when_learning_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: dict, code: int
) -> None:
    """Both robots at 0.9 is exit code 0; one below, or one that crashed, is 1. The table is written either way."""
    result = learning(tmp_path / "out", monkeypatch, "--smoke", **behaviour)
    assert result.exit_code == code, result.output
    assert "smoke/reacher-segment-s0: " in result.output
    text = (tmp_path / "out" / "learning.md").read_text()
    assert "| reacher | segment | 1 |" in text and ("failed" in text.split("# smoke")[1]) == (
        "crash" in behaviour.values()
    )
    assert (tmp_path / "out" / "learning.png").stat().st_size > 10_000


def test_called_again_it_runs_nothing_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call reads what the first one left; --retry runs what failed, and only that."""
    behaviour = {"cartpole_segment_s0": 800.0, "reacher_segment_s0": "crash"}
    first = learning(tmp_path / "out", monkeypatch, "--smoke", "--json", **behaviour)
    done = calls(tmp_path)
    second = learning(tmp_path / "out", monkeypatch, "--smoke", "--json", reacher_segment_s0=900.0)
    assert calls(tmp_path) == done == 3 and second.exit_code == 1
    assert json.loads(first.stdout)["studies"] == json.loads(second.stdout)["studies"]
    third = learning(tmp_path / "out", monkeypatch, "--smoke", "--retry", "--json", reacher_segment_s0=900.0)
    assert calls(tmp_path) == done + 2 and third.exit_code == 0


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would write to the other's runs; a report alone, which runs nothing, is fine, and so is the next one."""
    lock = WriterLock(tmp_path / "out" / ".lock", "out")
    second = learning(tmp_path / "out", monkeypatch, "--smoke")
    assert second.exit_code == 2 and "a folder of studies takes one writer" in second.stderr and calls(tmp_path) == 0
    report = learning(tmp_path / "out", monkeypatch, "--smoke", "--report")
    assert report.exit_code == 1, report.output  # written: 1 says that the smoke version has missed its target
    lock.release()
    assert (
        learning(
            tmp_path / "out", monkeypatch, "--smoke", cartpole_segment_s0=800.0, reacher_segment_s0=900.0
        ).exit_code
        == 0
    )


def test_report_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--report writes the table of what is there, which for the smoke version is not enough."""
    result = learning(tmp_path / "out", monkeypatch, "--smoke", "--report")
    assert result.exit_code == 1 and calls(tmp_path) == 0
    assert "| 0 of 1 |" in (tmp_path / "out" / "learning.md").read_text()


def test_control_and_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--control runs the reward that knows nothing; --list names every study and runs none."""
    listed = json.loads(learning(tmp_path / "out", monkeypatch, "--list", "--json").stdout)
    assert {"reach", "transfer", "family", "control"} <= {row["study"] for row in listed} and calls(tmp_path) == 0
    learning(tmp_path / "out", monkeypatch, "--control", "--seeds", "1")
    lines = (tmp_path / "calls.txt").read_text().splitlines()
    assert all("--set objective=constant" in line for line in lines if line.startswith("train"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--studies", "reach,dance"], "no study dance; legal are reach"), (["--smoke", "--control"], "give one of them")],
)
def test_a_wrong_choice_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """An unknown study, or two choices at once, is exit code 2 and nothing runs."""
    result = learning(tmp_path / "out", monkeypatch, *arguments)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_robots_and_settings_narrow_the_studies():
    """--robots and --settings keep the jobs they name, drop studies without any, and refuse what no job has."""
    studies = list(all_studies(2).values())
    kept = bench_learning._narrowed(studies, "robot", "finger, hopper")
    assert {job.robot for study in kept for job in study.jobs} == {"finger", "hopper"}
    assert {study.name for study in kept} == {"reach", "ablation", "control"}
    with pytest.raises(StudyError, match="--robots 'toaster': no job on toaster; legal are cartpole"):
        bench_learning._narrowed(studies, "robot", "toaster")
    (episode,) = bench_learning._narrowed(studies, "name", "tempered")
    assert {(job.study, job.name) for job in episode.jobs} == {("episode", "tempered")}
    with pytest.raises(StudyError, match="--settings 'lukewarm': no job on lukewarm"):
        bench_learning._narrowed(studies, "name", "lukewarm")
