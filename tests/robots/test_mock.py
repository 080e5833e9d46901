"""MockBackend keeps the contract and shows the faults it is told to."""

import numpy as np
import pytest
from backend_contract import BackendContract

from robots import RobotSpecError, load_robot
from robots.mock import MockBackend

SPEC = load_robot("cheetah")


class TestMockBackend(BackendContract):
    spec = SPEC

    def make(self, seed: int = 0) -> MockBackend:
        return MockBackend(self.spec, seed)


def run(backend: MockBackend, steps: int) -> list:
    command = np.array([term.upper for term in SPEC.action])
    return [backend.reset(), *(backend.step(command) for _ in range(steps))]


def test_echoes_share_of_range() -> None:
    """A command at its upper limit reads as 1."""
    assert run(MockBackend(SPEC), 1)[-1].values == pytest.approx(np.ones(len(SPEC.channels)))


def test_delay() -> None:
    """A delayed value shows up that many steps later, in fresh readings."""
    readings = run(MockBackend(SPEC, delay=2), 4)
    shown = [reading.values[0] == 1.0 for reading in readings]
    assert shown == [False, False, False, True, True]
    assert [reading.sequence for reading in readings] == [0, 1, 2, 3, 4]


def test_drop_and_freeze() -> None:
    """A lost reading repeats its predecessor, number and time included."""
    readings = run(MockBackend(SPEC, drop={2}, freeze_from=4), 5)
    assert [reading.sequence for reading in readings] == [0, 1, 1, 2, 2, 2]
    assert readings[2].timestamp_ns == readings[1].timestamp_ns


def test_poison() -> None:
    """Only the named channel of the named step is NaN."""
    readings = run(MockBackend(SPEC, poison={2}, poison_channel="joint_vel/bfoot"), 3)
    bad = [np.flatnonzero(np.isnan(reading.values)).tolist() for reading in readings]
    assert bad == [[], [], [SPEC.channels.index("joint_vel/bfoot")], []]


def test_unknown_channel() -> None:
    """A channel the robot lacks is refused."""
    with pytest.raises(RobotSpecError, match="joint_pos/nose"):
        MockBackend(SPEC, poison_channel="joint_pos/nose")
