"""A recorded policy is found again from its actions alone: mean, spread, and so log q."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from demos.episode import Episode
from toolkit.background import estimate_log_q
from toolkit.config import PolicyConfig

SETTINGS = PolicyConfig(hidden=(32,), warm_start=1500)
NOISE = 0.3


def episodes(count: int = 4, length: int = 500, noise: float = NOISE, seed: int = 0) -> list[Episode]:
    """Actions tanh(s) / 2 with Gaussian noise; states that do not depend on them."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        state = rng.normal(size=(length + 1, 3)).astype(np.float32)
        action = 0.5 * np.tanh(state[:-1, :2]) + noise * rng.normal(size=(length, 2))
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        made.append(Episode(state, action, np.arange(length + 1) * 0.01, ended_by="truncation"))
    return made


def test_the_policy_is_found_again():
    """The spread is the noise's, and new actions get the log density that the true policy gives them."""
    policy = estimate_log_q(episodes(), SETTINGS, 0)
    assert policy.log_std.exp().tolist() == pytest.approx([NOISE, NOISE], abs=0.02)
    new = episodes(seed=1)[0]
    state, action = torch.from_numpy(new.observations[:-1]), torch.from_numpy(new.actions)
    inside = (action.abs() < 1.0).all(-1)
    z = (action - 0.5 * state[:, :2].tanh()) / NOISE
    true = (-0.5 * z.square() - math.log(NOISE) - 0.5 * math.log(2.0 * math.pi)).sum(-1)[inside]
    estimated = policy.log_prob(state, action)[inside]
    assert float((estimated - true).mean()) == pytest.approx(0.0, abs=0.05)
    assert float(torch.corrcoef(torch.stack([estimated, true]))[0, 1]) > 0.97


def test_few_steps_are_not_learned_by_heart():
    """On pure noise a large network would shrink its spread; the held-out stretch stops it in time."""
    few = [dataclasses.replace(e, actions=np.roll(e.actions, 7, axis=0)) for e in episodes(1, 200)]
    policy = estimate_log_q(few, dataclasses.replace(SETTINGS, hidden=(128, 128), warm_start=2500), 0)
    spread = np.concatenate([e.actions for e in few]).std(0)
    assert (policy.log_std.exp().numpy() > 0.75 * spread).all()


def test_the_same_seed_gives_the_same_policy_whatever_was_drawn_before():
    """A resumed run fits again and must come to the same weights."""
    short = dataclasses.replace(SETTINGS, warm_start=20)
    first = estimate_log_q(episodes(2, 200), short, 3)
    torch.rand(5)
    second = estimate_log_q(episodes(2, 200), short, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(p.requires_grad for p in first.parameters())


def test_an_episode_that_counts_for_nothing_leaves_no_trace():
    """With all but none of the weight on the quiet episodes, the spread is theirs and not the mixture's."""
    quiet, loud = episodes(2), episodes(2, noise=0.8, seed=5)
    short = dataclasses.replace(SETTINGS, warm_start=800)
    policy = estimate_log_q(quiet + loud, short, 0, weights=[1.0, 1.0, 1e-6, 1e-6])
    assert policy.log_std.exp().tolist() == pytest.approx([NOISE, NOISE], abs=0.04)
