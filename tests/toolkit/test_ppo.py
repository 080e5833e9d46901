"""The generator climbs a reward it is given, and its bookkeeping treats the ends of episodes right."""

import numpy as np
import torch

from toolkit.generator_config import PpoConfig
from toolkit.losses import gaussian_kl
from toolkit.networks import GaussianPolicy, ValueNetwork
from toolkit.ppo import Label, PolicyLearner
from toolkit.rollout import Rollout


def make(target_kl: float = 0.02) -> PolicyLearner:
    torch.manual_seed(0)
    policy = GaussianPolicy(3, 2, (16,), (-0.5, -3.0, 0.5))
    return PolicyLearner(policy, ValueNetwork(3, (16,)), PpoConfig(target_kl=target_kl, minibatches=2, epochs=4))


def rollout(policy: GaussianPolicy, generator: torch.Generator, steps: int = 8, envs: int = 64) -> Rollout:
    observation = torch.randn(steps, envs, 3, generator=generator)
    with torch.no_grad():
        action, log_prob = policy.sample(observation, generator)
        mean = policy(observation)
    none = torch.zeros(steps, envs, dtype=torch.bool)
    return Rollout(
        observation,
        torch.randn(steps, envs, 3, generator=generator),
        action,
        log_prob,
        none,
        none.clone(),
        none.clone(),
        mean,
    )


def given(reward: torch.Tensor) -> Label:
    return lambda *_: reward


def test_climbs_a_known_reward():
    """Reward -|a - 0.7|^2 pulls the mean action to 0.7."""
    learner, generator = make(), torch.Generator().manual_seed(0)
    for _ in range(80):
        experience = rollout(learner.policy, generator)
        learner.update(experience, given(-(experience.action - 0.7).square().sum(-1)), generator, 0.0)
    mean = learner.policy(torch.randn(200, 3)).mean(0)
    assert torch.allclose(mean, torch.full((2,), 0.7), atol=0.1)


def test_next_value_of_an_ended_step_is_of_its_own_episode():
    """Where an episode ended, V(s') is that of the state before the reset, not of the row below."""
    learner, generator = make(), torch.Generator().manual_seed(0)
    experience = rollout(learner.policy, generator, steps=4, envs=2)
    experience.truncation[1, 0] = True
    with torch.no_grad():
        value = learner.value.unscale(learner.value(learner.policy.normalizer(experience.observation)))
        following = learner._next_value(experience, value)
        fresh = learner.value.unscale(learner.value(learner.policy.normalizer(experience.next_observation)))
    torch.testing.assert_close(following[1, 0], fresh[1, 0])
    torch.testing.assert_close(following[3], fresh[3])
    torch.testing.assert_close(following[0], value[1])
    torch.testing.assert_close(following[1, 1], value[2, 1])


def test_quarantined_steps_teach_nothing():
    """An absurd reward on a broken step leaves the update exactly as it was without it."""
    results = []
    for absurd in (0.0, 1e6):
        learner, generator = make(), torch.Generator().manual_seed(0)
        experience = rollout(learner.policy, generator)
        experience.quarantined[3] = True
        reward = experience.action.sum(-1).clone()
        reward[3] += absurd
        learner.update(experience, given(reward), torch.Generator().manual_seed(1), 0.0)
        results.append(torch.cat([p.detach().flatten() for p in learner.policy.parameters()]))
    torch.testing.assert_close(results[0], results[1], atol=0.0, rtol=0.0)


def test_learning_rate_follows_the_divergence():
    """Too far: smaller steps. Hardly moving: larger. Told not to: the same."""
    learner = make(target_kl=0.01)
    start = learner.learning_rate
    learner._adapt_learning_rate(0.05)
    assert learner.learning_rate < start
    learner._adapt_learning_rate(0.001)
    np.testing.assert_allclose(learner.learning_rate, start)
    fixed = make(target_kl=0.0)
    fixed._adapt_learning_rate(1.0)
    assert fixed.learning_rate == start


def test_reported_divergence_is_that_of_the_rollout():
    """A mean over a part of the steps: of one policy before and after the update, near the mean over all of them."""
    learner, generator = make(), torch.Generator().manual_seed(0)
    experience = rollout(learner.policy, generator, steps=32)
    experience.quarantined[5, 7] = True
    log_std_old = learner.policy.log_std.detach().clone()
    metrics = learner.update(experience, given(experience.action.sum(-1)), generator, 0.0)
    with torch.no_grad():
        assert experience.mean is not None
        mean, new = experience.mean.flatten(0, 1), learner.policy(experience.observation).flatten(0, 1)
        whole = float(gaussian_kl(mean, log_std_old, new, learner.policy.log_std))
    assert whole > 1e-4
    np.testing.assert_allclose(metrics["policy/kl"], whole, rtol=0.1)
