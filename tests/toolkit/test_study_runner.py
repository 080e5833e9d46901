"""Jobs against a stand-in for `gcl`: what is done stays done, what failed stays visible, what was cut short goes on."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.child_commands import ChildCommands
from toolkit.study import Job, StudyError
from toolkit.study_result import Result, load_result
from toolkit.study_runner import Prepared, prepare, run_job, run_jobs

STUB = Path(__file__).parents[1] / "study_stub.py"
JOB = Job("reach", "segment", "cartpole", "cartpole", 5, (), 0, 1000)


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The command lines the stand-in has been given so far, without their run folder's parents."""
    log = tmp_path / "calls.txt"
    monkeypatch.setenv("STUB_LOG", str(log))
    return lambda: log.read_text().splitlines() if log.exists() else []


def stub(**behaviour: object) -> ChildCommands:
    named = {name.replace("_", "-"): does for name, does in behaviour.items()}
    return ChildCommands((sys.executable, str(STUB), json.dumps(named)))


def test_result_says_how_it_came_about(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """Ratio, curve, seconds, command, commit, machine and the demos' identity are on record."""
    prepared = prepare(JOB, tmp_path)
    result = run_job(prepared, stub(cartpole_segment_s0=398.0), side_by_side=2)
    assert result.demos_mean == pytest.approx(862, abs=2) and result.demos_mean is not None
    assert result.ratio == 398.0 / result.demos_mean
    assert (result.mean, result.std, result.episodes) == (398.0, 2.0, 20)
    assert (result.steps, result.seconds, len(result.curve)) == (300, 15.5, 3)
    assert result.commands == prepared.commands and "--count 5" in result.commands[0]
    assert result.commit and result.machine["cores"] >= 1 and result.machine["jobs side by side"] == 2
    assert result.demos.endswith("demos/data/cartpole.zarr") and result.demos_sha256
    assert load_result(prepared.folder) == result == prepared.result()
    assert len(called()) == 2


def test_done_once_is_done(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """The same command finds its result; another seed count, setting or store does not."""
    run_job(prepare(JOB, tmp_path), stub())
    assert prepare(JOB, tmp_path).result() is not None
    assert prepare(dataclasses.replace(JOB, settings=("reward.alpha=1",)), tmp_path).result() is None
    assert dataclasses.replace(prepare(JOB, tmp_path), demos_sha256="other").result() is None


def test_other_settings_empty_the_folder(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """Results of two settings never mix, and a checkpoint of the old one is not resumed."""
    prepared = prepare(JOB, tmp_path)
    run_job(prepared, stub())
    (prepared.folder / "run" / "checkpoint.pt").touch()
    run_job(prepare(dataclasses.replace(JOB, settings=("reward.alpha=1",)), tmp_path), stub())
    trained = [line for line in called() if line.startswith("train")]
    assert len(trained) == 2 and "--resume" not in trained[1]


def test_a_strangers_folder_is_left_alone(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """A folder that no study made is never emptied."""
    prepared = prepare(JOB, tmp_path)
    prepared.folder.mkdir(parents=True)
    (prepared.folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="something is there"):
        run_job(prepared, stub())
    assert (prepared.folder / "thesis.tex").exists() and not called()


def test_a_crash_stays_on_record_with_its_last_words(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """Failed is a result: with the reason, not run again by itself, and beside jobs that go well."""
    jobs = [prepare(dataclasses.replace(JOB, seed=seed), tmp_path) for seed in (0, 1, 2)]
    ended: list[Result] = []
    run_jobs(jobs, stub(cartpole_segment_s1="crash"), 2, lambda _: None, lambda _, result: ended.append(result))
    failed = jobs[1].result()
    assert failed is not None and failed.ratio is None
    assert failed.failed == "train: exit code 1: RuntimeError: the network is all NaN"
    assert sorted(result.seed for result in ended) == [0, 1, 2]
    assert sum(result.failed is None for result in ended) == 2


def test_a_retry_quotes_its_own_words_only(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """What an earlier attempt wrote to the log is not taken for the last words of one that died in silence."""
    prepared = prepare(JOB, tmp_path)
    run_job(prepared, stub(cartpole_segment_s0="crash"))
    silent = ChildCommands((sys.executable, "-c", "raise SystemExit(7)"))
    assert run_job(prepared, silent).failed == "train: exit code 7"


def test_missing_demos_fail_the_job_and_not_the_study(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """A store that is not there, or too small, is that job's failure; when it appears the job is run."""
    for wrong in ({"demos": "unicorn"}, {"count": 99}):
        prepared = prepare(dataclasses.replace(JOB, **wrong), tmp_path)
        result = run_job(prepared, stub())
        assert result.failed is not None and ("unicorn" in result.failed or "99 are needed" in result.failed)
    assert not called()


def test_bad_demos_are_measured_by_the_good_ones(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """With a yardstick, its demos' mean return is 1, and the job's own demos are what is learned from."""
    result = run_job(prepare(dataclasses.replace(JOB, yardstick="reacher"), tmp_path), stub())
    assert result.demos_mean == pytest.approx(974, abs=2) and "cartpole.zarr" in result.commands[0]


def test_reoptimised_is_measured_against_the_first_policy(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """All five commands run in order; the ratio is that of the two policies."""
    job = dataclasses.replace(JOB, kind="reoptimise")
    result = run_job(prepare(job, tmp_path), stub(cartpole_segment_s0=40.0))
    assert [line.split()[0] for line in called()] == ["train", "eval", "export", "train", "eval"]
    assert result.ratio == 1.0 and set(result.stages) == {"train", "eval", "export", "again", "eval-again"}


def test_changed_robots_share_the_reward(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """Side by side, each robot of a seed has the one training's reward; another seed has its own, and so has a setting.

    The second run of the same jobs is told to train with another setting: the shared folder is emptied as well.
    """
    variants = [(name, seed) for name in ("walker-long", "walker-weak") for seed in (0, 1)]
    for settings in ((), ("reward.alpha=1",)):
        before = len(called())
        made = [
            dataclasses.replace(JOB, kind="transfer", variant=name, seed=seed, settings=settings)
            for name, seed in variants
        ]
        prepared = [prepare(job, tmp_path) for job in made]
        run_jobs(prepared, stub(), 4, lambda _: None, lambda *_: None)
        results = [result for result in map(Prepared.result, prepared) if result is not None]
        trained = [line for line in called()[before:] if line.startswith("train --demos")]
        assert len(trained) == len(set(trained)) == 2
        # train, eval, export for each seed; again, eval for each job; truth, eval for each, which knows no settings
        assert len(called()) - before == 2 * 3 + 4 * 2 + (4 * 2 if settings == () else 0)
        assert [(result.failed, len(result.curve)) for result in results] == [(None, 3)] * 4
        assert len({result.commands[0] for result in results}) == 2
    assert (tmp_path / "rewards" / "cartpole-segment-s1" / "train.json").is_file()


def test_studies_share_a_reward(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """A new policy on the same robot needs the reward that one on a changed robot has had learned; both name it."""
    same = dataclasses.replace(JOB, study="reoptimise", kind="reoptimise")
    changed = dataclasses.replace(JOB, study="transfer", kind="transfer", variant="walker-long")
    results = [run_job(prepare(job, tmp_path), stub()) for job in (changed, same)]
    assert [line.split()[0] for line in called()] == ["train", "eval", "export", *["train", "eval"] * 3]
    assert results[0].commands[:3] == results[1].commands[:3] and results[0].stages["eval"] == results[1].stages["eval"]


def test_what_was_shared_and_begun_before_is_on_record(
    tmp_path: Path, called: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reward of an earlier commit is used again, and the result names both commits."""
    for name, code in (("walker-long", "old"), ("walker-weak", "new")):
        monkeypatch.setattr("toolkit.study_runner.commit", lambda code=code: code)
        result = run_job(prepare(dataclasses.replace(JOB, kind="transfer", variant=name), tmp_path), stub())
        assert result.commit == ("old" if code == "old" else "old, new")


def test_ctrl_c_saves_and_the_next_call_goes_on(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """The done job keeps its result, the half-done one has none; called again, it resumes, and the third one begins."""
    jobs = [prepare(dataclasses.replace(JOB, seed=seed), tmp_path) for seed in (0, 1, 2)]
    waiting = jobs[1].folder / "run" / "waiting"

    def interrupt() -> None:
        while not waiting.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, stub(cartpole_segment_s1="wait"), 1, lambda _: None, lambda *_: None)
    assert [job.result() is not None for job in jobs] == [True, False, False]
    before = len(called())
    run_jobs(jobs[1:], stub(cartpole_segment_s1="wait"), 1, lambda _: None, lambda *_: None)
    resumed = [line for line in called()[before:] if line.startswith("train")]
    assert ["--resume" in line for line in resumed] == [True, False]
    result = jobs[1].result()
    assert result is not None and result.failed is None
    assert result.wall_seconds is None, "the time before the interruption is unknown"


def test_several_threads_run_alone(tmp_path: Path, called: Callable[[], list[str]]) -> None:
    """A job that is timed on all cores has none beside it, and the others go first."""
    jobs = [prepare(dataclasses.replace(JOB, seed=seed, threads=2 - seed % 2), tmp_path) for seed in (0, 1, 2, 3)]
    running: set[int] = set()
    beside: dict[int, set[int]] = {}

    def on_start(job: Job) -> None:
        running.add(job.seed)
        beside[job.seed] = set(running)

    run_jobs(jobs, stub(), 2, on_start, lambda job, _: running.discard(job.seed))
    assert [seed for seed in beside if seed % 2 == 0] == list(beside)[2:]
    assert not ({1, 3} & (beside[0] | beside[2]))
    found = [job.result() for job in jobs]
    assert [result.machine["jobs side by side"] for result in found if result is not None] == [1, 2, 1, 2]
