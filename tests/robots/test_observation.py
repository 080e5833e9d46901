"""make_observation against hand-worked numbers, for one reading and for many."""

import numpy as np
import pytest

from robots import RobotSpecError, load_robot
from robots.observation import ObservationMap, make_observation
from robots.robot_yaml import parse_robot

SPEC = parse_robot(
    {
        "name": "toy", "mjcf": "toy.xml", "control_dt": 0.1, "episode_seconds": 1,
        "observation": [
            {"name": "z", "joint_pos": ["b"], "unit": "m"},
            {"name": "scaled", "joint_pos": ["a", "b"], "unit": "m", "offset": [1, 2], "scale": [10, 100]},
            {"name": "angle", "sensor": ["s[0:2]"], "unit": "rad", "transform": "sin"},
            {"name": "angle_too", "sensor": ["s[0]"], "unit": "rad", "transform": "cos"},
            {"name": "touch", "sensor": ["t"], "unit": "N", "transform": "log1p", "scale": 2},
            {"name": "force", "sensor": ["f"], "unit": "N", "transform": "arcsinh"},
        ],
        "action": [{"actuator": "m", "kind": "effort", "unit": "N", "scale": 1}],
    }
)  # fmt: skip
#       b    a    s[0]         s[1]  t    f
VALUES = [3.0, 1.5, np.pi / 6, 0.0, 0.5, np.sinh(2.0)]
EXPECTED = [3.0, 5.0, 100.0, 0.5, 0.0, np.cos(np.pi / 6), np.log(2.0), 2.0]


def test_by_hand() -> None:
    """Order, offset, scale and transforms are as the terms say."""
    assert SPEC.channels == ("joint_pos/b", "joint_pos/a", "sensor/s[0]", "sensor/s[1]", "sensor/t", "sensor/f")
    np.testing.assert_allclose(make_observation(SPEC, np.array(VALUES)), EXPECTED, rtol=1e-14, atol=1e-16)


def test_many_at_once() -> None:
    """A whole batch is computed element by element as one reading is, into a buffer if there is one."""
    batch = np.array(VALUES) * np.linspace(0.5, 1.5, 12).reshape(3, 4, 1)
    out = np.empty((3, 4, SPEC.obs_dim))
    assert ObservationMap(SPEC)(batch, out) is out
    for i in np.ndindex(3, 4):
        np.testing.assert_array_equal(out[i], make_observation(SPEC, batch[i]))


def test_input_is_left_alone() -> None:
    """The measurements are not changed, and a NaN stays visible."""
    values = np.array(VALUES)
    values[0] = np.nan
    observation = make_observation(SPEC, values)
    np.testing.assert_array_equal(values[1:], VALUES[1:])
    assert np.flatnonzero(np.isnan(observation)).tolist() == [0, 2]


@pytest.mark.parametrize("count", [0, 5, 7])
def test_wrong_number_of_values(count: int) -> None:
    """A reading of a wrong length is refused with both numbers."""
    with pytest.raises(RobotSpecError, match=f"{count} sensor values.* 6 channels"):
        make_observation(SPEC, np.zeros(count))


def test_names_fit_the_elements() -> None:
    """There is one name per element, in order."""
    spec = load_robot("walker")
    assert spec.observation_names[1] == "orientations/torso_z[0]"
    assert spec.observation_names[14] == "height/torso_position[2]"
