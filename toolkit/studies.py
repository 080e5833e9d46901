"""The list of studies behind `docs/learning.md`: which robots, demos, settings and seeds. Nothing but data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from toolkit.guide import GUIDE, GUIDE_STEPS
from toolkit.study import EVALUATION_EPISODES, Job, Study

DEMOS = 5  # of each robot, where nothing else is said
# Mean return that makes an expert a good one, by robot; demos under it are marked in the table
GOOD_EXPERT = {"cheetah": 600.0, "walker": 900.0, "cartpole": 800.0, "reacher": 900.0, "finger": 700.0, "hopper": 700.0}
# Control steps of training, by robot
STEPS = {
    "cheetah": 2_000_000,
    "walker": 2_500_000,
    "cartpole": 1_500_000,
    "reacher": 4_000_000,
    "finger": 1_500_000,
    "hopper": 4_000_000,
    "quadruped": 4_000_000,
    "humanoid": 200_000,
    "jaco": 300_000,
}
REACH, STRETCH = ("cheetah", "walker", "cartpole", "reacher", "finger", "hopper"), ("quadruped", "humanoid", "jaco")
# What is slow to simulate is learned by SAC, with twice its gradient steps and more of its own way
_BY_SAC = ("sac.updates_per_step=0.5", "sac.clone_weight=0.1")
STRETCHED: dict[str, dict[str, Any]] = {
    # Getting up is over in a few seconds. Under a policy that was sure of its own, log q of what 21 joints did before
    # was -2,400 a step, and the reward outgrew all bounds
    "humanoid": {
        "settings": (*_BY_SAC, "sac.negatives=mixture", "episode_steps=250"),
        "options": ("--generator", "sac"),
    },
    # Five demos show little of what six joints may do, and all of where the hand is to be
    "jaco": {
        "settings": (*_BY_SAC, "reward.inputs=state", "reward.observe=[pinch_from_target]"),
        "options": ("--generator", "sac"),
    },
}
# Five demos show five of all the places where a target may be: what else the arm does there is no part of the task
TOLD = {"reacher": ("reward.observe=[to_target,velocity]",)}
# Robots whose robot.yaml has training practise beginnings, and what becomes of them without
PRACTISED, WHOLE_EPISODES = ("walker", "finger", "hopper", "reacher"), ("episode_steps=0",)
HARD = ("cheetah", "walker")  # where the method has failed in print

# An exact discriminator of whole episodes never errs, so the reward it is annealed to has to be a guide by then
ANNEALED = ("reward.segment=0", "reward.anneal=0.4", "reward.memory=0.5")
EPISODE = {"tempered": ("reward.segment=0",), "annealed-to-exact": ANNEALED}
# As annealed but for the annealing: on the walker the memory is what brings the last beginnings
TEMPERED_MEMORY = ("reward.segment=0", "reward.memory=0.5")
FAMILY = {
    "gan-gcl segment": (),
    "gan-gcl episode": ("reward.segment=0",),
    "gcl": ("objective=gcl",),
    "gail": ("objective=gail",),
    "airl": ("objective=airl",),
    "bc": ("objective=bc",),
}
FAMILY_SECONDS = 150.0
ABLATION = {
    "as it ships": (),
    "temper 1 (exact logit)": ("reward.temper=1",),
    "stale log q": ("reward.expert_log_q=stale",),
    "no gradient penalty": ("reward.gradient_penalty=0",),
    "alpha 0.1": ("reward.alpha=0.1",),
    "log Z by Adam": ("reward.log_z=adam",),
    "alpha 0.03": ("reward.alpha=0.03",),
}
# No clone and no hold on the demos: the method alone, from random actions
SCRATCH = ("policy.warm_start=0", "ppo.demo_weight=0")
OFF_POLICY = ("--generator", "sac")
OFF_POLICY_STEPS = 200_000
REACH_EPISODES = 100  # twenty told 0.98 of a reacher that never went for one target in eight
# Arguments of a `gcl` command that says how learned and true return go together over graded policies, with {run} and
# {bundle}; its JSON has "pearson"
CORRELATION: tuple[str, ...] = ("eval", "{run}", "--graded", "12", "--json")
# What the policy that came with the reward does on the changed robot as it is
UNTRAINED: tuple[str, ...] = ("eval", "{run}", "--robot", "{robot}", "-n", str(EVALUATION_EPISODES), "--json")
# Changed robots by the robot whose demos are learned from: names or paths of robot.yaml
VARIANTS = {
    "cheetah": ("cheetah-long", "cheetah-lame", "cheetah-weak"),
    "walker": ("walker-long", "walker-lame", "walker-weak"),
}


@dataclasses.dataclass(frozen=True)
class Guide:
    """How a reward is learned that is to lead a new policy from random actions to the goal, and how that one learns."""

    settings: tuple[str, ...]
    """Of learning the reward."""
    steps: int
    """Control steps of learning the reward."""
    again_steps: int
    """Control steps of the new policy."""
    again_settings: tuple[str, ...]
    """Of the new policy."""
    again_options: tuple[str, ...] = ()
    """Further arguments of `gcl train` for the new policy."""
    reward: str | None = None
    """Name of the guide that has the same reward; None for its own."""


# What the torso does in the world, and not how the joints do it: else a changed robot is held to the expert's postures
_UPRIGHT = '"orientations/torso_x[0]", "orientations/torso_z[0]"'
TORSO = {
    "cheetah": "reward.observe=[position_z, position/rooty, velocity_xz, velocity/rooty]",
    "walker": f"reward.observe=[height, {_UPRIGHT}, velocity_zx, velocity/rooty]",
}
# Control steps and settings of a new policy. A walker gets up in far fewer steps by SAC than by PPO
AGAIN = {
    "cheetah": (4_000_000, ("reward.alpha=0.1",)),
    "walker": (500_000, ("generator=sac", "reward.alpha=0.05")),
}
# On a changed robot there is a policy to begin with, the one that the reward was learned with
CONTINUED_STEPS = {"cheetah": 4_000_000, "walker": 2_000_000}
CONTINUED = (("reward.alpha=0.1",), ("--start", "{run}"))


def guides(robot: str) -> dict[str, Guide]:
    """The settings that are compared, by name.

    Args:
        robot: One of `TORSO`.

    Returns:
        The guides.
    """
    torso = (*GUIDE, TORSO[robot])
    return {
        "torso strictest": Guide(torso, GUIDE_STEPS, *AGAIN[robot]),
        "torso strictest continued": Guide(
            torso, GUIDE_STEPS, CONTINUED_STEPS[robot], *CONTINUED, reward="torso strictest"
        ),
        "strictest": Guide(GUIDE, GUIDE_STEPS, *AGAIN[robot]),
    }


REOPTIMISED = ("torso strictest", "strictest")
TRANSFERRED = ("torso strictest continued", "torso strictest")
TRUTH_STEPS = 4_000_000  # of the policy that a new one on a changed robot is measured against

SMOKE_STEPS = {"cartpole": 1_500_000, "reacher": 2_000_000}
CONTROL = ("objective=constant",)
NOT_BY_DEFAULT = ("smoke", "control")

_EVALUATE_OFTEN = ("--eval-every", "10")
_EVALUATE_BRIEFLY = ("--eval-episodes", "1")  # the curve; what counts is measured at the end, on many more


def all_studies(seeds: int) -> dict[str, Study]:
    """Every study by name, in the order they are run.

    Args:
        seeds: How many seeds of each setting: 0, 1, ...

    Returns:
        The studies.
    """
    studies = (_reach, _stretch, _episode, _few, _clock, _reoptimise, _transfer, _family, _ablation, _scratch)
    made = [study(range(seeds)) for study in studies] + [_smoke(), _control(range(seeds))]
    return {study.name: study for study in made}


def _job(study: str, robot: str, name: str, seed: int, settings: tuple[str, ...] = (), **more: Any) -> Job:
    """As most jobs are; `more` are the fields of a Job in which this one differs."""
    return dataclasses.replace(
        Job(study, name, robot, robot, DEMOS, settings, seed, STEPS[robot], options=_EVALUATE_BRIEFLY), **more
    )


def _reach(seeds: Sequence[int]) -> Study:
    how = {"at_least": 0.98, "episodes": REACH_EPISODES}
    jobs = [_job("reach", robot, "segment", seed, TOLD.get(robot, ()), **how) for robot in REACH for seed in seeds]
    target = ">= 0.98, no seed under 0.9"
    return Study("reach", "segment-level GAN-GCL from 5 demos", target, tuple(jobs), no_seed_under=0.9)


def _stretch(seeds: Sequence[int]) -> Study:
    cases = [(robot, seed) for robot in STRETCH for seed in seeds]
    jobs = [_job("stretch", robot, "segment", seed, **STRETCHED.get(robot, {})) for robot, seed in cases]
    return Study("stretch", "the same on robots with more joints", "as far as two cores take it", tuple(jobs))


def _episode(seeds: Sequence[int]) -> Study:
    cases = [(robot, name, seed) for robot in HARD for name in EPISODE for seed in seeds]
    jobs = [_job("episode", robot, name, seed, EPISODE[name], at_least=0.95) for robot, name, seed in cases]
    jobs += [_job("episode", "walker", "tempered-memory", seed, TEMPERED_MEMORY, at_least=0.95) for seed in seeds]
    return Study("episode", "whole-episode GAN-GCL, 1,000 steps", ">= 0.95", tuple(jobs))


def _few(seeds: Sequence[int]) -> Study:
    cases = [(robot, seed) for robot in HARD for seed in seeds]
    one = [_job("few", robot, "1 demo", seed, count=1, at_least=0.95) for robot, seed in cases]
    # Measured against the good demos, since the bad ones would lower the mark as well
    mixed = [
        _job("few", robot, "2 of 5 bad", seed, demos=f"{robot}_mixed", yardstick=robot, at_least=0.9)
        for robot, seed in cases
    ]
    target = "1 demo >= 0.95; with 2 demos of 5 at half the return >= 0.9 of the good ones"
    return Study("few", "few demos, and bad ones among them", target, (*one, *mixed))


def _clock(seeds: Sequence[int]) -> Study:
    often = {"threads": 2, "options": _EVALUATE_OFTEN, "at_least": 0.95}
    on = [_job("clock", "cheetah", "2 threads alone", seed, **often) for seed in seeds]
    sac = {"steps": OFF_POLICY_STEPS, "options": OFF_POLICY, "at_least": 0.9}
    off = [_job("clock", "cheetah", "off-policy", seed, **sac) for seed in seeds]
    target = "0.95 within 120 s of training on 2 cores; off-policy 0.9 within 200,000 steps"
    return Study("clock", "how soon", target, (*on, *off))


def _reoptimise(seeds: Sequence[int]) -> Study:
    how = {"kind": "reoptimise", "measure_too": CORRELATION, "at_least": 0.9, "correlation_at_least": 0.95}
    jobs = [_guided("reoptimise", robot, name, seed, **how) for name in REOPTIMISED for robot in HARD for seed in seeds]
    plain = [_job("reoptimise", "cheetah", "from scratch", seed, **how) for seed in seeds]
    target = ">= 0.9 of the policy trained with it; Pearson >= 0.95"
    return Study("reoptimise", "a new policy from the frozen exported reward", target, (*jobs, *plain))


def _transfer(seeds: Sequence[int]) -> Study:
    # Robots and seeds vary first: jobs side by side then do not wait for a reward that they share
    cases = [
        (robot, variant, seed)
        for changed in zip(*VARIANTS.values(), strict=True)
        for robot, variant in zip(VARIANTS, changed, strict=True)
        for seed in seeds
    ]
    how = {"kind": "transfer", "at_least": 0.8, "truth_steps": TRUTH_STEPS, "measure_too": UNTRAINED}
    jobs = [
        _guided("transfer", robot, name, seed, variant=variant, **how)
        for name in TRANSFERRED
        for robot, variant, seed in cases
    ]
    target = ">= 0.8 of a policy trained there on the true reward"
    return Study("transfer", "the frozen reward on a changed robot", target, tuple(jobs))


def _guided(study: str, robot: str, name: str, seed: int, **more: Any) -> Job:
    """A job whose reward is learned as the guide of that name is."""
    guide = guides(robot)[name]
    new = {name: getattr(guide, name) for name in ("again_steps", "again_settings", "again_options", "reward")}
    return _job(study, robot, name, seed, guide.settings, steps=guide.steps, **new, **more)


def _family(seeds: Sequence[int]) -> Study:
    # Steps without end, since time is what is equal; settings that go by the share of the run would mean nothing here
    limit = {"steps": 10**9, "seconds": FAMILY_SECONDS, "options": _EVALUATE_OFTEN}
    cases = [(robot, name, seed) for robot in HARD for name in FAMILY for seed in seeds]
    jobs = [_job("family", robot, name, seed, FAMILY[name], **limit) for robot, name, seed in cases]
    meaning = f"the objectives on the same 5 demos, {FAMILY_SECONDS:.0f} s of training each"
    return Study("family", meaning, "a comparison", tuple(jobs))


def _ablation(seeds: Sequence[int]) -> Study:
    cases = [(name, seed) for name in ABLATION for seed in seeds]
    jobs = [_job("ablation", "cheetah", name, seed, ABLATION[name]) for name, seed in cases]
    jobs += [
        _job("ablation", robot, "whole episodes", seed, WHOLE_EPISODES)
        for robot in PRACTISED
        if robot not in TOLD
        for seed in seeds
    ]
    for robot, told in TOLD.items():  # twenty episodes would not see what these two cost
        for name, settings in (("whole episodes", (*told, *WHOLE_EPISODES)), ("reward of all that is observed", ())):
            jobs += [_job("ablation", robot, name, seed, settings, episodes=REACH_EPISODES) for seed in seeds]
    return Study("ablation", "one thing changed at a time: what makes it work", "an explanation", tuple(jobs))


def _scratch(seeds: Sequence[int]) -> Study:
    cases = [(name, seed) for name in ABLATION for seed in seeds]
    jobs = [_job("scratch", "cheetah", name, seed, (*SCRATCH, *ABLATION[name])) for name, seed in cases]
    return Study("scratch", "the ablation without clone or hold on the demos", "an explanation", tuple(jobs))


def _smoke() -> Study:
    how = {"options": _EVALUATE_OFTEN, "at_least": 0.9}
    jobs = [
        _job("smoke", robot, "segment", 0, TOLD.get(robot, ()), steps=steps, **how)
        for robot, steps in SMOKE_STEPS.items()
    ]
    meaning = "two robots, one seed, two minutes: does learning still work at all"
    return Study("smoke", meaning, ">= 0.9, or the exit code is 1", tuple(jobs), no_seed_under=0.9, gate=True)


def _control(seeds: Sequence[int]) -> Study:
    jobs = [_job("control", robot, "constant reward", seed, CONTROL) for robot in REACH for seed in seeds]
    meaning = "a reward that knows nothing: what cloning and the set-up alone earn"
    return Study("control", meaning, "far from 1, or the other figures mean little", tuple(jobs))
