"""A given reward is labelled as the learned one is: r - alpha log q, whatever it comes from."""

import numpy as np
import torch

from toolkit.given_reward import GivenReward, constant_reward

OBSERVATION, ACTION = torch.randn(3, 4, 5), torch.rand(3, 4, 2)
LOG_PROB, NONE = torch.randn(3, 4), torch.zeros(3, 4, dtype=torch.bool)


def label(judge: GivenReward) -> torch.Tensor:
    return judge.label(OBSERVATION, OBSERVATION, ACTION, LOG_PROB, NONE)


def test_frozen_reward_is_labelled_with_the_entropy_term():
    """r(s, a) - alpha log q."""
    judge = GivenReward(lambda observation, action: observation.sum(-1) + action.sum(-1), 0.3, 0.9)
    torch.testing.assert_close(label(judge), OBSERVATION.sum(-1) + ACTION.sum(-1) - 0.3 * LOG_PROB)


def test_constant_reward_leaves_only_the_entropy_term():
    """The control run is paid for nothing but its own randomness."""
    torch.testing.assert_close(label(GivenReward(constant_reward, 0.3, 0.9)), -0.3 * LOG_PROB)


def test_true_reward_is_that_of_the_rollout_under_way():
    """[T][B] as the simulator gave it, in its order."""
    judge = GivenReward(None, 0.1, 0.9)
    judge.true_reward.extend(np.arange(12.0).reshape(3, 4))
    torch.testing.assert_close(label(judge), torch.arange(12.0).reshape(3, 4) - 0.1 * LOG_PROB)


def test_the_step_that_ends_a_task_brings_what_comes_after():
    """gamma r_a / (1 - gamma) = 0.9 * 2 / 0.1 = 18 with that step, and with no other."""

    class Reward(torch.nn.Module):
        absorbing = torch.tensor(2.0)

        def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return observation.sum(-1)

    ends = torch.zeros(3, 4, dtype=torch.bool)
    ends[1, 2] = True
    said = GivenReward(Reward(), 0.3, 0.9).label(OBSERVATION, OBSERVATION, ACTION, LOG_PROB, ends)
    torch.testing.assert_close(said, OBSERVATION.sum(-1) - 0.3 * LOG_PROB + 18.0 * ends)
