from pathlib import Path

import numpy as np
import pytest

from demos.controller import Controller
from demos.controllers import jaco_reach
from demos.operators import PolicyOperator
from demos.record import record_episode
from robots import load_robot
from robots.task import TaskEnv


def test_the_hand_gets_there_and_stays() -> None:
    """From dm_control's own beginnings the hand comes nearer all the way, and stays within a centimetre."""
    spec = load_robot("jaco")
    operator = PolicyOperator(Controller(Path(jaco_reach.__file__), spec), "reach")
    for seed in (1, 2, 3):
        episode = record_episode(TaskEnv(spec, seed), operator, spec, seed=seed, max_steps=spec.episode_steps)
        error = [i for i, name in enumerate(spec.observation_names) if name.startswith("pinch_from_target/")]
        distance = np.linalg.norm(episode.observations[:, error], axis=1)
        assert distance[0] > 0.1 and distance[-1] < 0.01
        assert (np.diff(distance) < 0.002).all()  # [m]
        assert -np.diff(distance).min() / spec.control_dt == pytest.approx(jaco_reach.TOP_SPEED, rel=0.1)
        assert episode.return_ > 0.85 * spec.episode_steps
