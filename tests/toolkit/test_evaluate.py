"""Evaluation is dm_control's own environment and reward, on seeds of its own."""

import dataclasses

import numpy as np
import pytest
from dm_control import suite

from robots.robot_yaml import load_robot
from toolkit.evaluate import FIRST_EVALUATION_SEED, EvaluationError, evaluate, random_policy


def test_return_equals_dm_controls_own_loop():
    """The same actions through suite.load, written out by hand, earn the same to the last bit or nearly so."""
    spec = load_robot("cartpole")
    measured = evaluate(spec, lambda observation: np.tanh(observation[:1]), 1, seed=3)
    env = suite.load("cartpole", "swingup", task_kwargs={"random": FIRST_EVALUATION_SEED + 3})
    step, total = env.reset(), 0.0
    while not step.last():
        observation = np.concatenate([np.ravel(value) for value in step.observation.values()])
        step = env.step(np.tanh(observation[:1]))
        total += step.reward
    assert measured.returns[0] == pytest.approx(total, rel=1e-9)
    assert measured.seeds == (FIRST_EVALUATION_SEED + 3,)


@pytest.mark.parametrize("seed", [-1, 2**32 - FIRST_EVALUATION_SEED - 1])
def test_seeds_are_those_of_evaluation(seed: int):
    """Neither those of training nor any that no environment takes; what is legal is said."""
    spec = load_robot("cartpole")
    with pytest.raises(EvaluationError, match=f"offset {seed} .* legal are 0 to {2**32 - FIRST_EVALUATION_SEED - 2}"):
        evaluate(spec, random_policy(spec), 2, seed=seed)


def test_a_robot_without_a_task_has_no_return():
    """Said so, not measured as zero."""
    spec = dataclasses.replace(load_robot("cartpole"), task=None)
    with pytest.raises(EvaluationError, match="no true reward"):
        evaluate(spec, random_policy(spec), 1)
