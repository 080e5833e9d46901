"""RobotSpec: an identity that survives JSON bit for bit, and derived numbers that agree with its terms."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots import RobotSpec, RobotSpecError, load_robot, robot_names, spec_from_dict
from robots.spec import (
    ACTION_KINDS,
    TRANSFORMS,
    ActionTerm,
    AddedSensor,
    Distribution,
    JointLimit,
    ObservationTerm,
    ResetSpec,
    WorldPlacement,
)

number = st.floats(allow_nan=False, allow_infinity=False)
word = st.text(min_size=1, max_size=8)


def several(item: st.SearchStrategy, min_size: int = 0, max_size: int = 3) -> st.SearchStrategy:
    return st.lists(item, min_size=min_size, max_size=max_size).map(tuple)


@st.composite
def observation_terms(draw: st.DrawFn) -> ObservationTerm:
    channels = draw(several(word.map("sensor/{}".format), min_size=1))
    size = len(channels)
    exactly = several(number, min_size=size, max_size=size)
    return ObservationTerm(
        draw(word), channels, draw(word), draw(exactly), draw(exactly), draw(st.sampled_from(TRANSFORMS))
    )


maybe = st.none() | number
actions = st.builds(
    ActionTerm, word, st.sampled_from(ACTION_KINDS), word, number, number, number, number, maybe, maybe, maybe
)
distributions = st.builds(Distribution, st.sampled_from(["fixed", "uniform", "normal"]), number, number)
placements = st.builds(WorldPlacement, word, word, st.just("box"), several(number), several(number))
resets = st.builds(
    ResetSpec, several(st.tuples(word, distributions)), several(st.tuples(word, distributions)), st.booleans(), number,
    st.sampled_from(["any", "reject", "lift"]), several(placements),
)  # fmt: skip
specs = st.builds(
    RobotSpec, word, word, number, number, several(observation_terms()), several(actions), word, st.none() | word,
    several(st.builds(AddedSensor, word, word, word, word, st.none() | word, st.none() | word)),
    several(st.builds(JointLimit, word, number, number, maybe)), several(st.tuples(word, number)),
    several(st.tuples(word, word, several(number))), resets, several(st.tuples(word, number)),
)  # fmt: skip


@given(specs)
def test_json_round_trip(spec: RobotSpec) -> None:
    """Through JSON and back it is the same spec, to the last bit and with the same identity."""
    again = spec_from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.sha256 == spec.sha256


@pytest.mark.parametrize("name", robot_names())
def test_shipped_robots_round_trip(name: str) -> None:
    """Each shipped robot survives JSON, and its names and sizes agree with each other."""
    spec = load_robot(name)
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))).sha256 == spec.sha256
    assert len(spec.observation_names) == len(set(spec.observation_names)) == spec.obs_dim
    assert len(spec.action_names) == spec.act_dim
    assert len(spec.channels) == len(set(spec.channels)) == len(spec.channel_units)


def test_identity() -> None:
    """Any number changes the identity; prose and the folder do not."""
    spec = load_robot("cheetah")
    assert dataclasses.replace(spec, description="?", directory=None).sha256 == spec.sha256
    assert dataclasses.replace(spec, control_dt=spec.control_dt * (1 + 1e-15)).sha256 != spec.sha256
    slower = (dataclasses.replace(spec.action[0], slew=1.0), *spec.action[1:])
    assert dataclasses.replace(spec, action=slower).sha256 != spec.sha256


def test_identity_is_older_than_stretch() -> None:
    """A robot that stretches nothing has the identity it had before there was such a field; stretching changes it."""
    spec = load_robot("cheetah")
    old = spec.to_dict()
    del old["stretch"]
    assert spec_from_dict(old) == spec
    # That of the demos that ship: recorded before
    assert spec.sha256 == "63d2a0b72e8b2ed928d311274706ebc9988b3a7f712eabfd837c0c68df4e2517"
    assert dataclasses.replace(spec, stretch=(("bshin", 1.3),)).sha256 != spec.sha256


def test_identity_is_older_than_tool() -> None:
    """The same of an arm's beginning by where its hand is."""
    old, jaco = load_robot("cheetah").to_dict(), load_robot("jaco")
    del old["reset"]["tool"]
    assert spec_from_dict(old).sha256 == "63d2a0b72e8b2ed928d311274706ebc9988b3a7f712eabfd837c0c68df4e2517"
    assert dataclasses.replace(jaco, reset=dataclasses.replace(jaco.reset, tool=None)).sha256 != jaco.sha256


def test_channels_are_wired_once() -> None:
    """A channel used by two terms appears once, where it is used first."""
    spec = load_robot("cartpole")
    assert spec.obs_dim == 5
    assert spec.channels == ("joint_pos/slider", "joint_pos/hinge_1", "joint_vel/slider", "joint_vel/hinge_1")
    assert spec.channel_units == ("m", "rad", "m/s", "rad/s")
    assert spec.episode_steps == 1000


@pytest.mark.parametrize(
    ("change", "word_in_message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "format None"),
        ({"observation": 3}, "damaged"),
        ({"colour": "red"}, "damaged"),
        ({"action": [{"actuator": "x"}]}, "damaged"),
    ],
)
def test_damaged_data(change: dict, word_in_message: str) -> None:
    """Data of another format, or with a field too many or of a wrong kind, is refused."""
    with pytest.raises(RobotSpecError, match=word_in_message):
        spec_from_dict(load_robot("cheetah").to_dict() | change)


@pytest.mark.parametrize("field", ["name", "reset", "sensors", "observation", "control_dt"])
def test_missing_field(field: str) -> None:
    """Data that lacks a field is refused."""
    data = load_robot("cheetah").to_dict()
    del data[field]
    with pytest.raises(RobotSpecError, match="damaged"):
        spec_from_dict(data)


@pytest.mark.parametrize("data", [None, [], "robot", 3])
def test_not_a_mapping(data: object) -> None:
    """What is no mapping is refused."""
    with pytest.raises(RobotSpecError, match="mapping"):
        spec_from_dict(data)  # pyright: ignore[reportArgumentType]
