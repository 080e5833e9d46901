"""Which observed angles count turns."""

import dataclasses

import pytest

from robots import load_robot
from robots.endless_joints import endless_angles
from robots.model import compile_model


@pytest.mark.parametrize(
    ("name", "expected"),
    [("reacher", ()), ("hopper", ()), ("cheetah", ("position/rooty",)), ("walker", ()), ("cartpole", ())],
)
def test_shipped_robots(name: str, expected: tuple[str, ...]) -> None:
    """Cosine and sine do not count turns, nor do limited joints; the cheetah observes its pitch as dm_control does."""
    spec = load_robot(name)
    assert endless_angles(spec, compile_model(spec)) == expected


@pytest.mark.parametrize("transform", ["identity", "arcsinh"])
def test_sees_a_plain_angle(transform: str) -> None:
    """The reacher's shoulder as a plain angle is found; the wrist has limits and is not."""
    spec = load_robot("reacher")
    first, *rest = spec.observation
    plain = dataclasses.replace(spec, observation=(dataclasses.replace(first, transform=transform), *rest))
    assert endless_angles(plain, compile_model(plain)) == ("shoulder_cos/shoulder",)
