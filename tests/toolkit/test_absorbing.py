"""What comes after the end of a task: learned from who ends it and who does not, and carried along wherever r_psi goes.

Kostrikov et al. 2019, "Discriminator-Actor-Critic" (arXiv 1809.02925), section 4.2.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_training import SMALL

from demos.episode import Episode
from demos.segments import SegmentSampler
from demos.store import DemoStore
from export.runtime import load_bundle
from export.to_onnx import write_bundle
from robots.robot_yaml import load_robot
from robots.spec import TerminationLimit
from robots.task import TaskEnv
from toolkit import offline, verdict
from toolkit.checkpoint import build_reward, load
from toolkit.cli import main
from toolkit.commands.verdict import _judge
from toolkit.config import TrainConfig, config_from_dict, with_settings
from toolkit.correlation import Graded, correlate
from toolkit.evidence import _Discriminator
from toolkit.expert_segments import ExpertSegments, Segments
from toolkit.export_parts import load_for_export
from toolkit.exported_reward import ExportedReward
from toolkit.frozen_reward import FrozenRewardError, load_frozen_reward
from toolkit.losses import generalized_advantage, reward_after_end
from toolkit.networks import GaussianPolicy, RewardNetwork
from toolkit.overlap import Overlap
from toolkit.resolve import lasting
from toolkit.reward_learner import RewardLearner
from toolkit.rollout import Rollout
from toolkit.run import Run
from toolkit.segment_reward import rewards_along, step_rewards
from toolkit.strictest_reward import Snapshot, StrictestReward
from toolkit.trainer import Trainer, TrainingError
from toolkit.whole_segments import draw_segments, whole_segments

SPEC = dataclasses.replace(load_robot("cartpole"), terminate=(TerminationLimit("position/slider", -0.4, 0.4),))
LENGTH = 4


def demo(length: int, ended_by: str, seed: int = 0, scale: float = 0.3) -> Episode:
    rng = np.random.default_rng(seed)
    observations = rng.uniform(-scale, scale, (length + 1, SPEC.obs_dim)).astype(np.float32)
    actions = rng.uniform(-1, 1, (length, SPEC.act_dim)).astype(np.float32)
    return Episode(observations, actions, np.arange(length + 1) * SPEC.control_dt, ended_by)


def policy() -> GaussianPolicy:
    torch.manual_seed(0)
    return GaussianPolicy(SPEC.obs_dim, SPEC.act_dim, (8,), (-0.5, -3.0, 0.5))


def rollout(ends: bool, steps: int = 16, envs: int = 8) -> Rollout:
    """Experience like the demos', whose task ends every fifth step or never."""
    generator = torch.Generator().manual_seed(0)
    observation = 0.3 * torch.randn(steps, envs, SPEC.obs_dim, generator=generator)
    with torch.no_grad():
        action, log_prob = policy().sample(observation, generator)
    none = torch.zeros(steps, envs, dtype=torch.bool)
    termination = none.clone()
    termination[4::5] = ends
    return Rollout(observation, observation, action, log_prob, termination, none, none)


def learner(ended_by: str, **settings: object) -> RewardLearner:
    torch.manual_seed(0)
    settings = {"segment": LENGTH, "batch_steps": 64 * LENGTH, "learning_rate": 3e-3, "temper": 0.05} | settings
    given = {name: settings.pop(name) for name in ("objective", "ppo") if name in settings}
    config: TrainConfig = config_from_dict({"ppo": {"horizon": 32}, **given, "reward": settings})
    reward = RewardNetwork(SPEC.obs_dim, SPEC.act_dim, (8,), absorbing=True)
    demos = SegmentSampler([demo(5, ended_by, seed) for seed in range(8)], LENGTH, past_end=True)
    return RewardLearner(reward, config, demos, None, np.random.default_rng(0))


def test_after_the_end_nobody_acts_and_each_step_is_worth_the_same():
    """Two segments of four steps, one over after the second: by hand, in float64."""
    reward = RewardNetwork(2, 1, (3,), absorbing=True).double()
    assert reward.absorbing is not None
    torch.nn.init.constant_(reward.absorbing, -7.0)
    state, action = torch.randn(4, 2, 2).double(), torch.rand(4, 2, 1).double()
    termination = torch.tensor([[False, False], [True, False], [True, False], [True, False]])
    log_q = torch.arange(1.0, 9.0).double().reshape(4, 2)
    segments = Segments(state, state, action, termination, log_q)
    assert segments.absorbed.tolist() == [[False, False], [False, False], [True, False], [True, False]]
    assert segments.log_density().tolist() == [1 + 3, 2 + 4 + 6 + 8]
    assert segments.log_density(-log_q).tolist() == [-4, -20]
    r, own = step_rewards(reward, segments, 0.9), rewards_along(reward, segments, 0.9)
    assert torch.equal(own[:, 1], r[:, 1]) and torch.equal(own[:2, 0], r[:2, 0])
    assert own[2:, 0].tolist() == [-7.0, -7.0]


def test_given_with_the_last_step_it_is_worth_what_it_is_step_by_step():
    """Advantages of an episode whose end brings its value, against one that goes on in the absorbing state for long."""
    gamma, lam, long = 0.9, 0.95, 2000
    r, value = torch.tensor([0.3, -0.2, 0.5]).double(), torch.tensor([1.0, 2.0, -1.0]).double()
    after = torch.tensor(0.7).double()
    ends = torch.tensor([False, False, True])
    short_reward = r + ends * reward_after_end(after, gamma)
    next_value = torch.cat([value[1:], torch.zeros(1).double()])
    short = generalized_advantage(
        short_reward[:, None], value[:, None], next_value[:, None], ends[:, None], ends[:, None], gamma, lam
    )
    # The value of the absorbing state is known, r_a / (1 - gamma), and all its advantages are 0
    long_reward = torch.cat([r, after.expand(long)])
    long_value = torch.cat([value, (after / (1 - gamma)).expand(long)])
    none = torch.zeros(long + 3, 1, dtype=torch.bool)
    last = none.clone()
    last[-1] = True
    following = torch.cat([long_value[1:], long_value[-1:]])
    whole = generalized_advantage(long_reward[:, None], long_value[:, None], following[:, None], last, none, gamma, lam)
    torch.testing.assert_close(short[:, 0], whole[:3, 0], atol=1e-9, rtol=0.0)
    torch.testing.assert_close(reward_after_end(after, gamma), torch.tensor(6.3).double())


@pytest.mark.parametrize(
    "settings", [{}, {"objective": "gcl"}, {"objective": "gail"}, {"ppo": {"horizon": LENGTH - 1}}, {"memory": 0.5}]
)
def test_who_ends_the_task_and_the_expert_does_not_learns_that_an_end_is_worth_less(settings: dict[str, object]):
    """And the other way round; without it, an end would be worth 0 in both cases, whatever the demos show."""
    for ended_by, ends in (("truncation", True), ("termination", False)):
        judge, generator = learner(ended_by, **settings), torch.Generator().manual_seed(1)
        for _ in range(40):
            judge.update(rollout(ends), policy(), generator, 0.0)
        after = judge.reward.absorbing
        assert after is not None
        worth = float(after.detach())
        assert worth < -0.1 if ends else worth > 0.1, worth


def test_the_label_of_the_step_that_ends_a_task():
    """f - alpha log q - alpha log Z / L, and gamma / (1 - gamma) times r_a - alpha log Z / L, log Z as for all."""
    judge = learner("truncation", alpha=0.5)
    judge.log_z = torch.tensor(3.0, dtype=torch.float64)
    assert judge.reward.absorbing is not None
    torch.nn.init.constant_(judge.reward.absorbing, 0.25)
    step = rollout(True)
    parts = (step.observation, step.next_observation, step.action, step.log_prob)
    plain = judge.label(*parts, torch.zeros_like(step.termination))
    ended = judge.label(*parts, step.termination)
    gamma = judge.discount
    expected = gamma / (1 - gamma) * (0.25 - 0.5 * 3.0 / LENGTH)
    torch.testing.assert_close(ended - plain, expected * step.termination, atol=1e-4, rtol=1e-5)
    f = judge.reward(step.observation, step.action)
    torch.testing.assert_close(plain, f - 0.5 * step.log_prob - 0.5 * 3.0 / LENGTH)


def test_what_the_expert_earns_counts_what_comes_after_its_end():
    """Against the mean over many drawn segments."""
    demos = SegmentSampler([demo(6, "termination"), demo(9, "truncation", 1)], LENGTH, past_end=True)
    reward = RewardNetwork(SPEC.obs_dim, SPEC.act_dim, (8,), absorbing=True)
    assert reward.absorbing is not None
    torch.nn.init.constant_(reward.absorbing, 3.0)
    expert = ExpertSegments(demos, reward.normalizer, 0.0, np.random.default_rng(0))
    expert.score(policy())
    drawn = expert.draw(20_000, torch.Generator().manual_seed(0))
    assert 0.1 < float(drawn.absorbed.double().mean()) < 0.5 and not bool(drawn.log_density().isnan().any())
    said = rewards_along(reward, drawn, 0.9).detach()
    error = 4.0 * float(said.std()) / 20_000**0.5
    assert expert.mean_reward(reward) == pytest.approx(float(said.mean()), abs=error) and error < 0.05


def test_the_strictest_says_of_the_end_what_it_says_of_all_else():
    """c + min_k (r_a,k - c_k) = 1 + min(-2 - 0, 1 - 2) = -1 with c = 1; none where tasks do not end."""
    network = RewardNetwork(4, 2, (5,), absorbing=True)
    net = network.net.state_dict()
    pair = StrictestReward(network, [Snapshot(net, 0.0, -2.0), Snapshot(net, 2.0, 1.0)])
    assert pair.absorbing is not None and float(pair.absorbing) == -1.0
    assert StrictestReward(network, [Snapshot(net, 0.0), Snapshot(net, 2.0)]).absorbing is None


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("generator=sac",),
        ("generator=sac", "sac.negatives=mixture"),
        ("reward.segment=0", "ppo.horizon=8"),
        ("reward.memory=0.5", "reward.panel=2"),
        ("objective=gcl",),
        ("objective=airl",),
    ],
)
def test_every_way_of_training_takes_it_along(tmp_path: Path, settings: tuple[str, ...]):
    """Runs, resumes bit for bit, exports; the bundle's reward knows it, and a new policy is paid it."""
    demos = [demo(60, "termination"), demo(20, "termination", 1), demo(12, "termination", 2), demo(40, "truncation", 3)]
    config = with_settings(TrainConfig(), [*SMALL, *settings])
    run = Trainer(SPEC, config, demos)
    assert run.config.reward.segment in (1, 8, 40)
    folder = Run(tmp_path / "run", run, {"chain_sha256": "00"}, demos)
    folder.train(lambda *_: None, 0, 1)
    twin = Trainer(SPEC, config, demos)
    twin.load_state_dict(load(tmp_path / "run").state["trainer"])
    rows = [{k: v for k, v in one.iterate().items() if "time" not in k} for one in (run, twin)]
    assert rows[0].keys() == rows[1].keys() and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(*(r.values() for r in rows), strict=True)
    )
    reward = build_reward(load(tmp_path / "run"))
    write_bundle(tmp_path / "a.bundle", load_for_export(tmp_path / "run"))
    score = load_frozen_reward(tmp_path / "a.bundle", load_robot("cartpole")).score
    if run.config.reward.segment == 1:  # a single step never reaches past the end, and there its value is 0
        assert reward.absorbing is score.absorbing is None
        return
    assert reward.absorbing is not None and score.absorbing is not None
    assert float(score.absorbing) == float(reward.absorbing.detach()) != 0.0
    assert isinstance(ExportedReward(score.onnx).absorbing, torch.Tensor)
    assert load_bundle(tmp_path / "a.bundle")[0].spec.terminate == SPEC.terminate
    follower = Trainer(SPEC, with_settings(TrainConfig(), [*SMALL, "objective=reward"]), [], frozen_reward=score)
    follower.iterate()


def test_a_reward_that_knows_no_end_is_refused_where_tasks_end(tmp_path: Path):
    """It would be paid 0 for falling."""
    plain = dataclasses.replace(SPEC, terminate=())
    demos = [demo(60, "truncation")]
    Run(
        tmp_path / "run", Trainer(plain, with_settings(TrainConfig(), [*SMALL, "total_steps=128"]), demos),
        {"chain_sha256": "00"}, demos,
    ).train(lambda *_: None, 0, 1)  # fmt: skip
    assert load_frozen_reward(tmp_path / "run", plain).score.absorbing is None
    with pytest.raises(FrozenRewardError, match="does not say what an end is worth, and cartpole has `terminate`"):
        load_frozen_reward(tmp_path / "run", SPEC)


def test_a_demo_beyond_the_limit_that_goes_on_is_refused():
    """The policy can never do what it shows; the step and the limit are named."""
    wide = demo(30, "truncation")
    wide.observations[17, 0] = 0.5
    with pytest.raises(TrainingError, match=r"demo 1: beyond `terminate` of cartpole at step 17 of 30.*0.5 \(limits"):
        Trainer(SPEC, with_settings(TrainConfig(), SMALL), [demo(30, "truncation", 1), wide])
    fallen = dataclasses.replace(wide, ended_by="termination")  # in the end, but not there
    with pytest.raises(TrainingError, match="demo 0: beyond `terminate` of cartpole at step 17"):
        Trainer(SPEC, with_settings(TrainConfig(), SMALL), [fallen])
    last = demo(30, "termination")
    last.observations[30, 0] = 0.5
    Trainer(SPEC, with_settings(TrainConfig(), SMALL), [demo(30, "truncation", 1), last]).sim.close()


def test_what_ended_its_task_lasts_as_long_as_an_episode_may():
    """A demo that is over early does not make whole episodes short; without `terminate` its length is what there is."""
    demos = [demo(30, "termination"), demo(40, "truncation")]
    assert lasting(demos, SPEC) == [SPEC.episode_steps, 40]
    assert lasting(demos, load_robot("cartpole")) == [30, 40]


def test_a_run_is_not_resumed_with_other_ends(tmp_path: Path):
    """`terminate` is no part of the robot's identity, and yet decides what was learned."""
    demos, config = [demo(60, "truncation")], with_settings(TrainConfig(), [*SMALL, "total_steps=128"])
    Run(tmp_path / "run", Trainer(SPEC, config, demos), {"chain_sha256": "00"}, demos).train(lambda *_: None, 0, 1)
    other = dataclasses.replace(SPEC, terminate=())
    with pytest.raises(TrainingError, match="cannot resume with other settings .*terminate: was"):
        Run(tmp_path / "run", Trainer(other, config, demos), {"chain_sha256": "00"}, demos).resume()


def test_a_run_says_how_often_the_task_ends():
    """Beside the other metrics, where it can."""
    rows = []
    for spec in (SPEC, load_robot("cartpole")):
        trainer = Trainer(spec, with_settings(TrainConfig(), [*SMALL, "ppo.num_envs=64"]), [demo(60, "truncation")])
        rows.append([trainer.iterate() for _ in range(4)][-1])
    assert 0.0 < rows[0]["terminated"] < 0.5 and "terminated" not in rows[1]


def test_learned_returns_count_what_comes_after_the_end():
    """As the true one does, whose reward is 0 then: steps that are missing to a whole episode are worth r_a each."""
    reward = RewardNetwork(SPEC.obs_dim, SPEC.act_dim, (4,), absorbing=True).eval()
    last = reward.net[-1]
    assert isinstance(last, torch.nn.Linear) and reward.absorbing is not None
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(reward.absorbing, -2.0)
    scored = correlate(SPEC, [Graded("drives off", 0.0, lambda _: np.ones(1))], reward, episodes=2).episodes
    taken = 0
    environment = TaskEnv(SPEC, seed=scored[0].seed)
    environment.reset()
    while not environment.step(np.ones(1))[2]:
        taken += 1
    assert 3 < taken < 100
    assert scored[0].learned_return == pytest.approx(-2.0 * (SPEC.episode_steps - taken - 1))


@pytest.mark.parametrize("objective", ["gan-gcl", "gcl", "gail"])
def test_what_stands_in_the_rows_after_the_end_changes_nothing(objective: str):
    """Observations, actions and log q there are place holders: reports and what is learned stay the same to the bit."""
    said, after = [], []
    for noise in (0.0, 0.7):
        judge = learner("termination", objective=objective, gradient_penalty=0.0)
        judge.first_policy = policy().requires_grad_(False)
        judge.expert.score(policy())
        generator = torch.Generator().manual_seed(1)
        expert = judge.expert.draw(64, generator)
        actor = draw_segments(
            judge._experience(rollout(True)), whole_segments(rollout(True), LENGTH, True), LENGTH, 64, generator
        )
        both = []
        for segments in (expert, actor):
            over = segments.absorbed
            assert bool(over.any())
            changed = {
                name: torch.where(over[..., None], x + noise, x) if x.ndim == 3 else torch.where(over, x + noise, x)
                for name, x in vars(segments).items()
                if name != "termination"
            }
            both.append(dataclasses.replace(segments, **changed))
        said.append(judge._gradient_step(both[0], both[1], 0.05, generator, report=True))
        after.append(torch.cat([x.detach().flatten() for x in judge.reward.parameters()]))
    assert said[0] == said[1] and torch.equal(after[0], after[1])


def test_what_the_off_policy_generator_hands_out_reaches_past_the_end():
    """Where tasks end for good, and only there."""
    handed = []
    narrow = dataclasses.replace(SPEC, terminate=(TerminationLimit("position/slider", -0.13, 0.13),))
    for spec in (narrow, load_robot("cartpole")):
        config = with_settings(TrainConfig(), [*SMALL, "generator=sac", "sac.num_envs=64", "sac.segments=512"])
        trainer = Trainer(spec, config, [demo(60, "truncation", scale=0.1)])
        for _ in range(3):
            rollout = trainer.collector.collect(trainer.policy, 16)
            handed.append(trainer.policy_learner.remember(rollout).termination)
    ends = [int((termination.cumsum(0) > 1).sum()) for termination in handed]
    assert ends[2] > 0 and ends[3:] == [0, 0, 0]


def test_the_verdict_looks_past_the_end_too():
    """The discriminator's segments of both kinds; the likelihood gap is of the steps that were taken."""
    demos = [demo(12, "termination", seed) for seed in range(6)]
    trainer = Trainer(SPEC, with_settings(TrainConfig(), SMALL), demos)
    experience = dataclasses.replace(rollout(True), observation=0.1 * rollout(True).observation)
    judged = _Discriminator(trainer, experience, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert bool(judged.expert.absorbed.any()) and bool(judged.own.absorbed.any())
    taken = judged.expert.log_q[~judged.expert.absorbed].mean() * len(demos[0].actions[0])
    gap = float(experience.log_prob.double().mean() - judged.expert.log_q[~judged.expert.absorbed].double().mean())
    assert judged.likelihood_gap() == pytest.approx(gap, abs=1e-5) and bool(taken.isfinite())


def test_recorded_segments_reach_past_the_end_offline(monkeypatch: pytest.MonkeyPatch):
    """Both densities leave out what nobody did, and the sums of the reward count it."""
    monkeypatch.setattr(Overlap, "fault", lambda _: None)
    demos, others = ([demo(20, "termination", seed) for seed in seeds] for seeds in (range(4), range(4, 8)))
    settings = [*SMALL, "objective=offline", "policy.warm_start=20", "reward.updates=2", "total_steps=2"]
    run = offline.OfflineLearner(SPEC, with_settings(TrainConfig(), settings), demos, others)
    run.iterate()
    batch = run.demos.draw(64, torch.Generator().manual_seed(0))
    over, normalizer = batch.segments.absorbed, run.reward.normalizer
    assert bool(over.any())
    observation = batch.segments.state * normalizer.std + normalizer.mean
    for density, scorer in ((batch.log_p, run.policy), (batch.log_q, run.background_policy)):
        each = scorer.log_prob(observation, batch.segments.action).detach().double()
        torch.testing.assert_close(density, torch.where(over, 0.0, each).sum(0), atol=1e-4, rtol=1e-4)
    r, after = step_rewards(run.reward, batch.segments, 0.9).double(), run.reward.absorbing
    assert after is not None
    torch.testing.assert_close(run._sums(batch.segments), torch.where(over, after.double(), r).sum(0))


def test_demos_of_another_store_are_judged_past_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`gcl verdict --demos`: they all count as held out."""
    robot = tmp_path / "cartpole.yaml"
    robot.write_text("name: cartpole\nvariant_of: cartpole\nterminate: {position/slider: {lower: -0.4, upper: 0.4}}\n")
    for name, seeds in (("own", (0, 1)), ("other", (2, 3))):
        store = DemoStore.create(tmp_path / f"{name}.zarr", SPEC)
        for seed in seeds:
            store.append(demo(30, "termination", seed))
        store.close()
    words = ["--eval-every", "0", *(word for setting in SMALL for word in ("--set", setting))]
    train = ["train", "--demos", tmp_path / "own.zarr", "--robot", robot, "--out", tmp_path / "run"]
    assert CliRunner().invoke(main, [*map(str, train), *words]).exit_code == 0
    seen = []
    monkeypatch.setattr(verdict, "judge", lambda trainer, *_: seen.append(trainer))
    _judge(tmp_path / "run", tmp_path / "other.zarr")
    assert len(seen[0].held_out_demos.starts) == 2 * 30
