"""Offline: refusal and acceptance, the same run after a resume, and no true reward anywhere."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import toolkit.offline
from demos.episode import Episode, EpisodeError
from robots.robot_yaml import load_robot
from toolkit import checkpoint as checkpoints
from toolkit.config import TrainConfig, with_settings
from toolkit.export_parts import load_for_export
from toolkit.frozen_reward import load_frozen_reward
from toolkit.offline import OfflineError, OfflineLearner
from toolkit.overlap import OverlapError
from toolkit.run import Run
from toolkit.segment_reward import step_rewards
from toolkit.trainer import Trainer, TrainingError

SPEC = load_robot("cartpole")
SMALL = [
    "objective=offline", "total_steps=24", "threads=1", "policy.hidden=[8]", "policy.warm_start=200",
    "policy.log_std_init=-1.2",  # 200 steps of a fit do not get far
    "reward.hidden=[8]", "reward.segment=8", "reward.batch_steps=128", "reward.updates=4",
]  # fmt: skip


def episodes(count: int, noise: float, seed: int, centre: float = 0.0, **changes: Any) -> list[Episode]:
    """Slow random walks on which the expert answers tanh(s_0) / 2; others add noise of their own size."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        state = np.zeros((161, SPEC.obs_dim))
        for t in range(160):
            state[t + 1] = 0.9 * state[t] + 0.4 * rng.normal(size=SPEC.obs_dim)
        action = 0.5 * np.tanh(state[:-1, :1]) + noise * rng.normal(size=(160, SPEC.act_dim))
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        clock = np.arange(161) * SPEC.control_dt
        made.append(Episode((state + centre).astype(np.float32), action, clock, ended_by="truncation", **changes))
    return made


def demos(**changes: Any) -> list[Episode]:
    return episodes(3, 0.1, 0, **changes)


def background(**changes: Any) -> list[Episode]:
    return episodes(3, 0.2, 1, **changes) + episodes(3, 0.5, 2, **changes)


def learner(*settings: str, background_episodes: list[Episode] | None = None) -> OfflineLearner:
    others = background() if background_episodes is None else background_episodes
    return OfflineLearner(SPEC, with_settings(TrainConfig(), [*SMALL, *settings]), demos(), others)


def numbers(run: OfflineLearner) -> torch.Tensor:
    modules = (run.policy, run.background_policy, run.reward)
    return torch.cat([x.double().flatten() for module in modules for x in module.state_dict().values()])


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def test_near_background_is_accepted_and_far_is_refused():
    """Far in states, and far in actions: each is refused with the number that is too low."""
    assert learner().overlap.support > 0.8
    with pytest.raises(OverlapError, match=r"^demos and background overlap too little: 0.0% of the demos' segments.*"):
        learner(background_episodes=background(centre=20.0))
    far = [dataclasses.replace(e, actions=-np.sign(e.actions).astype(np.float32)) for e in background()]
    with pytest.raises(OverlapError, match="effective sample size"):
        learner(background_episodes=far)


def test_learned_return_ranks_the_graded_episodes():
    """More noise is worse; the reward was never told, and orders episodes it never saw."""
    settings = ("total_steps=400", "reward.hidden=[32]", "reward.updates=20", "reward.learning_rate=0.01")
    run = learner(*settings)
    while run.iteration < run.iterations:
        run.iterate()
    scores = []
    for noise in (0.1, 0.5, 1.0):
        graded = episodes(3, noise, seed=77)
        with torch.no_grad():
            scores.append(
                sum(
                    float(run.reward(torch.from_numpy(e.observations[:-1]), torch.from_numpy(e.actions)).sum())
                    for e in graded
                )
            )
    assert scores == sorted(scores, reverse=True)


def test_each_segment_meets_its_own_density(monkeypatch: pytest.MonkeyPatch):
    """What the loss is given: demos first, then background, rewards and log densities in the same order."""
    run, given, drawn = learner("reward.updates=1", "reward.shaping=true"), [], []
    for side in (run.demos, run.background):
        draw = side.draw
        monkeypatch.setattr(side, "draw", lambda *a, draw=draw: drawn.append(draw(*a)) or drawn[-1])
    loss = toolkit.offline.guided_cost_loss
    monkeypatch.setattr(toolkit.offline, "guided_cost_loss", lambda *a: given.append(a) or loss(*a))
    reward = copy.deepcopy(run.reward)
    run.iterate()
    ((r_expert, r, log_mu, *_),) = given
    torch.testing.assert_close(log_mu, torch.cat([batch.log_mixture() for batch in drawn]))
    expected = [step_rewards(reward, batch.segments, run.config.ppo.discount).double().sum(0) for batch in drawn]
    torch.testing.assert_close(r, torch.cat(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(r_expert, r[: len(expected[0])])


def test_resumed_run_is_the_same_run(tmp_path: Path):
    """Six iterations, or two, a checkpoint, new objects, and four: equal to the last bit."""
    whole = learner()
    straight = [untimed(whole.iterate()) for _ in range(6)]
    first = learner()
    for _ in range(2):
        first.iterate()
    Run(tmp_path, first, {}, demos()).save()
    second = learner()
    Run(tmp_path, second, {}, demos()).resume()
    assert [untimed(second.iterate()) for _ in range(4)] == straight[2:]
    assert torch.equal(numbers(second), numbers(whole))


def test_resume_refuses_another_background(tmp_path: Path):
    """The background is part of what a run is."""
    mine, other = ({"chain_sha256": "a", "background": {"chain_sha256": name}} for name in ("b", "c"))
    Run(tmp_path, learner(), mine, demos()).save()
    with pytest.raises(TrainingError, match="background: was b, now c"):
        Run(tmp_path, learner(), other, demos()).resume()


def test_true_reward_never_reaches_the_learner():
    """Rewards absent, constant or absurd, in demos and background alike, train exactly the same networks."""
    results = []
    for rewards in (None, np.full(160, 1.0, np.float32), np.linspace(-1e6, 1e6, 160, dtype=np.float32)):
        config = with_settings(TrainConfig(), SMALL)
        run = OfflineLearner(SPEC, config, demos(rewards=rewards), background(rewards=rewards))
        run.iterate()
        results.append(numbers(run))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_known_density_is_used_as_it_is():
    """With a background policy given, nothing is estimated and its weights stay."""
    known = learner().background_policy
    with torch.no_grad():
        known.log_std_raw.fill_(-0.5)
    config = with_settings(TrainConfig(), SMALL)
    run = OfflineLearner(SPEC, config, demos(), background(), background_policy=known)
    run.iterate()
    assert run.background_policy is known and known.log_std_raw.tolist() == [-0.5]


def test_a_collapsed_reward_is_refused_and_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """If a few segments hold all the weight at the end, the run says so, and export repeats it."""
    run = learner("total_steps=4")
    run.iterate()
    assert run.refused() is None
    with torch.no_grad():
        for parameter in run.reward.parameters():
            parameter.mul_(30.0)
    monkeypatch.setattr(toolkit.offline, "NEEDED_ESS", 0.2)
    refused = run.refused()
    assert refused is not None and "20.0% are needed" in refused
    Run(tmp_path, run, {}, demos()).save()
    with pytest.raises(checkpoints.CheckpointError, match="the learned reward leaves an effective"):
        load_for_export(tmp_path)
    with pytest.raises(checkpoints.CheckpointError, match="the learned reward leaves an effective"):
        load_frozen_reward(tmp_path, SPEC)


def test_unusable_episodes_are_named():
    """Too short, none, of another robot."""
    config = with_settings(TrainConfig(), [*SMALL, "reward.segment=500"])
    with pytest.raises(OfflineError, match="demos: 3 episodes, the longest of 160 steps; needed is one of 500"):
        OfflineLearner(SPEC, config, demos(), background())
    with pytest.raises(OfflineError, match="background: 0 episodes"):
        learner(background_episodes=[])
    wrong = [dataclasses.replace(e, observations=e.observations[:, :-1]) for e in background()]
    with pytest.raises(EpisodeError, match="observations of 4 elements; cartpole has 5"):
        learner(background_episodes=wrong)
    unknown = [dataclasses.replace(e, actions=np.full_like(e.actions, np.nan)) for e in background()]
    with pytest.raises(EpisodeError, match=r"--offline \(background\) needs the expert's actions"):
        learner(background_episodes=unknown)
    with pytest.raises(OfflineError, match="warm_start"):
        learner("policy.warm_start=0")
    with pytest.raises(TrainingError, match="simulates nothing"):
        Trainer(SPEC, with_settings(TrainConfig(), SMALL), demos())
