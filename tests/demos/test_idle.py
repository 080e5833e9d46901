"""Idle stretches: found where nothing happens, cut off at the ends, and nothing else."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.episode import Episode
from demos.idle import busy_parts, find_idle, trimmed


def parts(*lengths: int, dt: float = 0.02, seed: int = 0) -> Episode:
    """Alternately moving and resting, moving first; `lengths` in steps, a 0 begins with rest."""
    rng = np.random.default_rng(seed)
    moving = np.concatenate([np.full(n, i % 2 == 0) for i, n in enumerate(lengths)])
    steps = len(moving)
    position = np.cumsum(np.where(moving, rng.choice([-1.0, 1.0], steps), 0.0))
    noise = 1e-4 * rng.normal(size=(steps + 1, 2))
    seen = np.stack([np.concatenate([[0.0], position]), np.zeros(steps + 1)], axis=1) + noise
    # A hand at rest holds what it held
    acted = np.where(moving, rng.uniform(-1, 1, steps), np.nan)
    for t in range(steps):
        acted[t] = (acted[t - 1] if t else 0.0) if np.isnan(acted[t]) else acted[t]
    return Episode(seen.astype(np.float32), acted[:, None].astype(np.float32), np.arange(steps + 1) * dt, "truncation")


def test_finds_start_middle_and_end() -> None:
    """Three pauses of a second or more are found to the step; one of 0.3 s belongs to the task."""
    (found,) = find_idle([parts(0, 60, 100, 70, 100, 15, 100, 50)])
    assert found == [(0, 60), (160, 230), (445, 495)]


def test_seconds_decide_and_not_steps() -> None:
    """The same steps at five times the rate are too short a pause."""
    assert find_idle([parts(100, 60, 100, dt=0.004)]) == [[]]
    assert find_idle([parts(100, 60, 100, dt=0.004)], seconds=0.2) == [[(100, 160)]]


def test_movement_without_action_is_no_rest() -> None:
    """A held action while the robot moves, and an action that changes while it stands, are both something going on."""
    episode = parts(100, 60, 100)
    held = Episode(episode.observations, np.zeros_like(episode.actions), episode.timestamps, "truncation")
    stuck = Episode(np.zeros_like(episode.observations), parts(260).actions, episode.timestamps, "truncation")
    assert find_idle([held]) == [[(100, 160)]] and find_idle([stuck]) == [[]]


def test_trim_cuts_the_ends_only() -> None:
    """Rest before and after goes, rest between stays; a demo without idle ends is left whole."""
    idle, busy = parts(0, 60, 100, 70, 100, 50), parts(300, seed=1)
    assert busy_parts([idle, busy]) == [(60, 330), (0, 300)]
    cut = trimmed(idle, 60, 330)
    assert cut.length == 270 and cut.timestamps[0] == 0.0
    assert np.array_equal(cut.observations, idle.observations[60:331])
    assert np.array_equal(cut.actions, idle.actions[60:330])


def test_what_begins_later_says_so() -> None:
    """A demo that lost its beginning began later, and not where its seed does; one that lost its end did."""
    whole = dataclasses.replace(parts(0, 60, 100, 50), seed=7, start_time_ns=10**18)
    later = trimmed(whole, 60, 160)
    assert later.start_time_ns == 10**18 + 1_200_000_000 and later.seed == -1  # 60 steps of 0.02 s
    sooner = trimmed(whole, 0, 160)
    assert sooner.start_time_ns == 10**18 and sooner.seed == 7
    unknown = trimmed(dataclasses.replace(whole, start_time_ns=0), 60, 160)
    assert unknown.start_time_ns == 0


def test_nothing_but_rest_stays() -> None:
    """Standing still may be the task: a demo that is idle throughout is not cut away."""
    still, busy = parts(0, 200), parts(400)
    assert find_idle([still, busy]) == [[(0, 200)], []]
    assert busy_parts([still, busy]) == [(0, 200), (0, 400)]
    assert find_idle([]) == []


@settings(max_examples=40)
@given(st.lists(st.integers(0, 80), min_size=1, max_size=6).filter(sum), st.floats(0.0, 2.0))
def test_stretches_are_in_order_and_inside(lengths: list[int], seconds: float) -> None:
    """Whatever comes: stretches lie inside the demo, in order, do not touch, and last long enough."""
    episode = parts(*lengths)
    (found,) = find_idle([episode], seconds)
    edges = [edge for stretch in found for edge in stretch]
    assert edges == sorted(set(edges)) and (not edges or (edges[0] >= 0 and edges[-1] <= episode.length))
    assert all(episode.timestamps[b] - episode.timestamps[a] >= seconds for a, b in found)
    ((start, stop),) = busy_parts([episode], seconds)
    assert 0 <= start < stop <= episode.length


@pytest.mark.parametrize("unknown", [True, False])
def test_unknown_actions_leave_it_to_the_observations(unknown: bool) -> None:
    """A demo without actions is idle where nothing is seen to move."""
    episode = parts(100, 60, 100)
    actions = np.full_like(episode.actions, np.nan) if unknown else episode.actions
    demo = Episode(episode.observations, actions, episode.timestamps, "truncation")
    assert find_idle([demo]) == [[(100, 160)]]
