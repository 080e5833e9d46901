"""Settings of the generators, on-policy and off-policy: what improves the policy against a reward."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.settings import above_0, at_least_0, at_least_1, one_of, require

NEGATIVES = ("current", "mixture")


@dataclass(frozen=True)
class PpoConfig:
    """The on-policy generator: clipped-surrogate policy gradient over the batched simulator."""

    num_envs: int | None = None
    """Environments stepped side by side. None means 256, with segments of more than 256 steps 64: a whole episode then
    spans few iterations, and what the judge is shown of the policy is no dozens of policies old."""
    horizon: int | None = None
    """Control steps per environment and iteration. None means 32, with segments of more than 256 steps 128."""
    epochs: int = 4
    """Passes over each iteration's samples."""
    minibatches: int = 4
    """Gradient steps per pass."""
    head_start: int = 10
    """Iterations at the beginning in which reward and value learn and the policy waits: a cloned policy is soon spoilt
    by a judge who knows nothing."""
    demo_weight: float = 0.1
    """Weight of -E_demo[log q] beside the surrogate, at the start: holds the policy near the demos while the judge
    knows little (Rajeswaran et al. 2018, DAPG, arXiv 1709.10087)."""
    demo_fade: float = 0.5
    """Share of the run over which `demo_weight` falls to 0, in a straight line."""
    restarts: int = 0
    """How often, in equal parts of the run, policy and value begin anew from random weights while the reward goes on
    learning. A new policy finds what it praises by mistake, and with `reward.memory` it does not forget that."""
    learning_rate: float = 3e-4
    """Adam step at the start; adapted so that the KL divergence per iteration stays near `target_kl`."""
    target_kl: float = 0.01
    """KL divergence between successive policies to aim for [nats]; 0 keeps the learning rate fixed."""
    discount: float = 0.995
    """gamma of the generator's return."""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation."""
    clip: float = 0.2
    """Clip range of the probability ratio."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Gradient norm is clipped to this."""

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        for name in ("num_envs", "horizon", "epochs", "minibatches"):
            at_least_1(f"ppo.{name}", getattr(self, name))
        for name in ("clip", "max_grad_norm"):
            above_0(f"ppo.{name}", getattr(self, name))
        others = ("head_start", "demo_weight", "demo_fade", "restarts", "learning_rate", "target_kl", "value_weight")
        for name in others:
            at_least_0(f"ppo.{name}", getattr(self, name))
        require(0.0 < self.discount <= 1.0, f"ppo.discount {self.discount}; must be in (0, 1]")
        require(0.0 <= self.gae_lambda <= 1.0, f"ppo.gae_lambda {self.gae_lambda}; must be in [0, 1]")


@dataclass(frozen=True)
class SacConfig:
    """The off-policy generator: soft actor-critic on remembered steps. Its temperature is `reward.alpha`."""

    num_envs: int = 16
    """Environments stepped side by side."""
    horizon: int = 32
    """Control steps per environment and iteration."""
    capacity: int = 200_000
    """Steps remembered, over all environments."""
    updates_per_step: float = 0.25
    """Gradient steps of the critics per step of experience."""
    policy_delay: int = 2
    """Gradient steps of the critics per gradient step of the policy."""
    batch: int = 128
    """Steps per gradient step."""
    demo_share: float = 0.25
    """Share of each batch that comes from the demos, labelled like the rest; in [0, 1)."""
    clone_weight: float = 1.0
    """Weight of the mean squared distance from the demos' actions in the policy's loss, in units of the spread of Q; 0
    for none. Needs a `demo_share`. It keeps a cloned start from being lost while the critics know little."""
    head_start: int = 10
    """Iterations at the beginning in which reward and critics learn and the policy waits."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of the critics."""
    policy_learning_rate: float = 3e-4
    """Adam step of the policy."""
    critic_learning_rate: float = 1e-3
    """Adam step of the critics."""
    tau: float = 0.01
    """Share by which the target networks move toward the critics at each gradient step."""
    discount: float = 0.99
    """gamma of the generator's return."""
    negatives: str = "current"
    """What scores the discriminator's negatives: "current", the present policy, whoever acted; "mixture", the exact
    density of the uniform mixture of up to 20 past policies, for many joints: where the present policy is sure of its
    own, log q of old actions falls without bound, and the reward outgrows it."""
    negatives_rows: int = 0
    """The negatives come from this many of the newest steps of each environment; 0 means from all."""
    segments: int = 256
    """Segments of negatives drawn from the replay at each iteration; at most four batches of the discriminator."""

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        for name in ("num_envs", "horizon", "capacity", "policy_delay", "batch", "segments"):
            at_least_1(f"sac.{name}", getattr(self, name))
        for name in ("discount", "tau"):
            require(0.0 < getattr(self, name) <= 1.0, f"sac.{name} {getattr(self, name)}; must be in (0, 1]")
        for name in ("head_start", "negatives_rows", "clone_weight", "policy_learning_rate", "critic_learning_rate"):
            at_least_0(f"sac.{name}", getattr(self, name))
        above_0("sac.updates_per_step", self.updates_per_step)
        require(0.0 <= self.demo_share < 1.0, f"sac.demo_share {self.demo_share}; must be in [0, 1)")
        one_of("sac.negatives", self.negatives, NEGATIVES)
