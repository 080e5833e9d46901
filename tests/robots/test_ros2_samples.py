"""Whatever a message holds, only a whole one becomes numbers, by name, and nothing raises."""

from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ros2_arm import JOINTS, arm, wired

from robots.hardware import Wiring
from robots.ros2_options import SensorTopic
from robots.ros2_samples import JointStates, SensorReader

SPEC = arm()
WIRING = Wiring(SPEC, wired(SPEC))
POSE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"shoulder": (0.1, 1.0), "elbow": (0.2, 2.0), "wrist": (0.3, 3.0)}
)


def stamp(nanoseconds: int) -> SimpleNamespace:
    return SimpleNamespace(stamp=SimpleNamespace(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9))


def joint_state(names: list[str], at: int = 1, **changed: object) -> SimpleNamespace:
    pose = [POSE.get(name, (np.nan, np.nan)) for name in names]  # of a joint that is not ours nothing is known
    fields = {"position": [p for p, _ in pose], "velocity": [v for _, v in pose], "effort": []}
    return SimpleNamespace(header=stamp(at), name=names, **{**fields, **changed})


@given(st.permutations([*JOINTS, "gripper", "camera"]), st.permutations(JOINTS))
def test_by_name(first: list[str], second: list[str]) -> None:
    """Any order of names, another in the next message, with strangers among them: each number is its joint's."""
    states = JointStates(WIRING)
    for at, names in enumerate((first, second), start=1):
        sample = states.read(joint_state(names, at))
        assert sample is not None
        for source, position, velocity in zip(WIRING.sources, sample.position, sample.velocity, strict=True):
            assert (position, velocity) == POSE[source]


def test_effort_that_nobody_asked_for_may_be_anything() -> None:
    """ROS 2 writes NaN for what it does not measure: no harm where no channel is of it."""
    assert JointStates(WIRING).read(joint_state(list(JOINTS), effort=[np.nan] * 3)) is not None


nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(JOINTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)  # fmt: skip


def test_a_truth_beside_numbers_is_no_number() -> None:
    """numpy would make 0 of it."""
    assert JointStates(WIRING).read(joint_state(list(JOINTS), position=[False, False, 0.0])) is None


@given(st.data())
def test_nonsense_raises_nothing(data: st.DataObject) -> None:
    """With any field replaced by anything, a message is read as what it says or not at all."""
    field = data.draw(st.sampled_from(["header", "name", "position", "velocity", "effort"]))
    value: Any = data.draw(nonsense)
    states = JointStates(WIRING)
    message = joint_state(list(JOINTS))
    setattr(message, field, value)
    sample = states.read(message)
    assert sum(states.counts.values()) == 1
    if sample is not None and field in ("position", "velocity"):
        assert all(type(x) in (int, float) for x in value) and len(value) == 3
        np.testing.assert_array_equal(getattr(sample, field), [value[JOINTS.index(s)] for s in WIRING.sources])
    if field in ("name", "header"):
        assert sample is None or value == list(JOINTS)


@pytest.mark.parametrize("field", ["header", "name", "position", "velocity", "effort"])
def test_a_missing_field_is_malformed(field: str) -> None:
    """A message without one of the fields is none."""
    message = joint_state(list(JOINTS))
    delattr(message, field)
    states = JointStates(WIRING)
    assert states.read(message) is None
    assert states.counts == {"malformed": 1}


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_stamps_never_go_back(stamps: list[int]) -> None:
    """Of messages in any order, exactly those are new whose stamp is later than all before it."""
    states = JointStates(WIRING)
    newest = -1
    for at in stamps:
        sample = states.read(joint_state(list(JOINTS), at))
        assert (sample is not None) == (at > newest)
        newest = max(newest, at)
    states.forget()
    assert states.read(joint_state(list(JOINTS), 0)) is not None


def test_unstamped_messages_are_new_by_their_numbers() -> None:
    """A publisher that never stamps is heard when something moved, and taken for frozen when nothing did."""
    states = JointStates(WIRING)
    assert states.read(joint_state(list(JOINTS), 0)) is not None
    assert states.read(joint_state(list(JOINTS), 0)) is None
    assert states.read(joint_state(list(JOINTS), 0, velocity=[0.0, 0.0, 0.0])) is not None
    assert states.counts == {"accepted": 2, "repeated": 1}


IMU = SensorTopic("/imu", "imu", ("angular_velocity/z", "linear_acceleration/x"), (0, 1))


def imu(at: int = 1, x: float = 9.5, covariance: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(
        header=stamp(at),
        angular_velocity=SimpleNamespace(x=0.0, y=0.0, z=0.25),
        linear_acceleration=SimpleNamespace(x=x, y=0.0, z=0.0),
        orientation_covariance=[-1.0],
        angular_velocity_covariance=[0.0],
        linear_acceleration_covariance=[covariance],
    )


def test_imu() -> None:
    """An Imu gives the fields that were asked for; one that is older, not finite or says -1 gives nothing."""
    reader = SensorReader(IMU)
    values = reader.read(imu(5))
    assert values is not None and values.tolist() == [0.25, 9.5]
    for bad in (imu(4), imu(6, x=np.inf), imu(6, covariance=-1.0), SimpleNamespace()):
        assert reader.read(bad) is None
    assert reader.counts == {
        "accepted": 1, "out of order": 1, "not finite": 1, "not measured": 1, "malformed": 1,
    }  # fmt: skip


@given(nonsense, st.integers(0, 1))
def test_multi_array(data: object, offset: int) -> None:
    """An array gives its elements by index; anything else, a shorter one or one with an offset gives nothing."""
    reader = SensorReader(SensorTopic("/touch", "multi_array", ("2", "0"), (1, 0)))
    values = reader.read(SimpleNamespace(layout=SimpleNamespace(data_offset=offset), data=data))
    if values is not None:
        assert offset == 0 and isinstance(data, list)
        assert values.tolist() == [data[2], data[0]] and np.isfinite(values).all()
    elif offset == 0 and isinstance(data, list) and len(data) > 2:
        assert not all(type(x) is float and np.isfinite(x) for x in data)
    given_row = reader.read(SimpleNamespace(layout=SimpleNamespace(data_offset=0), data=[1.0, 2.0, 3.0]))
    assert given_row is not None and given_row.tolist() == [3.0, 1.0]
