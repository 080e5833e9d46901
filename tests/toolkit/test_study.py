"""What a job's commands are."""

import dataclasses
from pathlib import Path

import pytest

from toolkit.study import Job, StudyError, plan

JOB = Job("reach", "segment", "cheetah", "cheetah", 5, ("reward.alpha=0.1",), 2, 1000)
FOLDER = Path("o/s/f")


def commands(job: Job) -> list[str]:
    return [stage.command for stage in plan(job, "c.zarr", FOLDER).stages]


def test_train_is_one_training_and_its_evaluation() -> None:
    """Demos, count, seed, steps and settings all reach the command; the ratio is to the demos."""
    assert commands(JOB) == [
        "gcl train --demos c.zarr --count 5 --out o/s/f/run --seed 2 --json --steps 1000"
        " --set threads=1 --set reward.alpha=0.1",
        "gcl eval o/s/f/run -n 20 --json",
    ]
    made = plan(JOB, "c.zarr", FOLDER)
    assert (made.measured, made.against) == ("eval", None)


def test_seconds_threads_and_options_reach_the_command() -> None:
    """Nothing a job says is lost on the way, and what it does not say is left to `gcl train`."""
    job = dataclasses.replace(JOB, count=None, steps=None, seconds=12.5, threads=2, settings=(), options=("--x", "y"))
    expected = "gcl train --demos c.zarr --x y --out o/s/f/run --seed 2 --json --seconds 12.5 --set threads=2"
    assert commands(job)[0] == expected


def test_reoptimise_learns_again_from_the_exported_reward_without_demos() -> None:
    """The second training sees the frozen reward and no demo, and is measured against the first."""
    job = dataclasses.replace(JOB, kind="reoptimise", measure_too=("eval", "{run}", "--correlation", "--json"))
    train, _, export, again, measured, too = commands(job)
    assert "--demos" in train and "--demos" not in again
    reward = "o/rewards/cheetah-segment-s2"
    assert export == f"gcl export --checkpoint {reward}/run --out {reward}/cheetah.bundle --force --json"
    assert f"--objective reward --reward {reward}/cheetah.bundle/reward.onnx --robot cheetah --out o/s/f/again" in again
    other = commands(dataclasses.replace(job, again_settings=("generator=sac",)))
    assert other[3].endswith("--set threads=1 --set generator=sac") and other[0] == train
    assert measured == "gcl eval o/s/f/again -n 20 --json" and too == f"gcl eval {reward}/run --correlation --json"
    made = plan(job, "c.zarr", FOLDER)
    assert (made.measured, made.against) == ("eval-again", "eval")


def test_transfer_happens_on_the_changed_robot() -> None:
    """Both the frozen reward and the true one train on the variant; the one is measured against the other."""
    variant = "robots/variants/long_leg/robot.yaml"
    job = dataclasses.replace(JOB, kind="transfer", variant=variant)
    train, _, export, again, _, truth, _ = commands(job)
    assert variant not in train and f"--robot {variant}" in again
    assert "--reward o/rewards/cheetah-segment-s2/cheetah.bundle/reward.onnx" in again and "--out o/s/f/again" in again
    assert f"--objective task-reward --robot {variant} --out o/truths/long_leg-s2/run" in truth
    same = dataclasses.replace(job, kind="reoptimise", variant=None)
    assert [train, export] == [commands(same)[0], commands(same)[2]]
    assert all("reward.alpha=0.1" in command for command in (train, again)) and "reward.alpha" not in truth
    assert plan(job, "c.zarr", FOLDER).against == "eval-truth"
    more = dataclasses.replace(job, name="on", reward="segment", again_options=("--start", "{run}"))
    words = commands(dataclasses.replace(more, measure_too=("eval", "{run}", "--robot", "{robot}")))
    assert words[:3] == commands(job)[:3] and more.folder_name == "cheetah-to-long_leg-on-s2"
    assert f"--robot {variant} --start o/rewards/cheetah-segment-s2/run --out o/s/f/again" in words[3]
    assert words[7] == f"gcl eval o/rewards/cheetah-segment-s2/run --robot {variant}"
    longer = commands(dataclasses.replace(job, again_steps=3000))
    assert ["--steps 3000" in command for command in longer if " train " in command] == [False, True, True]
    truth = commands(dataclasses.replace(job, again_steps=3000, truth_steps=5000))
    assert ["--steps 5000" in command for command in truth if " train " in command] == [False, False, True]
    assert job.folder_name == "cheetah-to-long_leg-segment-s2"


def test_folder_names_are_plain_words() -> None:
    """Whatever a setting is called, its folder is no trouble in a shell."""
    assert dataclasses.replace(JOB, name="temper 1 (exact logit)").folder_name == "cheetah-temper-1-exact-logit-s2"


@pytest.mark.parametrize("wrong", [{"kind": "dance"}, {"kind": "transfer"}, {"variant": "x"}])
def test_a_job_without_a_plan_is_refused(wrong: dict) -> None:
    """An unknown kind, or a transfer to nowhere."""
    with pytest.raises(StudyError, match="kind"):
        dataclasses.replace(JOB, **wrong)


def test_a_job_says_how_long_it_is_measured() -> None:
    """Where beginnings are what is hard, twenty are few; new policies are measured for as long."""
    assert commands(dataclasses.replace(JOB, episodes=100))[1] == "gcl eval o/s/f/run -n 100 --json"
    again = commands(dataclasses.replace(JOB, episodes=100, kind="reoptimise"))
    assert sum("-n 100 " in command for command in again) == 2
