"""make_command: clipping, scale and limits; the inverse; NaN stays NaN."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robots import load_robot
from robots.command import CommandMap, make_command

QUADRUPED = load_robot("quadruped")


def test_by_hand() -> None:
    """The quadruped's lift goes from -1 to 1.1 around 0.05, whatever beyond [-1, 1] is asked."""
    i = QUADRUPED.action_names.index("lift_front_left")
    for action, command in ((-1, -1.0), (0, 0.05), (1, 1.1), (5, 1.1), (-np.inf, -1.0)):
        np.testing.assert_allclose(make_command(QUADRUPED, np.full(12, action))[i], command, rtol=0, atol=1e-15)


def test_limits_cut_the_command() -> None:
    """A limit narrower than the scale is kept."""
    terms = tuple(dataclasses.replace(term, upper=0.5) for term in QUADRUPED.action)
    assert make_command(dataclasses.replace(QUADRUPED, action=terms), np.ones(12)).max() == 0.5


@given(st.lists(st.floats(-1, 1), min_size=12, max_size=12))
def test_inverse(action: list[float]) -> None:
    """The action that is recovered from a command is the one that gave it."""
    found = CommandMap(QUADRUPED).action(make_command(QUADRUPED, np.array(action)))
    np.testing.assert_allclose(found, action, atol=1e-14)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=12, max_size=12))
def test_always_within_limits(action: list[float]) -> None:
    """Whatever finite or infinite action comes, the command is within every actuator's limits."""
    command = make_command(QUADRUPED, np.array(action))
    mapping = CommandMap(QUADRUPED)
    assert (command >= mapping.lower).all() and (command <= mapping.upper).all()


@given(
    st.floats(-1e3, 1e3, width=32),
    st.floats(0.01, 200).flatmap(lambda x: st.sampled_from([x, -x])),
    st.floats(-50, 50),
    st.floats(-300, 300),
    st.floats(0.01, 100),
)
def test_one_clip_does_what_two_say(action: float, scale: float, offset: float, lower: float, width: float) -> None:
    """To the last bit the command is clip(offset + scale * clip(action, -1, 1), lower, upper)."""
    term = dataclasses.replace(QUADRUPED.action[0], scale=scale, offset=offset, lower=lower, upper=lower + width)
    command = make_command(dataclasses.replace(QUADRUPED, action=(term,)), np.array([action]))
    assert command[0] == np.clip(offset + scale * np.clip(action, -1.0, 1.0), lower, lower + width)


def test_nan_stays_visible() -> None:
    """A NaN is not turned into some command."""
    action = np.zeros(12)
    action[4] = np.nan
    assert np.flatnonzero(np.isnan(make_command(QUADRUPED, action))).tolist() == [4]


def test_buffer() -> None:
    """The result goes to the buffer that is given, for float32 actions too, and the action is left alone."""
    action = np.full((2, 12), 3.0, dtype=np.float32)
    out = np.empty((2, 12))
    assert CommandMap(QUADRUPED).command(action, out) is out
    np.testing.assert_array_equal(out[1], make_command(QUADRUPED, np.ones(12)))
    assert (action == 3.0).all()


def test_rest_and_slew_of_each_kind() -> None:
    """Efforts and speeds are off, other numbers at their offset, all within limits; slew is per control step."""
    spec = load_robot("cheetah")
    kinds = ("effort", "velocity", "position", "ctrl", "velocity", "effort")
    action = tuple(
        dataclasses.replace(term, kind=kind, offset=0.25, lower=-1.0, upper=1.0, slew=None if i else 3.0)
        for i, (term, kind) in enumerate(zip(spec.action, kinds, strict=True))
    )
    action = (*action[:4], dataclasses.replace(action[4], lower=0.5), action[5])
    command = CommandMap(dataclasses.replace(spec, action=action))
    assert command.rest.tolist() == [0.0, 0.0, 0.25, 0.25, 0.5, 0.0]
    assert command.keeps_position.tolist() == [kind == "position" for kind in kinds]
    assert command.slew_step.tolist() == [3.0 * spec.control_dt] + [np.inf] * 5
