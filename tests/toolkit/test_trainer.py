"""The whole trainer: resumes bit for bit, never sees the true reward, and refuses what cannot be trained."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_training import SMALL, SPEC, episodes, trainer

from demos.episode import EpisodeError
from robots.robot_yaml import load_robot
from robots.spec import ToolkitError
from toolkit import checkpoint as checkpoints
from toolkit.cli import main
from toolkit.config import ADVERSARIAL, TrainConfig, with_settings
from toolkit.export_parts import load_for_export
from toolkit.frozen_reward import load_frozen_reward
from toolkit.given_reward import constant_reward
from toolkit.held_out import hold_out, hold_out_weights
from toolkit.metrics import read_metrics
from toolkit.ppo import PolicyLearner
from toolkit.reward_learner import RewardLearner
from toolkit.run import Run
from toolkit.sac import SacLearner
from toolkit.settings import ConfigError
from toolkit.trainer import Trainer, TrainingError


def numbers(run: Trainer) -> torch.Tensor:
    critic = run.policy_learner.critic if isinstance(run.policy_learner, SacLearner) else run.value
    assert critic is not None
    modules = (run.policy, critic, run.reward)
    return torch.cat([x.detach().double().flatten() for module in modules for x in module.state_dict().values()])


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


@pytest.mark.parametrize("settings", [(), ("generator=sac", "sac.negatives=mixture"), ("ppo.restarts=4",)])
def test_resumed_run_is_the_same_run(tmp_path: Path, settings: tuple[str, ...]):
    """Five iterations, or two, a checkpoint, a new process's worth of objects, and three: equal to the last bit."""
    whole = trainer(None, *settings)
    straight = [untimed(whole.iterate()) for _ in range(5)]
    first = trainer(None, *settings)
    for _ in range(2):
        first.iterate()
    Run(tmp_path, first, {}, episodes()).save()
    second = trainer(None, *settings)
    run = Run(tmp_path, second, {}, episodes())
    run.resume()
    continued = [untimed(second.iterate()) for _ in range(3)]
    assert continued == straight[2:]
    assert torch.equal(numbers(second), numbers(whole))


@pytest.mark.parametrize("generator", ["ppo", "sac"])
def test_true_reward_never_reaches_the_learner(generator: str):
    """Demos with their rewards recorded, falsified or absent train exactly the same networks."""
    results = []
    for rewards in (None, np.full(120, 1.0, np.float32), np.linspace(-1e6, 1e6, 120, dtype=np.float32)):
        run = trainer(episodes(rewards=rewards), f"generator={generator}")
        for _ in range(3):
            run.iterate()
        results.append(numbers(run))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_task_reward_and_demos_exclude_each_other():
    """No objective can be given both."""
    config = with_settings(TrainConfig(), SMALL)
    with pytest.raises(TrainingError, match="never see the true reward"):
        Trainer(SPEC, config, episodes(), lambda sim: np.zeros(sim.num_envs))
    with pytest.raises(TrainingError, match="no demos"):
        Trainer(SPEC, with_settings(config, ["objective=task-reward"]), episodes(), lambda sim: np.zeros(sim.num_envs))


def test_demos_of_another_size_are_refused():
    """The message has both sizes."""
    wrong = [dataclasses.replace(e, observations=e.observations[:, :-1]) for e in episodes()]
    with pytest.raises(TrainingError, match=r"\(4, 1\); cartpole has \(5, 1\)"):
        trainer(wrong)


def test_whole_episodes_of_different_lengths():
    """Demos of 120 and 70 steps: segments of 70, so that every demo is learned from; and an iteration runs."""
    demos = [*episodes(2), *episodes(1, length=70)]
    run = trainer(demos, "reward.segment=0", "holdout=0")
    assert run.config.reward.segment == 70
    assert run.demos is not None and len(run.demos.starts) == 51 + 51 + 1
    run.iterate()


@pytest.mark.parametrize(
    ("count", "settings", "expected"), [(1, [], 0.0), (2, [], 0.1), (1, ["holdout=0.2"], 0.2), (2, ["holdout=0"], 0.0)]
)
def test_a_lone_demo_is_learned_from_whole(count: int, settings: list[str], expected: float):
    """Nothing of a single demo is kept from the learner unless the settings say so."""
    run = trainer(episodes(count), *settings)
    assert run.config.holdout == expected
    assert (run.held_out_demos is None) == (expected == 0.0)
    places = sum(episode.length - 7 for episode in episodes(count))  # of segments of 8 steps
    assert run.demos is not None and (len(run.demos.starts) == places) == (expected == 0.0)


def test_short_training_episodes():
    """episode_steps=20: a new beginning every 20 steps at the latest, of the same robot; too short is said."""
    run = trainer(None, "episode_steps=20", "reward.segment=8")
    ended = torch.cat([run.collector.collect(run.policy, 16).truncation for _ in range(5)])
    gaps = ended.nonzero()[:, 1].bincount(minlength=8)
    assert bool((gaps >= 4).all()), gaps  # in 80 steps
    assert run.spec.sha256 == SPEC.sha256
    with pytest.raises(ConfigError, match="too short for segments of 1000 steps"):
        trainer(None, "episode_steps=20", "reward.segment=1000")


def test_the_simulator_has_the_generators_environments():
    """Off-policy: sac.num_envs of them, sac.horizon steps at a time, and no value network."""
    run = trainer(None, "generator=sac", "sac.num_envs=4")
    assert run.sim.num_envs == 4
    assert run.steps_per_iteration == 4 * 16
    assert run.value is None


def test_sac_refuses_the_task_reward():
    """Its replay keeps no rewards."""
    with pytest.raises(ConfigError, match="keeps no rewards"):
        with_settings(TrainConfig(), ["generator=sac", "objective=task-reward"])


def test_sac_learns_from_segments_longer_than_its_horizon():
    """The replay holds them; until one is whole the reward waits, and says nothing it does not know."""
    run = trainer(None, "generator=sac", "reward.segment=40", "sac.horizon=16", "sac.head_start=0")
    rows = [run.iterate() for _ in range(5)]
    assert [math.isnan(row["reward/loss"]) for row in rows] == [True, True, False, False, False]
    assert isinstance(run.judge, RewardLearner) and run.judge.rounds == 3


@pytest.mark.parametrize("objective", ADVERSARIAL)
@pytest.mark.parametrize("settings", [(), ("sac.negatives=mixture", "reward.expert_log_q=stale")])
def test_sac_serves_every_objective(objective: str, settings: tuple[str, ...]):
    """All of the family run against it, whatever scores the segments."""
    run = trainer(None, "generator=sac", f"objective={objective}", *settings)
    assert all(math.isfinite(run.iterate()["reward/loss"]) for _ in range(2))


@pytest.mark.parametrize("generator", ["ppo", "sac"])
def test_a_policy_of_another_run_is_the_same_until_the_value_knows_the_reward(generator: str, tmp_path: Path):
    """Neither a gradient step nor a moving normaliser changes what it does; after that it learns."""
    words = ["train", "--objective", "task-reward", "--robot", "cartpole", "--out", str(tmp_path / "first")]
    words += [word for setting in SMALL for word in ("--set", setting)]
    assert CliRunner().invoke(main, words).exit_code == 0
    settings = [*SMALL, "objective=reward", f"generator={generator}", "ppo.head_start=2", "sac.head_start=2"]
    run = Trainer(SPEC, with_settings(TrainConfig(), settings), [], frozen_reward=constant_reward)
    run.start_from(checkpoints.load(tmp_path / "first"))
    observation = torch.randn(5, SPEC.obs_dim)
    before, std = run.policy(observation).detach(), run.policy.log_std.detach().clone()
    for _ in range(2):
        run.iterate()
        assert torch.equal(run.policy(observation), before) and torch.equal(run.policy.log_std, std)
    run.iterate()
    assert not torch.equal(run.policy(observation), before)
    fresh = Trainer(SPEC, with_settings(TrainConfig(), settings), [], frozen_reward=constant_reward)
    count = float(fresh.policy.normalizer.count)
    fresh.iterate()
    assert float(fresh.policy.normalizer.count) > count


@pytest.mark.parametrize("generator", ["ppo", "sac"])
def test_head_start_leaves_the_policy_alone(generator: str):
    """While it lasts, reward and value learn and the policy does not."""
    run = trainer(None, f"generator={generator}", f"{generator}.head_start=2")
    before = [p.detach().clone() for p in run.policy.parameters()]
    run.iterate()
    run.iterate()
    assert all(torch.equal(a, b) for a, b in zip(before, run.policy.parameters(), strict=True))
    run.iterate()
    assert not all(torch.equal(a, b) for a, b in zip(before, run.policy.parameters(), strict=True))


def test_a_policy_that_begins_anew():
    """In the third iteration of five: weights and step size as of a fresh one, the reward and what it sees as before.

    The head start keeps the policy from learning in the same iteration, so that the fresh weights can be looked at.
    """
    run = trainer(None, "ppo.restarts=1", "ppo.head_start=9", "policy.log_std_init=-0.7", "reward.memory=0.5")
    assert isinstance(run.policy_learner, PolicyLearner) and isinstance(run.judge, RewardLearner)
    for group in run.policy_learner.optimizer.param_groups:
        group["lr"] = 1e-5
    run.iterate()
    run.iterate()
    with torch.no_grad():
        run.policy.log_std_raw.fill_(-2.0)
    before, rounds = run.policy.mean_net.state_dict()["0.weight"].clone(), run.judge.rounds
    seen = {name: x.clone() for name, x in run.policy.normalizer.state_dict().items()}
    run.iterate()
    assert not torch.equal(run.policy.mean_net.state_dict()["0.weight"], before)
    torch.testing.assert_close(run.policy.log_std, torch.full((SPEC.act_dim,), -0.7))
    assert run.policy_learner.learning_rate == run.config.ppo.learning_rate
    assert all(torch.equal(x, seen[name]) for name, x in run.policy.normalizer.state_dict().items())
    assert run.judge.rounds == rounds + 1 and run.judge.memory is not None
    assert run.judge.memory.offered == 3 * 64  # of three iterations
    weights = run.policy.mean_net.state_dict()["0.weight"].clone()
    run.iterate()
    assert torch.equal(run.policy.mean_net.state_dict()["0.weight"], weights)  # and not again


def test_a_policy_goes_on_where_nothing_is_gained_by_beginning_anew():
    """With a frozen reward, which does not learn; and in a run of one iteration, whose only part is its start."""
    frozen = with_settings(TrainConfig(objective="reward"), [*SMALL, "ppo.restarts=1", "ppo.head_start=9"])
    reached = Trainer(SPEC, frozen, [], frozen_reward=constant_reward)
    short = trainer(None, "ppo.restarts=1", "total_steps=128", "ppo.head_start=9")
    for run, iterations in ((reached, 3), (short, 1)):
        with torch.no_grad():
            run.policy.log_std_raw.fill_(-2.0)
        for _ in range(iterations):
            run.iterate()
        assert float(run.policy.log_std_raw.detach().max()) < -1.9  # fresh ones are at -0.5


def test_held_out_steps_are_never_learned_from():
    """Stretches held out and learned from make up the demos, and share no step."""
    demos = episodes(3)
    train, held_out = hold_out(demos, 0.1, 8, seed=0)
    rows = [tuple(row) for e in demos for row in e.actions]
    kept = [tuple(row) for e in train for row in e.actions]
    out = [tuple(row) for e in held_out for row in e.actions]
    assert len(out) == 3 * 12
    assert not set(kept) & set(out)
    assert set(kept) | set(out) <= set(rows)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_weights_follow_the_pieces(share: float):
    """Each part of a demo, learned from or held out, weighs what the demo weighs."""
    demos = episodes(3)
    weights = [1.0, 0.5, 0.01]
    parts = hold_out(demos, share, 8, seed=0)
    for part, weighed in zip(parts, hold_out_weights(demos, weights, share, 8, seed=0), strict=True):
        rows = [[tuple(row) for row in e.actions] for e in demos]
        owners = [next(i for i in range(3) if tuple(e.actions[0]) in rows[i]) for e in part]
        assert weighed == [weights[i] for i in owners]


def test_a_bad_demo_counts_less_unless_told_otherwise():
    """Of four demos the one unlike the others weighs little, also in the sampler; all alike with weighting=equal."""
    demos = [*episodes(3), dataclasses.replace(episodes(4)[3], observations=5 + episodes(4)[3].observations)]
    odd, equal = trainer(demos), trainer(demos, "weighting=equal")
    assert (odd.demo_weights[:3] == 1.0).all() and odd.demo_weights[3] < 0.5
    assert (equal.demo_weights == 1.0).all()
    assert None not in (odd.demos, equal.demos)
    samplers = (odd.demos, equal.demos)
    samples = [demos.sample(2000, np.random.default_rng(0)).observations for demos in samplers if demos is not None]
    share = [float((seen.mean((0, 2)) > 2.5).mean()) for seen in samples]
    assert share[0] < 0.6 * share[1] and share[1] == pytest.approx(0.25, abs=0.05)


def test_demos_without_actions_are_refused():
    """What compares log q of the expert's actions cannot learn from a demo that has none."""
    blind = episodes(2, actions=np.full((120, SPEC.act_dim), np.nan, np.float32))
    with pytest.raises(EpisodeError, match="needs the expert's actions, which demo 0, 1 lacks"):
        trainer(blind)


def test_a_single_short_demo_is_not_held_out():
    """With nothing to spare, everything is learned from."""
    train, held_out = hold_out(episodes(1, length=20), 0.1, 8, seed=0)
    assert len(train) == 1
    assert held_out == []


def test_metrics_file_is_cut_back_to_the_checkpoint(tmp_path: Path):
    """Iterations after the last checkpoint were logged and will be run again: they must not stand there twice."""
    first = trainer(None, "checkpoint_every=2")
    stop_after_three = Run(tmp_path, first, {}, episodes())

    def on_progress(run: Trainer, metrics: dict[str, float], evaluation: object) -> None:
        if run.iteration == 3:
            raise KeyboardInterrupt  # a stand-in for death between checkpoints

    with pytest.raises(KeyboardInterrupt):
        stop_after_three.train(on_progress, 0, 0)
    assert [row["iteration"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3]
    run = Run(tmp_path, trainer(None, "checkpoint_every=2"), {}, episodes())
    run.resume()
    run.train(lambda *_: None, 0, 0)
    assert [row["iteration"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3, 4, 5]


def test_resume_refuses_other_settings(tmp_path: Path):
    """What differs is named; more steps of the same is not a difference."""
    first = trainer()
    Run(tmp_path, first, {"chain_sha256": "a"}, episodes()).save()
    Run(tmp_path, trainer(None, "total_steps=9999"), {"chain_sha256": "a"}, episodes()).resume()
    with pytest.raises(TrainingError, match=r"reward.alpha: was .*, now 0.5"):
        Run(tmp_path, trainer(None, "reward.alpha=0.5"), {"chain_sha256": "a"}, episodes()).resume()
    with pytest.raises(TrainingError, match="demos: was a, now b"):
        Run(tmp_path, trainer(), {"chain_sha256": "b"}, episodes()).resume()


def test_damaged_checkpoints_are_named(tmp_path: Path):
    """Missing, garbage, truncated, of a newer format: one line each, never a traceback of torch's."""
    path = tmp_path / checkpoints.FILE_NAME
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoint there"):
        checkpoints.load(tmp_path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        checkpoints.load(tmp_path)
    Run(tmp_path, trainer(), {}, episodes()).save()
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(checkpoints.CheckpointError, match="damaged"):
            checkpoints.load(tmp_path)
    data = torch.load(__import__("io").BytesIO(whole), weights_only=True)
    torch.save({**data, "format_version": 99}, path)
    with pytest.raises(checkpoints.CheckpointError, match="upgrade gcl"):
        checkpoints.load(tmp_path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(checkpoints.CheckpointError, match="not a gcl checkpoint"):
        checkpoints.load(tmp_path)


def test_checkpoint_gives_back_the_policy(tmp_path: Path):
    """What is exported acts as what was trained."""
    run = trainer()
    run.iterate()
    Run(tmp_path, run, {}, episodes()).save()
    parts = load_for_export(tmp_path)
    observation = torch.from_numpy(parts.sample_observations)
    expected = run.policy(observation).clamp(-1.0, 1.0).detach()
    torch.testing.assert_close(parts.policy_module(observation).detach(), expected, atol=0.0, rtol=0.0)
    assert checkpoints.load_policy(tmp_path).act(parts.sample_observations[0]).shape == (SPEC.act_dim,)
    assert parts.sample_observations.shape == (240, SPEC.obs_dim)


def test_a_reward_that_sees_a_part_is_trained_and_exported(tmp_path: Path):
    """Saved and exported it says what the network says, by a second evaluator too, and still looks at no more."""
    run = trainer(None, "reward.observe=[velocity_cart, velocity_pole]")
    run.iterate()
    Run(tmp_path, run, {}, episodes()).save()
    result = CliRunner().invoke(main, ["export", "--checkpoint", str(tmp_path), "--check", "--json"])
    assert result.exit_code == 0, result.output
    frozen = load_frozen_reward(tmp_path / "cartpole.bundle", SPEC).score
    s, a = torch.randn(9, SPEC.obs_dim), torch.zeros(9, SPEC.act_dim)
    torch.testing.assert_close(frozen(s, a), run.reward(s, a).detach(), atol=1e-5, rtol=1e-5)
    blind = [not name.startswith("velocity") for name in SPEC.observation_names]
    other = torch.where(torch.tensor(blind), torch.randn(9, SPEC.obs_dim), s)
    assert torch.equal(frozen(other, a), frozen(s, a)) and not torch.equal(frozen(torch.randn_like(s), a), frozen(s, a))


def test_randomize_reaches_the_simulator():
    """--randomize: environments differ, and a robot whose file has no such section is refused in one line."""
    ranges = load_robot("cheetah").randomize
    assert ranges is not None
    varied = dataclasses.replace(SPEC, randomize=dataclasses.replace(ranges, noise=()))
    config = with_settings(TrainConfig(), [*SMALL, "randomize=true"])
    masses = [Trainer(varied, config, episodes()).sim.model_of(i).body_mass.sum() for i in range(2)]
    assert masses[0] != masses[1]
    with pytest.raises(ToolkitError, match="no section randomize"):
        Trainer(SPEC, config, episodes())
