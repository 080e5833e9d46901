"""The sections reset and randomize; reset's own mistakes are in test_robot_yaml.py, with the rest of the file."""

import pytest

from robots import RobotSpecError, spec_from_dict
from robots.robot_yaml import load_robot
from robots.simulation_yaml import parse_randomize
from robots.spec import Randomization

TERMS = ["position", "velocity"]


def test_all_keys() -> None:
    """Each key is read; one number of noise is for all terms, and what is left out is not randomised."""
    data = {"mass": [0.5, 2], "friction": [1, 1.5], "gains": [0.9, 1.1], "delay": [1, 2], "noise": {"velocity": 0.1}}
    assert parse_randomize(data, TERMS) == Randomization(
        (0.5, 2.0), (1.0, 1.5), (0.9, 1.1), (1, 2), (("velocity", 0.1),)
    )
    assert parse_randomize({"noise": 0.5}, TERMS) == Randomization(noise=(("position", 0.5), ("velocity", 0.5)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "mass, friction, gains, delay, noise"),
        ({"masses": [1, 1]}, "did you mean 'mass'"),
        ({"mass": 1.2}, "two numbers"),
        ({"mass": [1.2, 0.8]}, "1.2 is above 0.8"),
        ({"mass": [0, 1]}, "above 0"),
        ({"delay": [0, 0.5]}, "whole control steps"),
        ({"delay": [-1, 0]}, "at least 0"),
        ({"noise": {"speed": 0.1}}, "legal are position, velocity"),
        ({"noise": -0.1}, "at least 0"),
        ({"noise": "much"}, "finite number"),
    ],
)
def test_mistakes(data: object, words: str) -> None:
    """Whatever is not legal is an error that says what is."""
    with pytest.raises(RobotSpecError, match=words):
        parse_randomize(data, TERMS)


def test_travels_and_is_no_identity() -> None:
    """The ranges go along with the spec, so that a resumed training draws the same, but do not identify the robot."""
    spec = load_robot("cheetah")
    assert spec.randomize is not None and spec_from_dict(spec.to_dict()).randomize == spec.randomize
    older = {key: value for key, value in spec.to_dict().items() if key != "randomize"}
    assert spec_from_dict(older).randomize is None and spec_from_dict(older).sha256 == spec.sha256
    assert load_robot("cheetah-weak").randomize == spec.randomize
