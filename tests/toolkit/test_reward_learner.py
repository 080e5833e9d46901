"""The discriminator finds what distinguishes expert from policy, scores with fresh log q, and never mixes episodes."""

import numpy as np
import pytest
import torch

from demos.episode import Episode
from demos.segments import SegmentSampler
from toolkit.config import RewardConfig
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.reward_learner import RewardLearner
from toolkit.rollout import Rollout

OBS_DIM, ACT_DIM = 3, 2


def episode(length: int, action: float, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(length + 1, OBS_DIM)).astype(np.float32),
        actions=np.full((length, ACT_DIM), action, np.float32),
        timestamps=np.arange(length + 1) * 0.01,
        ended_by="truncation",
    )


def rollout(policy: GaussianPolicy, steps: int = 16, envs: int = 8, ended: tuple[tuple[int, int], ...] = ()) -> Rollout:
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(steps, envs, OBS_DIM, generator=generator)
    with torch.no_grad():
        action, log_prob = policy.sample(observation, generator)
    flags = torch.zeros(steps, envs, dtype=torch.bool)
    truncation = flags.clone()
    for t, env in ended:
        truncation[t, env] = True
    return Rollout(
        observation, torch.randn(steps, envs, OBS_DIM, generator=generator), action, log_prob, flags, truncation, flags
    )


@pytest.fixture
def policy() -> GaussianPolicy:
    torch.manual_seed(0)
    return GaussianPolicy(OBS_DIM, ACT_DIM, (16,), (-0.5, -3.0, 0.5))


def learner(segment: int = 4, **settings: float) -> RewardLearner:
    torch.manual_seed(0)
    config = RewardConfig(segment=segment, batch_segments=64, learning_rate=3e-3, **settings)  # type: ignore[arg-type]
    return RewardLearner(RewardNetwork(OBS_DIM, ACT_DIM, (32,)), config, segment, np.random.default_rng(0))


def test_learns_to_prefer_the_expert(policy: GaussianPolicy):
    """The expert's actions end up with more reward than their opposite, though the policy never took them."""
    judge, demos, experience = learner(), SegmentSampler([episode(200, 0.8)], 4), rollout(policy)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        metrics = judge.update(demos, experience, policy, generator)
    observation = torch.randn(100, OBS_DIM)
    good = judge.reward(observation, torch.full((100, ACT_DIM), 0.8)).mean()
    bad = judge.reward(observation, torch.full((100, ACT_DIM), -0.8)).mean()
    assert good > bad + 0.5
    assert metrics["reward/accuracy"] > 0.8


def test_expert_log_q_is_scored_under_the_policy_of_now(policy: GaussianPolicy):
    """The published failure: a log q of the expert's actions that is not recomputed when the policy moves."""
    judge, demos = learner(expert_jitter=0.0), SegmentSampler([episode(50, 0.5)], 4)
    generator = torch.Generator().manual_seed(0)
    before = judge.expert_segments(demos, policy, generator, 32)
    with torch.no_grad():
        list(policy.mean_net.parameters())[-1].fill_(0.5)  # the bias of the mean
    after = judge.expert_segments(demos, policy, generator, 32)
    torch.testing.assert_close(before.log_q, before.log_q)
    assert float(after.log_q.mean()) > float(before.log_q.mean()) + 0.1
    torch.testing.assert_close(after.log_q, policy.log_prob(after.observation, after.action).detach())


def test_policy_segments_never_cross_an_episode_end(policy: GaussianPolicy):
    """Environment 0 ends after step 5: no segment holds both step 5 and step 6 of it."""
    experience = rollout(policy, steps=12, envs=1, ended=((5, 0),))
    judge = learner(segment=4)
    segments = judge.policy_segments(experience, torch.Generator().manual_seed(0))
    starts = {int((experience.observation[:, 0] == segments.observation[0, n]).all(-1).nonzero()[0]) for n in range(64)}
    assert starts == {0, 1, 2, 6, 7, 8}


def test_policy_segments_avoid_broken_steps(policy: GaussianPolicy):
    """A quarantined step is in no segment, not even as its last step."""
    experience = rollout(policy, steps=8, envs=1)
    experience.quarantined[3, 0] = True
    segments = learner(segment=2).policy_segments(experience, torch.Generator().manual_seed(0))
    starts = {int((experience.observation[:, 0] == segments.observation[0, n]).all(-1).nonzero()[0]) for n in range(64)}
    assert starts == {0, 1, 4, 5, 6}


def test_no_whole_segment_is_an_error(policy: GaussianPolicy):
    """Better a message than a batch of nothing."""
    experience = rollout(policy, steps=4, envs=1, ended=((1, 0),))
    with pytest.raises(ValueError, match="without an episode end"):
        learner(segment=4).policy_segments(experience, torch.Generator().manual_seed(0))


def test_label_is_the_generators_reward(policy: GaussianPolicy):
    """r - alpha log q - alpha log Z / L, step by step."""
    judge, experience = learner(segment=4, alpha=0.2), rollout(policy)
    judge.log_z = 3.0
    expected = judge.reward(experience.observation, experience.action) - 0.2 * experience.log_prob - 0.2 * 3.0 / 4
    steps = (experience.observation, experience.next_observation, experience.action, experience.log_prob)
    steps = (*steps, experience.termination)
    torch.testing.assert_close(judge.label(*steps), expected.detach())
