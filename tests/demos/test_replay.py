import numpy as np
import pytest

from demos.episode import Episode
from demos.operators import RandomOperator
from demos.record import record_episode
from demos.replay import replay
from robots import RobotSpec
from robots.mock import MockBackend
from robots.sim import MujocoBackend


@pytest.fixture(scope="module")
def recorded(spec: RobotSpec) -> Episode:
    with MujocoBackend(spec, 5) as backend:
        return record_episode(backend, RandomOperator(spec), spec, seed=5, max_steps=60)


def test_the_same_seed_leads_to_the_same_place(recorded: Episode, spec: RobotSpec) -> None:
    """On the same machine a replay repeats every float32 observation bit for bit."""
    with MujocoBackend(spec, 5) as backend:
        result = replay(backend, recorded, spec)
    assert len(result.deviation) == 61 and (result.deviation == 0.0).all()
    assert result.first_beyond(0.0) is None and np.isnan(result.return_) and np.isnan(result.recorded_return)


def test_another_seed_begins_elsewhere(recorded: Episode, spec: RobotSpec) -> None:
    """A replay from another seed is off from the first observation on."""
    with MujocoBackend(spec, 6) as backend:
        result = replay(backend, recorded, spec)
    assert result.first_beyond(1e-3) == 0


def test_a_changed_action_shows_from_its_step(recorded: Episode, spec: RobotSpec) -> None:
    """The step of the first deviation is the one whose action differs."""
    actions = recorded.actions.copy()
    actions[20] = -actions[20]
    changed = Episode(recorded.observations, actions, recorded.timestamps, "truncation", seed=5)
    with MujocoBackend(spec, 5) as backend:
        result = replay(backend, changed, spec)
    assert result.first_beyond(1e-6) == 21
    assert result.deviation[:21].max() == 0.0


def test_stops_where_the_replay_stops(recorded: Episode, spec: RobotSpec) -> None:
    """A robot that stops measuring ends the comparison there."""
    result = replay(MockBackend(spec, freeze_from=10), recorded, spec)
    assert len(result.deviation) == 11
