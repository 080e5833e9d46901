"""The discriminator finds what distinguishes expert from policy, scores with fresh log q, and never mixes episodes."""

import numpy as np
import pytest
import torch

from demos.episode import Episode
from demos.segments import SegmentSampler
from toolkit.config import ADVERSARIAL, TrainConfig, config_from_dict
from toolkit.expert_segments import ExpertSegments
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.normalizer import RunningNormalizer
from toolkit.reward_learner import RewardLearner
from toolkit.rollout import Rollout
from toolkit.whole_segments import whole_segments

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


DEMOS = SegmentSampler([episode(200, 0.8)], 4)


def learner(objective: str = "gan-gcl", segment: int = 4, **settings: object) -> RewardLearner:
    torch.manual_seed(0)
    settings = {"segment": segment, "batch_steps": 64 * segment, "learning_rate": 3e-3, "temper": 0.01} | settings
    config: TrainConfig = config_from_dict({"objective": objective, "reward": settings, "ppo": {"horizon": 32}})
    reward = RewardNetwork(OBS_DIM, ACT_DIM, (32,), config.reward.inputs == "state", bool(config.reward.shaping))
    demos = DEMOS if segment == 4 else SegmentSampler([episode(200, 0.8)], segment)
    return RewardLearner(reward, config, demos, None, np.random.default_rng(0))


@pytest.mark.parametrize("objective", ADVERSARIAL)
@pytest.mark.parametrize("shaping", [False, True])
def test_learns_to_prefer_the_expert(policy: GaussianPolicy, objective: str, shaping: bool):
    """Each objective gives the expert's actions more reward than their opposite, though the policy never took them."""
    judge, experience = learner(objective, shaping=shaping), rollout(policy)
    generator = torch.Generator().manual_seed(1)
    metrics: dict[str, float] = {}
    for _ in range(60):
        metrics = judge.update(experience, policy, generator, 0.0)
    observation = torch.randn(100, OBS_DIM)
    good = judge.reward(observation, torch.full((100, ACT_DIM), 0.8)).mean()
    bad = judge.reward(observation, torch.full((100, ACT_DIM), -0.8)).mean()
    assert good > bad + 0.2
    assert metrics["reward/accuracy"] > 0.8


def test_a_state_reward_does_not_look_at_actions(policy: GaussianPolicy):
    """--reward state: other actions in the same states change nothing, after learning too."""
    judge, generator = learner(inputs="state"), torch.Generator().manual_seed(1)
    for _ in range(3):
        judge.update(rollout(policy), policy, generator, 0.0)
    observation = torch.randn(50, OBS_DIM)
    ones = torch.ones(50, ACT_DIM)
    assert torch.equal(judge.reward(observation, ones), judge.reward(observation, -ones))


def test_annealed_temper_ends_at_the_exact_objective():
    """kappa rises by equal factors to 1 over the share of the run it is given, and is 1 in the last tenth."""
    settings = learner(temper=1e-4, anneal=0.5).config
    assert settings.temper_at(0.0) == settings.temper_at(0.4) == pytest.approx(1e-4)
    assert settings.temper_at(0.65) == pytest.approx(1e-2)
    assert settings.temper_at(0.9) == settings.temper_at(0.99) == 1.0
    assert learner(temper=1e-4).config.temper_at(0.9) == 1e-4


def test_stale_log_q_is_that_of_the_first_policy(policy: GaussianPolicy):
    """The ablation scores the expert under the first policy for ever; the default never does."""
    for log_q, moves in (("stale", False), ("fresh", True)):
        judge, generator = learner(expert_log_q=log_q, updates=1), torch.Generator().manual_seed(1)
        with torch.no_grad():
            list(policy.mean_net.parameters())[-1].fill_(0.0)
        judge.update(rollout(policy), policy, generator, 0.0)
        before = judge.expert._mean.clone()
        with torch.no_grad():
            list(policy.mean_net.parameters())[-1].fill_(0.5)
        judge.update(rollout(policy), policy, generator, 0.0)
        assert bool((judge.expert._mean != before).any()) is moves


def test_memory_keeps_the_reward_a_guide_where_the_policy_no_longer_goes(policy: GaussianPolicy):
    """After the policy moved from -0.8 to 0.8, the old actions still earn less; without a memory that fades."""
    observation = torch.randn(200, OBS_DIM)
    old, new = (torch.full((200, ACT_DIM), action) for action in (-0.8, 0.8))
    gaps = []
    for memory in (0.5, 0.0):
        judge, generator = learner(memory=memory, gradient_penalty=1.0), torch.Generator().manual_seed(1)
        for action in (-0.8, 0.8):
            with torch.no_grad():
                policy.log_std_raw.fill_(-2.0)
                list(policy.mean_net.parameters())[-1].fill_(action)
            for _ in range(60):
                judge.update(rollout(policy), policy, generator, 0.0)
        gaps.append(float((judge.reward(observation, new) - judge.reward(observation, old)).mean().detach()))
    assert gaps[0] > 2.0 * max(gaps[1], 0.0) and gaps[0] > 0.1, gaps


def test_memory_is_part_of_the_state(policy: GaussianPolicy):
    """A resumed learner draws the same old segments."""
    one, two = learner(memory=0.5), learner(memory=0.5)
    one.update(rollout(policy), policy, torch.Generator().manual_seed(1), 0.0)
    two.load_state_dict(one.state_dict(), policy)
    assert one.memory is not None and two.memory is not None
    drawn = [memory.draw(8, torch.Generator().manual_seed(2)) for memory in (one.memory, two.memory)]
    assert torch.equal(drawn[0].state, drawn[1].state)


def test_snapshots_are_taken_in_the_middle_of_each_part_of_the_run(policy: GaussianPolicy):
    """One in each, also behind a resume; each as the reward was then; none unless asked for."""
    one, generator, when = learner(panel=4), torch.Generator().manual_seed(1), []
    for k in range(16):
        before = len(one.snapshots)
        if k == 9:
            state = one.state_dict()
            one = learner(panel=4)
            one.load_state_dict(state, policy)
        one.update(rollout(policy), policy, generator, k / 16)
        if len(one.snapshots) > before:
            when.append(k)
            newest = one.snapshots[-1]
            assert torch.equal(newest.net["0.weight"], one.reward.net.state_dict()["0.weight"])
            assert newest.expert == one.expert.mean_reward(one.reward)
    assert when == [2, 6, 10, 14]
    plain = learner()
    plain.update(rollout(policy), policy, generator, 0.9)
    assert plain.snapshots == []


def test_the_experts_mean_reward_is_that_of_what_is_drawn(policy: GaussianPolicy):
    """Of demos that do not all count the same, against the mean over many draws."""
    demos = SegmentSampler([episode(40, 0.8), episode(90, -0.9, seed=1)], 4, [3.0, 1.0])
    reward = RewardNetwork(OBS_DIM, ACT_DIM, (8,))
    expert = ExpertSegments(demos, reward.normalizer, 0.0, np.random.default_rng(0))
    expert.score(policy)
    drawn = expert.draw(20_000, torch.Generator().manual_seed(0))
    said = reward.net(reward.features(drawn.state, drawn.action)).squeeze(-1).detach()
    error = 4.0 * float(said.std()) / 20_000**0.5
    assert expert.mean_reward(reward) == pytest.approx(float(said.mean()), abs=error) and error < 0.02


def test_expert_log_q_is_scored_under_the_policy_of_now(policy: GaussianPolicy):
    """The published failure: a log q of the expert's actions that is not recomputed when the policy moves."""
    expert = ExpertSegments(DEMOS, RunningNormalizer(OBS_DIM), 0.0, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    expert.score(policy)
    before = expert.draw(32, generator)
    with torch.no_grad():
        list(policy.mean_net.parameters())[-1].fill_(0.5)  # the bias of the mean
    expert.score(policy)
    after = expert.draw(32, generator)
    assert float(after.log_q.mean()) > float(before.log_q.mean()) + 0.1
    torch.testing.assert_close(after.log_q, policy.log_prob(after.state, after.action).detach())


def test_policy_segments_never_cross_an_episode_end(policy: GaussianPolicy):
    """Environment 0 ends after step 5: no segment holds both step 5 and step 6 of it."""
    experience = rollout(policy, steps=12, envs=1, ended=((5, 0),))
    assert whole_segments(experience, 4)[:, 0].tolist() == [0, 1, 2, 6, 7, 8]


def test_policy_segments_avoid_broken_steps(policy: GaussianPolicy):
    """A quarantined step is in no segment, not even as its last step."""
    experience = rollout(policy, steps=8, envs=1)
    experience.quarantined[3, 0] = True
    assert whole_segments(experience, 2)[:, 0].tolist() == [0, 1, 4, 5, 6]


def test_no_whole_segment_is_an_error(policy: GaussianPolicy):
    """Better a message than a batch of nothing."""
    experience = rollout(policy, steps=4, envs=1, ended=((1, 0),))
    with pytest.raises(ValueError, match="without an episode end"):
        whole_segments(experience, 4)


def test_label_is_the_generators_reward(policy: GaussianPolicy):
    """r - alpha log q - alpha log Z / L, step by step."""
    judge, experience = learner(alpha=0.2), rollout(policy)
    judge.log_z = torch.tensor(3.0, dtype=torch.float64)
    expected = judge.reward(experience.observation, experience.action) - 0.2 * experience.log_prob - 0.2 * 3.0 / 4
    torch.testing.assert_close(judge.label(*steps_of(experience)), expected.detach())


def test_label_of_a_plain_gan_is_its_logit(policy: GaussianPolicy):
    """Without log q: -log D + log(1 - D) is minus the logit, and the generator minimises it."""
    judge, experience = learner("gail"), rollout(policy)
    expected = judge.reward(experience.observation, experience.action)
    torch.testing.assert_close(judge.label(*steps_of(experience)), expected.detach())


def test_label_with_a_potential_is_the_shaped_reward(policy: GaussianPolicy):
    """r + gamma h(s') - h(s), and no h(s') where the task ended."""
    judge, experience = learner("airl", shaping=True, alpha=0.2), rollout(policy)
    experience.termination[2, 1] = True
    potential, normalizer = judge.reward.potential, judge.reward.normalizer
    assert potential is not None
    with torch.no_grad():
        h = potential(normalizer(experience.observation)).squeeze(-1)
        next_h = potential(normalizer(experience.next_observation)).squeeze(-1)
        next_h[2, 1] = 0.0
        reward = judge.reward(experience.observation, experience.action) + judge.discount * next_h - h
    torch.testing.assert_close(judge.label(*steps_of(experience)), reward - 0.2 * experience.log_prob)


def steps_of(experience: Rollout) -> tuple[torch.Tensor, ...]:
    return (
        experience.observation, experience.next_observation, experience.action, experience.log_prob,
        experience.termination,
    )  # fmt: skip
