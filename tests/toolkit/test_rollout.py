"""What the collector stores is what happened: successors, ends of episodes, densities, and where it left off."""

import torch

from robots.batch import BatchSim
from robots.robot_yaml import load_robot
from toolkit.networks import GaussianPolicy
from toolkit.rollout import Collector

SPEC = load_robot("cartpole")


def collector(stagger: bool = True) -> Collector:
    sim = BatchSim(SPEC, 8, seed=0, num_threads=1, reset_pool=16, stagger=stagger)
    return Collector(sim, torch.device("cpu"), torch.Generator().manual_seed(0))


def policy() -> GaussianPolicy:
    torch.manual_seed(0)
    return GaussianPolicy(SPEC.obs_dim, SPEC.act_dim, (16,), (-0.5, -3.0, 0.5))


def test_successor_is_the_next_row_unless_the_episode_ended():
    """s_{t+1} is the row below where the episode goes on, and is not where it ended: there a reset came between."""
    rollout = collector().collect(policy(), 200)
    same = (rollout.next_observation[:-1] == rollout.observation[1:]).all(-1)
    ended = rollout.ended[:-1]
    assert ended.any()
    assert same[~ended].all()
    assert not same[ended].any()


def test_density_is_that_of_the_action_sent():
    """Stored log q equals log q scored afresh, and actions are within their limits."""
    acting = policy()
    rollout = collector().collect(acting, 20)
    torch.testing.assert_close(acting.log_prob(rollout.observation, rollout.action).detach(), rollout.log_prob)
    assert rollout.action.abs().max() <= 1.0
    assert rollout.mean is not None
    torch.testing.assert_close(acting(rollout.observation).detach(), rollout.mean)


def test_goes_on_where_it_left_off():
    """Two calls of 10 steps see what one call of 20 sees."""
    whole = collector().collect(policy(), 20)
    halves = collector()
    parts = [halves.collect(policy(), 10) for _ in range(2)]
    assert torch.equal(torch.cat([part.observation for part in parts]), whole.observation)
    assert torch.equal(torch.cat([part.action for part in parts]), whole.action)
