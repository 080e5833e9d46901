import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demos.episode import Episode, EpisodeError, require_actions
from robots import RobotSpec, load_robot


def test_length_return_and_repr(make_episode: Callable[..., Episode]) -> None:
    """T counts steps, the return is the sum of rewards, and the repr shows shapes instead of numbers."""
    episode = make_episode(4, rewards=np.array([1, 2, 3, 4], np.float32))
    assert (episode.length, episode.return_) == (4, 10.0)
    assert "(5, 17)" in repr(episode) and "(4, 6)" in repr(episode)
    assert np.isnan(make_episode(4, rewards=None).return_)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ended_by": "done"}, "legal are truncation, termination, interrupted"),
        ({"observations": np.zeros((8, 17))}, "expected a 2-dimensional float32 array, got 2-dimensional float64"),
        ({"observations": [[0.0] * 17] * 8}, "got list"),
        ({"observations": np.zeros((7, 17), np.float32)}, "7 observations for 7 actions; expected 8"),
        ({"actions": np.zeros(7, np.float32)}, "2-dimensional float32"),
        ({"actions": np.zeros((0, 6), np.float32)}, "at least one step"),
        ({"timestamps": np.arange(7.0)}, "7 timestamps for 7 actions; expected 8"),
        ({"timestamps": np.array([0, 1, 2, 2, 4, 5, 6, 7.0])}, "2 s is followed by 2 s at step 3"),
        ({"timestamps": np.array([0, 1, 2, 3, 4, 5, 6, np.inf])}, "inf at step 7"),
        ({"rewards": np.zeros(8, np.float32)}, "expected (7,) float32"),
        ({"rewards": np.full(7, np.inf, np.float32)}, "infinite at step 0"),
    ],
)
def test_refuses(make_episode: Callable[..., Episode], changes: dict, words: str) -> None:
    """Each thing an episode cannot be is refused in one line that says what is expected."""
    with pytest.raises(EpisodeError) as caught:
        make_episode(7, **changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@given(
    name=st.sampled_from(["observations", "actions"]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    step=st.integers(0, 6),
    element=st.integers(0, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_names_the_value_that_is_not_finite(
    make_episode: Callable[..., Episode], name: str, value: float, step: int, element: int
) -> None:
    """Whatever is not finite is refused by its step and element, wherever it hides."""
    array = getattr(make_episode(7), name).copy()
    array[step, element] = value
    with pytest.raises(EpisodeError, match=f"{name}: .* at step {step}, element {element}"):
        make_episode(7, **{name: array})


def test_an_unknown_reward_is_no_error(make_episode: Callable[..., Episode]) -> None:
    """NaN among the rewards means unknown, and so does the return then."""
    rewards = np.array([1, np.nan, 1], np.float32)
    assert np.isnan(make_episode(3, rewards=rewards).return_)


def test_digest_sees_everything_recorded(make_episode: Callable[..., Episode]) -> None:
    """Changing any one thing that was recorded changes the digest; the verdict `success` does not."""
    episode = make_episode(5)
    changed = {
        "observations": episode.observations + np.float32(1),
        "actions": -episode.actions,
        "timestamps": episode.timestamps + 1e-9,
        "rewards": None,
        "ended_by": "termination",
        "operator": "somebody else",
        "task": "something else",
        "seed": 1,
        "start_time_ns": 0,
    }
    digests = {dataclasses.replace(episode, **{name: value}).sha256 for name, value in changed.items()}
    assert len(digests | {episode.sha256}) == len(changed) + 1
    assert dataclasses.replace(episode, success=True).sha256 == episode.sha256


def test_digest_ignores_memory_layout_and_kinds_of_nan(make_episode: Callable[..., Episode]) -> None:
    """The digest is of the values: strides do not matter, nor which NaN stands for an unknown reward."""
    episode = make_episode(5, rewards=None)
    other_nan = np.full(5, 0xFFC00001, np.uint32).view(np.float32)
    strided = dataclasses.replace(episode, actions=np.asfortranarray(episode.actions), rewards=other_nan)
    assert strided.sha256 == episode.sha256


def test_check_robot(make_episode: Callable[..., Episode], spec: RobotSpec) -> None:
    """An episode of another robot's size is refused with the names it should have."""
    make_episode().check_robot(spec)
    with pytest.raises(EpisodeError, match="observations of 17 elements; walker has 24"):
        make_episode().check_robot(load_robot("walker"))


def test_actions_may_be_unknown(make_episode: Callable[..., Episode]) -> None:
    """All NaN means that nobody knows; one NaN among numbers is a fault."""
    unknown = make_episode(5, actions=np.full((5, 6), np.nan, np.float32))
    assert not unknown.actions_known and make_episode(5).actions_known
    negative_nan = np.full((5, 6), -np.float32(np.nan))
    assert make_episode(5, actions=negative_nan).sha256 == unknown.sha256 != make_episode(5).sha256
    require_actions([make_episode(5)], "it")
    with pytest.raises(EpisodeError, match="it needs the expert's actions, which demo 1 lacks \\(of 2\\)"):
        require_actions([make_episode(5), unknown], "it")


def test_a_cut_is_an_episode(make_episode: Callable[..., Episode]) -> None:
    """Steps 2 to 4 of 7: s' of the last step comes along, the clock starts at 0, a time limit ended it."""
    episode = make_episode(7, ended_by="termination")
    part = episode.cut(2, 5)
    assert part.length == 3 and part.rewards is None and part.ended_by == "truncation"
    assert np.array_equal(part.observations, episode.observations[2:6]) and part.timestamps[0] == 0.0
    assert np.array_equal(part.actions, episode.actions[2:5])
    assert episode.cut(2, 7).ended_by == "termination"
