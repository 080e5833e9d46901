"""Every setting of a training run, with its default, in one frozen tree.

Those of what improves the policy are in `generator_config.py`; no other file has defaults for these.

The resolved tree travels as JSON in the checkpoint and in the bundle, so that a result can say how it came about.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from toolkit.generator_config import PpoConfig, SacConfig
from toolkit.settings import above_0, at_least_0, at_least_1, build, one_of, put, require

ADVERSARIAL = ("gan-gcl", "gcl", "gail", "airl")  # learn a reward from demos, and a policy against it
FROM_DEMOS = (*ADVERSARIAL, "bc", "constant")
OBJECTIVES = (*FROM_DEMOS, "reward", "task-reward", "offline")
WITHOUT_REWARD = ("bc", "constant", "task-reward")  # learn none and are given none
GENERATORS = ("ppo", "sac")
_LEAST_SEGMENTS = 16  # of each kind per update, however long they are
_EXACT_SHARE = 0.1  # of a run whose temper is annealed, at its end
REWARD_INPUTS = ("state-action", "state")
LOG_Z = ("solved", "adam")
WEIGHTINGS = ("agreement", "equal")
EXPERT_LOG_Q = ("fresh", "stale")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class PolicyConfig:
    """The generator's networks: a diagonal Gaussian policy and a state value."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of policy and value network."""
    log_std_init: float = -0.5
    """Natural log of the standard deviation the policy starts with, in action units."""
    log_std_min: float = -3.0
    """Floor of log std: below it, log q of the expert's actions falls without bound."""
    log_std_max: float = 0.0
    """Ceiling of log std: actions beyond [-1, 1] are clipped, so more noise would only look like entropy."""
    warm_start: int = 10_000
    """Gradient steps of behaviour cloning before the policy acts; 0 starts from nothing."""

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        at_least_0("policy.warm_start", self.warm_start)
        low, high = self.log_std_min, self.log_std_max
        require(low <= high, f"policy.log_std_min {low}; must not be above log_std_max {high}")


@dataclass(frozen=True)
class RewardConfig:
    """The reward r_psi, and the discriminator D = sigmoid(temper * (r/alpha - log Z - log q)) that teaches it."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of r_psi: small, so that a few demos are not memorised."""
    inputs: str = "state-action"
    """What r_psi looks at: "state-action", or "state", which carries over to a changed robot and needs no actions."""
    observe: tuple[str, ...] = ()
    """What of the observation r_psi looks at: terms of robot.yaml such as "velocity_xz", or elements of one such as
    "position/rooty"; empty for all. On what it does not see it cannot insist."""
    shaping: bool | None = None
    """Whether a potential h(s) is learned beside r_psi: f = r + gamma h(s') - h(s); None means: for "airl" only."""
    segment: int = 32
    """L, steps per scored segment; 0 means the whole episode (exact GAN-GCL). With 1 nothing is learned of what comes
    after the end of a task (`terminate` of robot.yaml), and its value is 0."""
    alpha: float = 0.02
    """Temperature of the maximum-entropy policy, the same in the discriminator and for the generator."""
    temper: float | None = None
    """Factor on the logit in (0, 1]; None means alpha / L, which keeps the logit within about 10; 1 is exact."""
    anneal: float = 0.0
    """Share of the run over which temper rises, by equal factors, to 1 (the exact objective), in [0, 0.9]; 0 keeps it.
    It is tempered before that and exact in the last tenth: an exact discriminator tells whole episodes apart without
    fail, and then learns no more, so it has to come when the reward is made."""
    gradient_penalty: float = 0.3
    """Weight of E |grad r_psi|^2 at points between expert and policy, in normalised units."""
    expert_jitter: float = 0.05
    """Std of Gaussian noise added to the expert's actions [action units]: a density needs a width."""
    learning_rate: float = 1e-3
    """Adam step of r_psi."""
    updates: int = 8
    """Discriminator updates per iteration."""
    batch_steps: int | None = None
    """Steps of each kind per discriminator update, as segments, never fewer than 16 of them; None means 4096, with
    generator "sac", whose iterations are shorter, 2048."""
    log_z: str = "solved"
    """How log Z is found: "solved" on each batch, or "adam", a parameter with a step size of its own (an ablation)."""
    memory: float = 0.0
    """Share of the policy's segments per update that come from all the run's policies so far, in [0, 1): with it the
    reward stays a guide far from the last policy, which `--objective reward` needs."""
    panel: int = 0
    """Snapshots of r_psi, taken evenly over the run; what the strictest of them says is the run's reward, which then
    guides a new policy. 0 for the last r_psi alone."""
    expert_log_q: str = "fresh"
    """Under which policy the expert is scored: the present one, or "stale", the first (the published fault)."""

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        for name in ("updates", "batch_steps"):
            at_least_1(f"reward.{name}", getattr(self, name))
        above_0("reward.alpha", self.alpha)
        for name in ("gradient_penalty", "expert_jitter", "segment", "panel", "learning_rate"):
            at_least_0(f"reward.{name}", getattr(self, name))
        for name, legal in (("inputs", REWARD_INPUTS), ("log_z", LOG_Z), ("expert_log_q", EXPERT_LOG_Q)):
            one_of(f"reward.{name}", getattr(self, name), legal)
        longest, temper = 1.0 - _EXACT_SHARE, self.temper
        require(0.0 <= self.anneal <= longest, f"reward.anneal {self.anneal}; must be in [0, {longest}]")
        require(temper is None or 0.0 < temper <= 1.0, f"reward.temper {temper}; must be in (0, 1]")
        require(0.0 <= self.memory < 1.0, f"reward.memory {self.memory}; must be in [0, 1)")

    @property
    def batch_segments(self) -> int:
        """Segments of each kind per update, of resolved settings."""
        assert self.batch_steps is not None, "resolved settings hold a number"
        return max(_LEAST_SEGMENTS, self.batch_steps // self.segment)

    @property
    def batch_updates(self) -> int:
        """Updates per iteration, of resolved settings: long segments mean fewer, so that the work stays what it is."""
        assert self.batch_steps is not None, "resolved settings hold a number"
        return max(1, self.updates * self.batch_steps // (self.batch_segments * self.segment))

    def temper_at(self, progress: float) -> float:
        """kappa at a share `progress` of the run: from `temper` to 1 by equal factors over `anneal`, 1 at the end."""
        assert self.temper is not None, "resolved settings hold a number"
        if self.anneal == 0.0:
            return self.temper
        risen = 1.0 - max(0.0, 1.0 - _EXACT_SHARE - progress) / self.anneal
        return self.temper ** (1.0 - max(0.0, risen))


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    objective: str = "gan-gcl"
    """What is learned, and from what.

    gan-gcl, gcl (maximum-entropy IRL by importance sampling), gail (plain GAN) and airl learn reward and policy from
    demos; bc clones the demos; constant is the control run, whose reward knows nothing; reward learns a policy from a
    frozen learned reward; task-reward learns one from the true reward, and makes experts; offline learns a reward from
    demos and recorded background (`gcl train --offline`).
    """
    generator: str = "ppo"
    """What improves the policy: "ppo" (on-policy, fast by the clock) or "sac" (off-policy, needs few steps)."""
    total_steps: int | None = None
    """Control steps of environment experience, over all environments: None means 2,000,000, with "sac" 200,000.
    Gradient steps of the reward when offline: None means 1,000."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """torch device of the networks; simulation is on the CPU."""
    threads: int = 2
    """torch threads and simulation threads."""
    weighting: str = "agreement"
    """How much each demo counts: "agreement" (less for those unlike the majority, `demos/agreement.py`) or "equal"."""
    randomize: bool = False
    """Whether each environment draws its own masses, friction, gains, delay and noise from `robot.yaml`'s randomize."""
    episode_steps: int | None = None
    """Control steps after which an episode of training is cut short (a truncation: V still looks ahead), so that
    beginnings are practised more often. None means `practice_seconds` of robot.yaml where a segment fits into them,
    0 a whole episode. Evaluation keeps whole episodes."""
    holdout: float | None = None
    """Share of each demo kept from the learner and used to measure overfitting. None means 0.1, but nothing of
    the only recording there is: nothing else shows the beginning, or whatever would be kept."""
    checkpoint_every: int = 50
    """Iterations between checkpoints."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    sac: SacConfig = field(default_factory=SacConfig)

    @property
    def held_out_share(self) -> float:
        """`holdout`, of resolved settings."""
        assert self.holdout is not None, "resolved settings hold a number"
        return self.holdout

    @property
    def acting(self) -> PpoConfig | SacConfig:
        """The settings of the generator in use, such as head start and discount."""
        return self.sac if self.generator == "sac" else self.ppo

    @property
    def num_envs(self) -> int:
        """Environments stepped side by side, of resolved settings."""
        assert self.acting.num_envs is not None, "resolved settings hold a number"
        return self.acting.num_envs

    @property
    def horizon(self) -> int:
        """Control steps per environment and iteration, of resolved settings."""
        assert self.acting.horizon is not None, "resolved settings hold a number"
        return self.acting.horizon

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        for name, legal in (("objective", OBJECTIVES), ("generator", GENERATORS), ("weighting", WEIGHTINGS)):
            one_of(name, getattr(self, name), legal)
        require(
            self.generator == "ppo" or self.objective != "task-reward",
            'generator "sac" keeps no rewards, so it cannot learn objective "task-reward"; use generator "ppo"',
        )
        for name in ("total_steps", "threads", "checkpoint_every"):
            at_least_1(name, getattr(self, name))
        at_least_0("seed", self.seed)
        at_least_0("episode_steps", self.episode_steps or 0)
        require(self.holdout is None or 0.0 <= self.holdout < 1.0, f"holdout {self.holdout}; must be in [0, 1)")
        require(self.device.split(":")[0] in DEVICES, f"device {self.device!r}; legal are {', '.join(DEVICES)}, cuda:1")
        reward = self.reward
        require(
            reward.memory == 0.0 or self.generator == "ppo",
            f'reward.memory {reward.memory} with generator "sac", whose replay is its memory; set it to 0',
        )
        for name in ("memory", "panel"):
            fits = getattr(reward, name) == 0 or self.objective in ADVERSARIAL
            require(fits, f"reward.{name} with objective {self.objective!r}; it goes with {', '.join(ADVERSARIAL)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data; `config_from_dict` is the inverse."""
        return dataclasses.asdict(self)


def config_from_dict(data: dict[str, Any]) -> TrainConfig:
    """Builds a TrainConfig from a (possibly partial) nested mapping, as read from YAML, JSON or a checkpoint.

    Args:
        data: Nested mapping; keys left out keep their defaults.

    Returns:
        The checked config.

    Raises:
        ConfigError: Unknown key, or a value of the wrong type or out of range.
    """
    return build(TrainConfig, data, "")


def with_settings(config: TrainConfig, settings: list[str]) -> TrainConfig:
    """Applies "--set" arguments such as "reward.alpha=0.03".

    Args:
        config: The config to start from.
        settings: Each "dotted.name=value", the value in YAML notation.

    Returns:
        A new config.

    Raises:
        ConfigError: Not of that form, unknown name, or a bad value.
    """
    data = config.to_dict()
    for setting in settings:
        put(data, setting)
    return config_from_dict(data)
