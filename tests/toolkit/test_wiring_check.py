"""WiringCheck says of each channel whether it is alive, sound, within limits, and which way it moved first."""

import math

import numpy as np
import pytest

from robots import SensorReading
from robots.robot_yaml import parse_robot
from toolkit.wiring_check import WiringCheck

SPEC = parse_robot({
    "name": "arm", "mjcf": "arm.xml", "control_dt": 0.02, "episode_seconds": 5,
    "observation": [
        {"name": "position", "joint_pos": ["elbow", "wrist"], "unit": "rad"},
        {"name": "velocity", "joint_vel": ["wrist"], "unit": "rad/s"},
        {"name": "force", "sensor": ["touch"], "unit": "N"},
    ],
    "action": [
        {"actuator": "elbow", "kind": "position", "unit": "rad", "scale": 1.0},
        {"actuator": "wrist", "kind": "position", "unit": "rad", "scale": 2.0},
    ],
    "joint_limits": {"wrist": {"lower": -1.0, "upper": 1.5}},
})  # fmt: skip
PERIOD = 20_000_000  # [ns]


def watch(*rows: tuple[float, float, float, float], start: WiringCheck | None = None) -> WiringCheck:
    """A check that saw these values, a period apart."""
    check = start or WiringCheck(SPEC)
    for row in rows:
        sequence = check.readings
        check.add(SensorReading(np.array(row), sequence * PERIOD, sequence), sequence * PERIOD)
    return check


def states(check: WiringCheck) -> dict[str, str]:
    return {state.channel: state.state for state in check.states()}


def test_a_sound_wiring() -> None:
    """Joints that moved, values within limits, a velocity that goes with its position: nothing to say."""
    check = watch((0.0, 0.0, 0.0, 5.0), (0.2, -0.1, -5.0, 5.0), (0.1, 0.3, 20.0, 5.0))
    assert check.problems() == []
    assert [state.direction for state in check.states()] == [1, -1, -1, 0]
    assert [(state.low, state.high) for state in check.states()] == [(0.0, 0.2), (-0.1, 0.3), (-5.0, 20.0), (5.0, 5.0)]
    assert check.rate_hz(2 * PERIOD) == pytest.approx(50.0)
    assert check.age_seconds(3 * PERIOD) == pytest.approx(0.02)


def test_what_has_not_moved() -> None:
    """Noise is no movement, and a joint that nobody moved has not proved its wire."""
    check = watch((0.0, 0.0, 0.0, 0.0), (0.04, 0.2, 0.0, 0.04))
    assert check.problems() == ["joint_pos/elbow has not moved"]


def test_frozen() -> None:
    """Readings that repeat their number are no news: after a while every channel is frozen, and it stays on record."""
    check = watch((0.0, 0.0, 0.0, 0.0), (0.2, 0.2, 1.0, 0.0))
    again = SensorReading(np.array([0.2, 0.2, 1.0, 0.0]), PERIOD, 1)
    check.add(again, PERIOD + 200_000_000)
    assert set(states(check).values()) == {"OK"}
    check.add(again, PERIOD + 300_000_000)
    assert set(states(check).values()) == {"FROZEN"}
    assert check.readings == 2
    check.add(SensorReading(again.values, 0, 2), PERIOD + 320_000_000)
    assert set(states(check).values()) == {"OK"}
    assert check.problems() == ["frozen: no fresh reading for 0.25 s or longer"]


def test_not_a_number() -> None:
    """NaN and infinity show at once, are counted, and leave the range seen alone."""
    check = watch((0.0, 0.0, 0.0, math.nan), (0.2, 0.2, 1.0, math.inf))
    assert states(check)["sensor/touch"] == "NaN"
    assert check.problems() == ["sensor/touch: not a number in 2 of 2 readings"]
    watch((0.2, 0.2, 0.0, 3.0), start=check)
    assert states(check)["sensor/touch"] == "OK"
    assert (check.states()[3].low, check.states()[3].high) == (3.0, 3.0)


def test_out_of_limits() -> None:
    """Only a joint's own limits count; the range of commands is where its bar ends."""
    check = watch((5.0, 0.0, 0.0, 0.0), (5.2, 1.6, 1.0, 0.0))
    assert states(check)["joint_pos/wrist"] == "OUT OF LIMITS"
    assert states(check)["joint_pos/elbow"] == "OK"
    assert check.problems() == ["joint_pos/wrist: outside its limits [-1, 1.5] rad in 1 of 2 readings"]
    bars = {state.channel: (state.lower, state.upper) for state in check.states()}
    assert bars["joint_pos/elbow"] == (-1.0, 1.0)
    assert bars["joint_pos/wrist"] == (-1.0, 1.5)
    assert bars["sensor/touch"] == (None, None)


def test_a_velocity_of_the_wrong_sign() -> None:
    """A velocity that runs against its own position is found without anybody knowing which way is positive."""
    check = watch((0.0, 0.0, 0.0, 0.0), (0.2, 0.3, -15.0, 0.0), (0.2, 0.1, 10.0, 0.0))
    assert check.problems() == ["joint_vel/wrist runs against joint_pos/wrist: a sign is wrong"]


def test_errors_are_kept_once() -> None:
    """What the backend said is on record, and said once."""
    check = watch((0.0, 0.0, 0.0, 0.0), (0.2, 0.2, 1.0, 0.0))
    check.failed("servo 3: no answer")
    check.failed("servo 3: no answer")
    assert check.problems() == ["lost: servo 3: no answer"]


def test_no_reading_at_all() -> None:
    """A check that saw nothing proves nothing."""
    assert WiringCheck(SPEC).problems() == ["no reading came"]
    assert WiringCheck(SPEC).rate_hz(1) == 0.0
