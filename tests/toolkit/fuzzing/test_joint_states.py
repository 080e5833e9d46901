"""The reader of joint states under hostile messages; and one broken on purpose is found out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots import RobotSpecError, load_robot
from robots.ros2_samples import JointSample, JointStates
from toolkit.fuzzing.datagram_oracle import ViolationError
from toolkit.fuzzing.joint_states import JointStateTarget

SPEC = load_robot("cheetah")


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_no_malformed_message_is_taken(seed: int) -> None:
    """None raises, none that is malformed or old is taken, and whole ones are."""
    thrown, taken = JointStateTarget(SPEC, seed).some(500)
    assert thrown == 500 and 50 < taken < 400


def broken(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Has `change` the last word on what the reader read."""
    read = JointStates.read
    monkeypatch.setattr(JointStates, "read", lambda self, message: change(read(self, message), message))
    with pytest.raises(ViolationError):
        JointStateTarget(SPEC, 0).some(5000)


def test_joints_by_their_place_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were joints taken by their place, the fuzzer would say so."""

    def by_place(sample: JointSample | None, message: Any) -> JointSample | None:
        if sample is None:
            return None
        count = sample.position.size
        return JointSample(sample.stamp_ns, np.array(message.position[:count]), sample.velocity, sample.effort)

    broken(monkeypatch, by_place)


def test_a_reader_that_refuses_everything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were whole messages refused, the fuzzer would say so."""
    broken(monkeypatch, lambda sample, message: None)


def test_a_reader_that_raises_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Did it raise at what it refuses, the fuzzer would say so."""

    def raising(sample: JointSample | None, message: Any) -> JointSample:
        if sample is None:
            raise ValueError("no")
        return sample

    broken(monkeypatch, raising)


def test_old_messages_taken_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were stamps not compared, the fuzzer would say so."""
    read = JointStates.read

    def forgetful(self: JointStates, message: object) -> JointSample | None:
        self._newest = None
        return read(self, message)

    monkeypatch.setattr(JointStates, "read", forgetful)
    with pytest.raises(ViolationError, match="malformed or old"):
        JointStateTarget(SPEC, 0).some(5000)


def test_not_finite_numbers_taken_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were NaN let through, the fuzzer would say so."""
    monkeypatch.setattr("robots.ros2_samples.np.isfinite", lambda values: np.ones_like(values, dtype=bool))
    with pytest.raises(ViolationError, match="malformed or old"):
        JointStateTarget(SPEC, 0).some(5000)


def test_a_robot_with_other_sensors() -> None:
    """A robot that measures more than joints cannot be wired without a word about it, and the error says so."""
    with pytest.raises(RobotSpecError, match="joints alone"):
        JointStateTarget(load_robot("walker"), 0)
