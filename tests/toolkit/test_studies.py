"""The list of studies is complete, and each of its jobs could be run."""

import json
from pathlib import Path

from robots.robot_yaml import load_robot
from toolkit.studies import ABLATION, FAMILY, NOT_BY_DEFAULT, PRACTISED, REACH, TOLD, all_studies
from toolkit.study import plan


def test_every_job_has_a_plan_and_a_folder_of_its_own() -> None:
    """No two jobs share a folder, and each names a robot that exists."""
    for study in all_studies(3).values():
        folders = [job.folder_name for job in study.jobs]
        assert len(set(folders)) == len(folders)
        for job in study.jobs:
            assert job.study == study.name
            assert load_robot(job.robot).task is not None
            assert plan(job, "x.zarr", Path("f")).stages
            assert "," not in job.name, "--settings takes several, separated by commas"


def test_seeds_are_multiplied_out() -> None:
    """Every setting runs with every seed; the smoke version with one."""
    studies = all_studies(4)
    assert [job.seed for job in studies["reach"].jobs] == [0, 1, 2, 3] * len(REACH)
    assert len(studies["family"].jobs) == 2 * 4 * len(FAMILY)
    assert len(studies["scratch"].jobs) == 4 * len(ABLATION)
    assert len(studies["ablation"].jobs) == 4 * (len(ABLATION) + len(PRACTISED) + len(TOLD))
    assert [(job.robot, job.seed) for job in studies["smoke"].jobs] == [("cartpole", 0), ("reacher", 0)]


def test_whole_episodes_are_tried_where_robots_are_trained_on_shorter_ones() -> None:
    """Else that ablation would compare a thing with itself, or leave a robot out."""
    assert {robot for robot in REACH if load_robot(robot).practice_seconds is not None} == set(PRACTISED)


def test_a_reward_that_is_shared_is_learned_in_one_way() -> None:
    """Jobs that name the same folder of a reward have it learned by the same command."""
    learned: dict[Path, str] = {}
    for study in all_studies(2).values():
        for job in study.jobs:
            train = plan(job, "x.zarr", Path("o") / study.name / job.folder_name).stages[0]
            assert learned.setdefault(train.folder, train.command) == train.command


def test_family_differs_in_the_objective_alone() -> None:
    """Same demos, same seconds: else the table compares something else."""
    jobs = [job for job in all_studies(1)["family"].jobs if job.robot == "cheetah"]
    assert len({json.dumps([job.demos, job.count, job.seconds, job.steps, job.threads]) for job in jobs}) == 1
    assert len({job.settings for job in jobs}) == len(FAMILY)


def test_only_the_smoke_version_can_fail_by_its_figures() -> None:
    """The others are reported, good or bad."""
    assert [study.name for study in all_studies(1).values() if study.gate] == ["smoke"]
    assert set(NOT_BY_DEFAULT) <= set(all_studies(1))


def test_a_frozen_reward_must_rank_policies_as_the_truth_does() -> None:
    """On every robot and by every setting; no other study has what could be asked for that."""
    demanded = {study.name: {job.correlation_at_least for job in study.jobs} for study in all_studies(2).values()}
    assert demanded.pop("reoptimise") == {0.95}
    assert set.union(*demanded.values()) == {None}
