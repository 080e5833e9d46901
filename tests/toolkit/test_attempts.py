"""Attempts: equal parts, judged by what they earned at their end; the best policy is what remains."""

from __future__ import annotations

import pytest
import torch

from robots.robot_yaml import load_robot
from toolkit.attempts import Attempts, AttemptsError, equal_parts
from toolkit.config import PolicyConfig
from toolkit.networks import GaussianPolicy, build_policy_network

SPEC = load_robot("cartpole")


def numbered(policy: GaussianPolicy, number: float) -> GaussianPolicy:
    """The policy with a mark by which it is known again."""
    with torch.no_grad():
        policy.log_std_raw.fill_(number)
    return policy


def fresh() -> GaussianPolicy:
    return build_policy_network(SPEC.obs_dim, SPEC.act_dim, PolicyConfig(hidden=(4,)))


def number_of(policy: GaussianPolicy) -> float:
    return float(policy.log_std_raw.detach().mean())


def run(attempts: Attempts, policy: GaussianPolicy, rewards: list[float], begin: int = 0) -> None:
    """Goes through a run in which each attempt's policy has another number."""
    for iteration, reward in enumerate(rewards[begin:], begin):
        numbered(policy, -float(1 + sum(iteration >= k for k in (20, 40))))
        attempts.judge(iteration + 1, reward, policy)


def test_parts_are_equal_and_the_best_policy_is_put_back():
    """The mean of a part's last tenth counts: not what was earned before, nor a single lucky step of the way."""
    first, second, third = [9.0] * 18 + [1.0, 3.0], [0.0] * 18 + [2.5, 2.5], [0.0] * 17 + [99.0, 2.0, 2.0]
    attempts, policy = Attempts(3, 60), fresh()
    assert equal_parts(3, 60) == [0, 20, 40, 60]
    run(attempts, policy, first + second + third)
    assert attempts.earned == [2.0, 2.5, 2.0]
    assert number_of(policy) == -2.0


def test_until_the_end_nothing_is_put_back():
    """The policy under way is the one that learns."""
    attempts, policy = Attempts(3, 60), fresh()
    run(attempts, policy, [5.0] * 20 + [1.0] * 20)
    assert attempts.earned == [5.0, 1.0] and number_of(policy) == -2.0


@pytest.mark.parametrize("stop", [10, 19, 20, 39, 59])
def test_goes_on_from_what_was_saved(stop: int):
    """Wherever it was cut, the same is kept for the same reasons."""
    rewards = [float(i % 7) for i in range(20)] + [4.5] * 20 + [float(i % 5) for i in range(20)]
    whole, kept = Attempts(3, 60), fresh()
    run(whole, kept, rewards)
    first = Attempts(3, 60)
    run(first, fresh(), rewards[:stop])
    second, policy = Attempts(3, 60), fresh()
    second.load_state_dict(first.state_dict())
    run(second, policy, rewards, stop)
    assert second.earned == whole.earned and number_of(policy) == number_of(kept) == -2.0


def test_a_run_of_another_length_does_not_go_on():
    """Its parts would be others, and what was judged would be no part's end."""
    with pytest.raises(AttemptsError, match="60 iterations in equal parts; it cannot go on as one of 90"):
        Attempts(3, 90).load_state_dict(Attempts(3, 60).state_dict())


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_short_run_has_as_many_attempts_as_it_has_room_for(iterations: int):
    """Each iteration is judged once, and the best remains."""
    attempts, policy = Attempts(3, iterations), fresh()
    for k in range(iterations):
        attempts.judge(k + 1, -float(k), numbered(policy, -1.0 - k))
    assert attempts.earned == [-float(k) for k in range(iterations)]
    assert number_of(policy) == -1.0
