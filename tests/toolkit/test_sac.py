"""SacLearner: improves on a known problem, labels what it draws, scores negatives by the right density, resumes."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor

from toolkit.generator_config import SacConfig
from toolkit.networks import GaussianPolicy
from toolkit.replay import Transitions
from toolkit.rollout import Rollout
from toolkit.sac import SacLearner

CONFIG = SacConfig(
    num_envs=4, horizon=8, capacity=256, batch=32, segments=16, hidden=(32, 32), updates_per_step=1.0, demo_share=0.0,
    clone_weight=0.0, policy_learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05, discount=0.5,
)  # fmt: skip
DEMOS = Transitions(
    torch.full((9, 2), 0.5), torch.full((9, 2), 0.5), torch.full((9, 1), 0.25),
    torch.zeros(9, dtype=torch.bool), torch.zeros(9, dtype=torch.bool),
)  # fmt: skip


def learner(config: SacConfig = CONFIG, alpha: float = 0.01, demos: Transitions | None = None) -> SacLearner:
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 1, (16,), (-1.2, -3.0, 0.0))
    sac = SacLearner(policy, config, alpha, 4, torch.Generator().manual_seed(0))
    if demos is not None:
        sac.hold_near(demos, torch.ones(len(demos.action)))
    return sac


def experience(sac: SacLearner, broken: bool = False) -> Rollout:
    """Random states, actions of the present policy."""
    shape = (sac.config.horizon, sac.config.num_envs)
    observation = torch.rand(*shape, 2, generator=sac.generator) - 0.5
    action, log_prob = sac.policy.sample(observation, sac.generator)
    no = torch.zeros(shape, dtype=torch.bool)
    return Rollout(observation, observation, action.detach(), log_prob.detach(), no, no.clone(), no | broken)


def quadratic(observation: Tensor, next_observation: Tensor, action: Tensor, *rest: Tensor) -> Tensor:
    """Best action: the first observation element plus 0.3."""
    return -(action - observation[..., :1] - 0.3).square().sum(-1)


def test_policy_finds_the_best_action_of_a_known_reward():
    """The mean becomes s_0 + 0.3, to a tenth of what it was off at the start."""
    sac = learner()
    states = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) - 0.5

    def error() -> float:
        with torch.no_grad():
            return float((sac.policy(states) - states[:, :1] - 0.3).square().mean().sqrt())

    before = error()
    for i in range(15):
        rollout = experience(sac)
        sac.remember(rollout)
        sac.update(rollout, quadratic, sac.generator, 0.0, value_only=i < 2)
    assert error() < 0.2 * before


def test_spread_is_that_of_the_temperature():
    """For r = -(a - m)^2 and gamma small the soft optimum is Normal(m, alpha / 2): one temperature, no hidden scale."""
    alpha = 0.02  # sigma 0.1; it starts at 0.3
    config = dataclasses.replace(CONFIG, discount=1e-6, policy_delay=1, policy_learning_rate=1e-2)
    sac = learner(config, alpha)

    def well(observation: Tensor, next_observation: Tensor, action: Tensor, *rest: Tensor) -> Tensor:
        return -action.square().sum(-1)

    for _ in range(15):
        rollout = experience(sac)
        sac.remember(rollout)
        sac.update(rollout, well, sac.generator, 0.0)
    assert float(sac.policy.log_std.detach().exp()) == pytest.approx(math.sqrt(alpha / 2.0), rel=0.25)


def test_labels_are_made_when_steps_are_drawn():
    """The label is asked at every update, over replay and demos, with log_prob 0; a demo share is a share."""
    seen: list[tuple[Tensor, ...]] = []

    def label(*step: Tensor) -> Tensor:
        seen.append(step)
        return torch.zeros_like(step[3])

    sac = learner(dataclasses.replace(CONFIG, demo_share=0.25), demos=DEMOS)
    for _ in range(2):
        rollout = experience(sac)
        sac.remember(rollout)
        sac.update(rollout, label, sac.generator, 0.0)
    updates = 32
    assert sum(len(step[3]) for step in seen) == 2 * updates
    observation, _, action, log_prob, termination = seen[-1]
    assert observation.shape == (updates, 32, 2)
    assert termination.shape == log_prob.shape == (updates, 32)
    assert (log_prob == 0.0).all()
    assert (action[:, :8] == 0.25).all()
    assert (action[:, 8:] != 0.25).all()


def test_clone_weight_holds_the_policy_to_the_demos():
    """With no reward at all the policy goes to the demos' action."""
    sac = learner(dataclasses.replace(CONFIG, demo_share=0.5, clone_weight=1000.0), demos=DEMOS)
    for _ in range(10):
        rollout = experience(sac)
        sac.remember(rollout)
        sac.update(rollout, lambda *step: step[2].sum(-1) * -0.01, sac.generator, 0.0)
    assert float(sac.policy(DEMOS.observation[:1]).detach()) == pytest.approx(0.25, abs=0.05)


def test_value_only_leaves_the_policy_alone():
    """The critics learn, the policy waits."""
    sac = learner()
    rollout = experience(sac)
    sac.remember(rollout)
    before = [p.clone() for p in (*sac.policy.parameters(), *sac.critic.parameters())]
    sac.update(rollout, quadratic, sac.generator, 0.0, value_only=True)
    after = [*sac.policy.parameters(), *sac.critic.parameters()]
    count = len(list(sac.policy.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before[:count], after[:count], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[count:], after[count:], strict=True))


def test_negatives_are_scored_as_now():
    """By the present policy, not by the one that acted."""
    sac = learner()
    sac.remember(experience(sac))
    sac.policy.log_std_raw.data += 0.7
    drawn = sac.remember(experience(sac))
    assert drawn.action.shape == (4, 16, 1)
    torch.testing.assert_close(drawn.log_prob, sac.policy.log_prob(drawn.observation, drawn.action).detach())


def test_mixture_negatives_are_scored_by_the_snapshots():
    """Two snapshots: the sum over a segment is log of the mean of the two products."""
    sac = learner(dataclasses.replace(CONFIG, negatives="mixture"))
    assert sac.snapshot_every == 1
    sac.remember(experience(sac))
    sac.policy.log_std_raw.data += 0.7
    drawn = sac.remember(experience(sac))
    products = [p.log_prob(drawn.observation, drawn.action).double().sum(0).exp() for p in sac.mixture.snapshots]
    expected = (0.5 * (products[0] + products[1])).log()
    torch.testing.assert_close(drawn.log_prob.double().sum(0), expected, atol=1e-5, rtol=1e-5)
    assert sac.scorer is sac.mixture


def test_broken_steps_are_never_learned_from():
    """A rollout in which everything broke leaves only the sound one to draw from."""
    sac = learner()
    sound = experience(sac)
    sac.remember(sound)
    sac.remember(experience(sac, broken=True))
    drawn = sac.replay.sample_steps(500, sac.generator)
    assert torch.isin(drawn.action, sound.action).all()


@pytest.mark.parametrize("negatives", ["current", "mixture"])
def test_restored_learner_goes_on_bit_for_bit(negatives: str):
    """Critics, targets, optimisers, replay and snapshots come back."""
    config = dataclasses.replace(CONFIG, negatives=negatives, demo_share=0.25, clone_weight=0.1)
    ours, theirs = learner(config, demos=DEMOS), learner(config, demos=DEMOS)

    def go_on(sac: SacLearner) -> tuple[Tensor, dict[str, float]]:
        rollout = experience(sac)
        return sac.remember(rollout).log_prob, sac.update(rollout, quadratic, sac.generator, 0.0)

    for _ in range(3):
        go_on(ours)
    theirs.policy.load_state_dict(ours.policy.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))  # a checkpoint shares no memory either
    theirs.generator.set_state(ours.generator.get_state())
    for _ in range(2):
        (q_ours, metrics_ours), (q_theirs, metrics_theirs) = go_on(ours), go_on(theirs)
        assert torch.equal(q_ours, q_theirs)
        assert metrics_ours == metrics_theirs
    for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert torch.equal(a, b)
