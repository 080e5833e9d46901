"""DryRun measures and sends nothing."""

import numpy as np
import pytest

from robots import BackendError, load_robot
from robots.backend import Backend, SensorReading
from robots.dry_run import DryRun
from robots.mock import MockBackend

SPEC = load_robot("cartpole")


class Untouchable(MockBackend):
    """A robot that must not be moved."""

    def reset(self) -> SensorReading:
        raise AssertionError("the robot was reset")

    def step(self, command: np.ndarray) -> SensorReading:
        raise AssertionError("the robot was commanded")


def test_commands_end_here() -> None:
    """It resets and steps like any backend, counts from 0, and the robot behind it is only measured."""
    robot: Backend = DryRun(Untouchable(SPEC))
    with pytest.raises(BackendError, match="reset"):
        robot.step(np.zeros(1))
    for _ in range(2):
        assert robot.reset().sequence == 0
        assert [robot.step(np.ones(1)).sequence for _ in range(3)] == [1, 2, 3]
    with pytest.raises(BackendError, match="finite"):
        robot.step(np.array([np.nan]))
    robot.close()
    with pytest.raises(BackendError, match="closed"):
        robot.measure()
