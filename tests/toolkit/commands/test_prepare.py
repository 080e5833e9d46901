"""What a training run is made of: the robot as it is trained today, whatever the demos were recorded with."""

import dataclasses

from demos.store import DemoStore
from robots.robot_yaml import load_robot
from toolkit.commands.prepare import _as_trained_today, open_demos
from toolkit.commands.quickstart import shipped_demos


def test_a_store_older_than_what_its_robot_says_of_training() -> None:
    """Practice and randomisation come from the robot that ships, all else stays as recorded."""
    recorded = DemoStore.open(shipped_demos("walker")).spec
    old = dataclasses.replace(recorded, practice_seconds=None, randomize=None)
    today = _as_trained_today(old)
    assert today.practice_steps == 250 and today.randomize is not None
    assert today == old and today.safety is old.safety
    own = dataclasses.replace(old, practice_seconds=3.0)
    assert _as_trained_today(own).practice_steps == 120


def test_another_robot_of_the_same_name_is_left_as_it_is() -> None:
    """Neither a stranger nor somebody's changed walker is trained as ours."""
    recorded = DemoStore.open(shipped_demos("walker")).spec
    for other in (
        dataclasses.replace(recorded, name="our-walker"),
        dataclasses.replace(recorded, default_pose=(("right_hip", 0.1),)),
    ):
        assert _as_trained_today(other) is other


def test_a_robot_that_is_named_is_trained_as_it_says() -> None:
    """Who gives a robot.yaml without practice wants none; the recorded robot is trained as the one that ships."""
    demos = shipped_demos("walker")
    plain = dataclasses.replace(load_robot("walker"), practice_seconds=None)
    assert open_demos(demos, plain, None)[0] is plain
    assert open_demos(demos, None, None)[0].practice_steps == 250
