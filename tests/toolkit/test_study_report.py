"""The table: what it says of seeds that went well, badly, or not at all."""

import dataclasses
import json
from pathlib import Path

import pytest
from study_samples import JOB, finished, moved, result, study

from toolkit.study_report import Finished, missed, rows, untrained_rows, write_report


def test_a_row_has_every_seed_and_their_middle() -> None:
    """Three seeds: IQM with the weights of n = 3, the least of them, and an interval around."""
    some = finished(0.96, 1.02, 0.99)
    (row,) = rows(study(some), some)
    assert row.ratios == (0.96, 1.02, 0.99) and row.iqm == pytest.approx((0.25 * 0.96 + 0.99 + 0.25 * 1.02) / 1.5)
    assert row.interval is not None and row.interval[0] <= 0.99 <= row.interval[1]
    assert (row.first_90, row.first_95) == ((20.0,) * 3, (30.0,) * 3)
    assert row.met is True and not missed(study(some), some)


@pytest.mark.parametrize(
    ("ratios", "met"), [((0.97, 0.97, 0.97), False), ((1.0, 1.0, 0.89), False), ((1.0, 1.0, 0.91), True)]
)
def test_target_is_the_middle_and_the_least(ratios: tuple[float, ...], met: bool) -> None:
    """An IQM under the target misses it, and so does one bad seed among good ones."""
    some = finished(*ratios)
    assert rows(study(some), some)[0].met is met
    assert missed(study(some), some) is not met


def test_a_failed_seed_counts_as_nothing() -> None:
    """Leaving it out would make a method look better for crashing."""
    some = finished(1.0, None, 1.0)
    (row,) = rows(study(some), some)
    assert row.ratios == (1.0, 0.0, 1.0) and row.failed == (False, True, False)
    assert row.iqm == pytest.approx(1.25 / 1.5) and row.met is False


def test_what_has_not_run_is_not_counted_but_seen(tmp_path: Path) -> None:
    """One of two seeds so far: the row says so, and the smoke version would not pass."""
    some = [*finished(1.0), (dataclasses.replace(JOB, seed=1), None)]
    (row,) = rows(study(some), some)
    assert row.ratios == (1.0,) and row.planned == 2 and row.interval is None
    assert missed(study(some), some)
    write_report(tmp_path, [(study(some), some)], "gcl bench learning")
    assert "| cheetah | segment | 1 of 2 |" in (tmp_path / "learning.md").read_text()


def test_all_robots_together_are_stratified() -> None:
    """Robots that agree within themselves leave no width, however far apart they are."""
    some = finished(1.0, 1.0) + finished(0.5, 0.5, robot="walker")
    assert [row.robot for row in rows(study(some), some)] == ["cheetah", "walker", "all"]
    everything = rows(study(some), some)[-1]
    assert everything.iqm == 0.75 and everything.interval == (0.75, 0.75)


def test_markdown_names_everything_a_figure_depends_on(tmp_path: Path) -> None:
    """Commit, machine, date and command on top; failed seeds in their row and below it; a poor expert is marked."""
    some = finished(1.0, None, 0.95, mean=500.0)
    data = write_report(tmp_path, [(study(some), some)], "gcl bench learning --studies reach")
    text = (tmp_path / "learning.md").read_text()
    for said in (
        "`gcl bench learning --studies reach`",
        "- commit: abc123",
        "Abacus, 2 cores, Linux x86_64, 2 job(s) at a time",
        "date: 2026-01-02",
        "| 3 | 20 | 1.000, failed, 0.950 |",
        "| 30 | 40 | 20, 20, 20 | 30, 30, 30 | 500 (under 600) | no |",
        "- failed: cheetah, segment, seed 1: train: exit code 1: RuntimeError: NaN",
        "Target: t.",
    ):
        assert said in text, said
    assert json.loads((tmp_path / "learning.json").read_text()) == json.loads(json.dumps(data))
    assert len(data["results"]) == 3 and data["results"][0]["commands"] == ("gcl train", "gcl eval")


def test_reoptimised_policies_say_what_they_are_measured_against(tmp_path: Path) -> None:
    """The denominator is not the demos there, so it is written down, with the correlation where it was measured."""
    job = dataclasses.replace(JOB, kind="reoptimise")
    stages = {"eval": {"mean": 640.0}, "too": {"pearson": 0.973}}
    some: list[Finished] = [(job, dataclasses.replace(result(job, 0.95), mean=608.0, stages=stages))]
    write_report(tmp_path, [(study(some), some)], "x")
    expected = "- cheetah, segment, seed 0: 608 against 640 of the policy it was learned with; demos 600; Pearson 0.973"
    assert expected in (tmp_path / "learning.md").read_text()


def test_a_changed_robot_says_what_the_old_policy_does_there(tmp_path: Path) -> None:
    """Else a figure near 1 may be the old policy's doing and not the reward's."""
    job = dataclasses.replace(JOB, kind="transfer", variant="cheetah-weak")
    stages = {"eval-truth": {"mean": 933.0}, "too": {"mean": 281.6}}
    some: list[Finished] = [(job, dataclasses.replace(result(job, 0.9), mean=840.0, stages=stages))]
    write_report(tmp_path, [(study(some), some)], "x")
    expected = (
        "- cheetah to cheetah-weak, segment, seed 0: 840 against 933 of a policy trained on the true reward; demos 600"
        "; the policy that came with the reward, untrained there, 282\n"
    )
    assert expected in (tmp_path / "learning.md").read_text()


@pytest.mark.parametrize(("pearson", "met"), [((0.95, 0.99), True), ((0.99, 0.94), False), ((0.99, None), False)])
def test_a_correlation_that_is_demanded_is_demanded_of_every_seed(pearson: tuple[float | None, ...], met: bool) -> None:
    """A policy as good as the old one is not all: a reward that ranks others wrongly misses, as does one unmeasured."""
    job = dataclasses.replace(JOB, kind="reoptimise", correlation_at_least=0.95)
    some: list[Finished] = [
        (job, dataclasses.replace(result(job, 1.0), stages={"too": {"pearson": one}})) for one in pearson
    ]
    assert rows(study(some), some)[0].met is met


def test_all_robots_together_have_met_nothing_that_one_of_them_missed() -> None:
    """A middle that is good enough may hide a robot on which nothing worked."""
    good, bad = finished(1.0, 1.0, 1.0, 1.0), finished(0.95, 0.1, robot="walker")
    cheetah, walker, everything = rows(study(good + bad, no_seed_under=None), good + bad)
    assert cheetah.met is True and walker.met is False
    assert everything.iqm is not None and everything.iqm >= 0.98 and everything.met is False
    assert rows(study(good), good)[-1].met is True


def test_a_study_without_jobs_says_so(tmp_path: Path) -> None:
    """Nothing planned is not an empty table."""
    write_report(tmp_path, [(study([]), [])], "x")
    assert "No jobs yet." in (tmp_path / "learning.md").read_text()


def test_the_old_policy_as_it_is_counts_once_a_seed() -> None:
    """Of settings that share it, and of seeds where another stage failed; not of those where it was not measured."""
    some = moved("anew", 0.9, 0.8, None) + moved("continued", 1.0, 1.0)
    (row,) = untrained_rows(study(some), some)
    assert (row.robot, row.ratios, row.failed, row.iqm) == ("cheetah to cheetah-lame", (0.3, 0.3), (False, False), 0.3)
    stages = {"too": {"mean": 400.0}, "eval-truth": {"mean": 500.0}}
    late = [(job, dataclasses.replace(result(job, None), stages=stages)) for job, _ in moved("anew", 1.0, 1.0)[1:]]
    both = moved("anew", 1.0) + late
    assert untrained_rows(study(both), both)[0].ratios == (0.3, 0.8)
    assert untrained_rows(study(finished(1.0)), finished(1.0)) == []
