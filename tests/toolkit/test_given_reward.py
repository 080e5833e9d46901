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
    judge = GivenReward(lambda observation, action: observation.sum(-1) + action.sum(-1), 0.3)
    torch.testing.assert_close(label(judge), OBSERVATION.sum(-1) + ACTION.sum(-1) - 0.3 * LOG_PROB)


def test_constant_reward_leaves_only_the_entropy_term():
    """The control run is paid for nothing but its own randomness."""
    torch.testing.assert_close(label(GivenReward(constant_reward, 0.3)), -0.3 * LOG_PROB)


def test_true_reward_is_that_of_the_rollout_under_way():
    """[T][B] as the simulator gave it, in its order."""
    judge = GivenReward(None, 0.1)
    judge.true_reward.extend(np.arange(12.0).reshape(3, 4))
    torch.testing.assert_close(label(judge), torch.arange(12.0).reshape(3, 4) - 0.1 * LOG_PROB)
