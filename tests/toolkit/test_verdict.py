"""The word for a run: right for fakes whose answer is known, and asking for it changes nothing."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demos.episode import Episode
from robots.batch import BatchSim
from robots.robot_yaml import load_robot
from toolkit.config import TrainConfig, with_settings
from toolkit.evidence import Evidence, Yardstick, act, mean_action
from toolkit.networks import GaussianPolicy
from toolkit.trainer import Trainer
from toolkit.verdict import Verdict, VerdictError, decide, judge, write_verdict

SPEC = load_robot("cartpole")
STEPS = 100
SMALL = [
    "total_steps=640", "threads=1", "ppo.num_envs=8", "ppo.horizon=16", "policy.hidden=[8]", "reward.hidden=[8]",
    "reward.segment=8", "reward.batch_steps=128", "policy.warm_start=0", "ppo.head_start=0",
]  # fmt: skip

GOOD = Evidence(
    held_out_auc=0.6, held_out=True, energy_distance=0.05, energy_distance_sampled=0.1, energy_distance_of_demos=0.02,
    energy_distance_of_demos_max=0.04, energy_distance_of_start=1.0, energy_distance_of_random=3.0, likelihood_gap=0.1,
    ess=0.3, log_z_drift=0.1, discriminator_loss=1.3, action_std=0.2, variety=1.0, variety_of_start=0.5,
    broken=0.0, demos=5, episodes=8, steps=1000, compared="states and actions",
)  # fmt: skip


def swinging() -> GaussianPolicy:
    """An expert of sorts: drives the cart to and fro by what it sees."""
    torch.manual_seed(3)
    policy = GaussianPolicy(SPEC.obs_dim, SPEC.act_dim, (8,), (-1.2, -3.0, 0.0))
    with torch.no_grad():
        policy.mean_net[2].weight.mul_(100.0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return policy


def constant(value: float) -> GaussianPolicy:
    """Pushes the same way for ever."""
    policy = swinging()
    with torch.no_grad():
        policy.mean_net[2].weight.zero_()  # pyright: ignore[reportArgumentType, reportCallIssue]
        policy.mean_net[2].bias.fill_(value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return policy


def demos_of(policy: GaussianPolicy, count: int = 5, seed: int = 77) -> list[Episode]:
    sim = BatchSim(SPEC, count, seed=seed, num_threads=1, reset_pool=16, stagger=False)
    rows, _ = act(sim, mean_action(policy, torch.device("cpu")), STEPS + 1)
    return [
        Episode(
            observations=x[:, : SPEC.obs_dim].astype(np.float32),
            actions=x[:-1, SPEC.obs_dim :].astype(np.float32),
            timestamps=np.arange(STEPS + 1) * SPEC.control_dt,
            ended_by="truncation",
        )
        for x in rows
    ]


def trainer(episodes: list[Episode], policy: GaussianPolicy | None = None, *settings: str) -> Trainer:
    run = Trainer(SPEC, with_settings(TrainConfig(), [*SMALL, *settings]), episodes)
    if policy is not None:
        run.policy.mean_net.load_state_dict(policy.mean_net.state_dict())
        run.policy.normalizer.load_state_dict(policy.normalizer.state_dict())
    return run


def verdict_on(policy: GaussianPolicy, start: GaussianPolicy, episodes: list[Episode]) -> Verdict:
    return judge(trainer(episodes, policy), episodes, start)


def changed(**changes: Any) -> Evidence:
    return dataclasses.replace(GOOD, **changes)


@pytest.fixture(scope="module")
def demos() -> list[Episode]:
    """What the swinging expert did, five times."""
    return demos_of(swinging())


def test_the_expert_itself_has_converged(demos: list[Episode]):
    """The policy that made the demos is as near to them, in episodes of its own, as they are to one another."""
    found = verdict_on(swinging(), constant(0.0), demos)
    assert found.word == "converged", found
    assert found.energy_distance < 2.0 * found.energy_distance_of_demos_max
    assert found.energy_distance < 0.1 * found.energy_distance_of_start
    assert found.variety == pytest.approx(1.0, abs=0.2)


def test_a_constant_action_has_collapsed(demos: list[Episode]):
    """Whatever it started from, if the demos move and it does not follow."""
    found = verdict_on(constant(1.0), constant(0.0), demos)
    assert found.word == "collapsed", found
    assert "further from the demos than its own start" in found.reasons[0]


def test_an_untrained_policy_has_not_converged(demos: list[Episode]):
    """As far from the demos as its start, because it is its start."""
    found = verdict_on(constant(0.0), constant(0.0), demos)
    assert found.energy_distance == found.energy_distance_of_start
    assert found.word == "not converged", found


def test_half_of_the_expert_lies_between(demos: list[Episode]):
    """The distance falls as a policy nears the expert."""
    half = swinging()
    with torch.no_grad():
        half.mean_net[2].weight.mul_(0.5)  # pyright: ignore[reportArgumentType, reportCallIssue]
    distances = [verdict_on(p, constant(0.0), demos).energy_distance for p in (swinging(), half, constant(0.0))]
    assert distances == sorted(distances)


def test_one_short_demo_is_said_so(demos: list[Episode]):
    """Nothing can be held out, and no demo says how others would differ: both stand in the reasons."""
    found = judge(trainer(demos[:1], swinging(), "reward.segment=64"), demos[:1], constant(0.0))
    assert not found.held_out
    assert any("no demo was held out" in reason for reason in found.reasons)
    assert any("one demo" in reason for reason in found.reasons)


def test_a_judged_run_resumes_as_if_it_had_not_been(demos: list[Episode]):
    """Two iterations, a verdict, three more: metrics and networks are those of five in a row, to the last bit."""

    def untimed(metrics: dict[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if not name.startswith("time/")}

    whole, judged = trainer(demos), trainer(demos)
    straight = [untimed(whole.iterate()) for _ in range(5)]
    parts = [untimed(judged.iterate()) for _ in range(2)]
    start, state = constant(0.0), torch.get_rng_state()
    first = judge(judged, demos, start)
    assert judge(judged, demos, start) == first  # the same run, the same verdict
    assert torch.equal(torch.get_rng_state(), state)
    parts += [untimed(judged.iterate()) for _ in range(3)]
    assert parts == straight
    for a, b in zip(whole.policy.parameters(), judged.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_true_reward_does_not_matter(demos: list[Episode]):
    """Demos with false rewards get the same verdict."""
    false = [dataclasses.replace(e, rewards=np.full(STEPS, 1e6, np.float32)) for e in demos]
    assert verdict_on(swinging(), constant(0.0), false) == verdict_on(swinging(), constant(0.0), demos)


@pytest.mark.parametrize(
    ("evidence", "word", "reason"),
    [
        (GOOD, "converged", "it does what the demos show"),
        (changed(held_out_auc=1.0, discriminator_loss=0.01), "converged", "it does what the demos show"),
        (changed(log_z_drift=None), "converged", "it does what the demos show"),
        (changed(energy_distance=0.5), "not converged", "still 0.5 from the demos"),
        (changed(energy_distance=2.0), "collapsed", "further from the demos than its own start"),
        (changed(energy_distance=0.5, variety=0.01), "collapsed", "hardly moves"),
        (changed(energy_distance=0.5, held_out_auc=1.0, discriminator_loss=0.01), "collapsed", "saturated"),
        (changed(energy_distance=0.5, held_out_auc=1.0), "not converged", "still 0.5"),
        (changed(energy_distance=0.5, variety=0.01, variety_of_start=0.01), "not converged", "still 0.5"),
        (changed(broken=0.2), "inconclusive", "broke in 20% of the steps"),
        (changed(energy_distance_of_demos_max=2.0), "inconclusive", "differ from one another"),
    ],
)
def test_words(evidence: Evidence, word: str, reason: str):
    """Each word follows from one figure that differs from a good run's."""
    found = decide(evidence)
    assert found.word == word
    assert reason in found.reasons[0]
    assert found.sentence == f"{word}: {found.reasons[0]}"


def test_unrest_and_saturation_are_said_of_a_good_run():
    """They do not change the word, and stand among the reasons."""
    found = decide(changed(log_z_drift=3.0, held_out_auc=1.0))
    assert found.word == "converged"
    assert "moved by 3 deviations" in found.reasons[1] and "AUC 1.000" in found.reasons[2]


def test_policy_in_the_place_of_a_demo():
    """A demo handed in as the policy's episode in its own place measures exactly what that demo does."""
    demos = demos_of(swinging(), count=3)
    yardstick = Yardstick(demos, range(SPEC.obs_dim + SPEC.act_dim))
    rows = [np.concatenate([e.observations[:-1], e.actions], 1) for e in demos]
    assert yardstick.distance(rows) == pytest.approx(np.mean(yardstick.between_demos), abs=1e-12)
    assert yardstick.variety(rows) == pytest.approx(1.0, abs=1e-12)


def test_only_what_the_reward_looks_at_is_compared(demos: list[Episode]):
    """A policy that does the same in what counts is near the demos, whatever else differs, and the verdict says so."""
    rows = [np.concatenate([e.observations[:-1], e.actions], 1) for e in demos]
    strange = [np.concatenate([x[:, :2], 9.0 + x[:, 2:]], 1) for x in rows]
    yardstick = Yardstick(demos, [0, 1])
    assert yardstick.distance(strange) == yardstick.distance(rows) == pytest.approx(np.mean(yardstick.between_demos))
    assert Yardstick(demos, range(6)).distance(strange) > 10.0
    names = SPEC.observation_names
    for settings, compared in (
        ([], "states and actions"),
        (["reward.inputs=state"], "states"),
        ([f"reward.observe=[{names[1]}, {names[3]}]"], f"{names[1]}, {names[3]} and actions"),
        ([f"reward.observe=[{names[1]}]", "reward.inputs=state"], names[1]),
    ):
        found = judge(trainer(demos, swinging(), *settings), demos, constant(0.0))
        assert found.compared == compared and found.word == "converged"
        assert any(f"compared in {compared}: " in reason for reason in found.reasons) == bool(settings)


def test_a_plain_gans_auc_is_of_its_logit_without_log_q(demos: list[Episode]):
    """A reward that says nothing tells nothing apart in a plain GAN; in GAN-GCL log q still does."""
    auc = {}
    for objective in ("gail", "gan-gcl"):
        run = trainer(demos, constant(0.0), f"objective={objective}")
        for parameter in run.reward.net.parameters():
            torch.nn.init.zeros_(parameter)
        auc[objective] = judge(run, demos, constant(0.0)).held_out_auc
    assert auc["gail"] == 0.5 and auc["gan-gcl"] != 0.5


def test_a_potential_is_part_of_the_discriminators_logit(demos: list[Episode]):
    """AIRL's f is g + gamma h' - h: a large h changes the AUC, and that of a run without one has none."""
    run = trainer(demos, constant(0.0), "objective=airl", "reward.segment=1")
    before = judge(run, demos, constant(0.0)).held_out_auc
    assert run.reward.potential is not None
    with torch.no_grad():
        run.reward.potential[-1].weight.mul_(1000.0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert judge(run, demos, constant(0.0)).held_out_auc != before


def test_an_expert_run_cannot_be_judged(demos: list[Episode]):
    """No demos, no verdict; the message says what to do instead."""
    run = Trainer(
        SPEC, with_settings(TrainConfig(), [*SMALL, "objective=task-reward"]), [], lambda sim: np.zeros(sim.num_envs)
    )
    with pytest.raises(VerdictError, match="gcl eval"):
        judge(run, [], copy.deepcopy(run.policy))


def test_file_holds_everything(tmp_path: Path):
    """verdict.json is the record, word first, and replaces an older one whole."""
    found = decide(GOOD)
    write_verdict(tmp_path, decide(changed(broken=1.0)), {})
    path = write_verdict(tmp_path, found, {"path": "some.zarr"})
    data = json.loads(path.read_text())
    assert list(data)[:2] == ["word", "reasons"]
    assert data.pop("judged_by") == {"path": "some.zarr"}
    assert set(data) == {field.name for field in dataclasses.fields(Verdict)}
    assert data["held_out_auc"] == 0.6 and data["word"] == "converged"
    assert [p.name for p in tmp_path.iterdir()] == ["verdict.json"]
