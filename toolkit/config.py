"""Every setting of a training run, with its default, in one frozen tree. No other file has defaults for these.

The resolved tree travels as JSON in the checkpoint and in the bundle, so that a result can say how it came about.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from robots.spec import ToolkitError

OBJECTIVES = ("gan-gcl", "task-reward")
GENERATORS = ("ppo", "sac")
NEGATIVES = ("current", "mixture")
DEVICES = ("cpu", "cuda")


class ConfigError(ToolkitError):
    """A setting that does not exist or has an impossible value."""


@dataclass(frozen=True)
class PolicyConfig:
    """The generator's networks: a diagonal Gaussian policy and a state value."""

    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of policy and value network."""
    log_std_init: float = -1.2
    """Natural log of the standard deviation the policy starts with, in action units."""
    log_std_min: float = -3.0
    """Floor of log std: below it, log q of the expert's actions falls without bound."""
    log_std_max: float = 0.0
    """Ceiling of log std: actions beyond [-1, 1] are clipped, so more noise would only look like entropy."""
    warm_start: int = 2000
    """Gradient steps of behaviour cloning before the policy acts; 0 starts from nothing."""


@dataclass(frozen=True)
class RewardConfig:
    """The reward r_psi, and the discriminator D = sigmoid(temper * (r/alpha - log Z - log q)) that teaches it."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of r_psi: small, so that a few demos are not memorised."""
    segment: int = 32
    """L, steps per scored segment; 0 means the whole episode (exact GAN-GCL)."""
    alpha: float = 0.005
    """Temperature of the maximum-entropy policy, the same in the discriminator and for the generator."""
    temper: float | None = None
    """Factor on the logit in (0, 1]; None means alpha / L, which keeps the logit within about 10; 1 is exact."""
    gradient_penalty: float = 0.3
    """Weight of E |grad r_psi|^2 at points between expert and policy, in normalised units."""
    expert_jitter: float = 0.05
    """Std of Gaussian noise added to the expert's actions [action units]: a density needs a width."""
    learning_rate: float = 1e-3
    """Adam step of r_psi."""
    updates: int = 8
    """Discriminator updates per iteration."""
    batch_segments: int = 256
    """Segments of each kind per discriminator update."""


@dataclass(frozen=True)
class PpoConfig:
    """The on-policy generator: clipped-surrogate policy gradient over the batched simulator."""

    num_envs: int = 256
    """Environments stepped side by side."""
    horizon: int = 32
    """Control steps per environment and iteration; raised to L when segments are longer."""
    epochs: int = 4
    """Passes over each iteration's samples."""
    minibatches: int = 4
    """Gradient steps per pass."""
    head_start: int = 10
    """Iterations at the beginning in which reward and value learn and the policy waits: a cloned policy is soon spoilt
    by a judge who knows nothing."""
    learning_rate: float = 3e-4
    """Adam step at the start; adapted so that the KL divergence per iteration stays near `target_kl`."""
    target_kl: float = 0.02
    """KL divergence between successive policies to aim for [nats]; 0 keeps the learning rate fixed."""
    discount: float = 0.99
    """gamma of the generator's return."""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation."""
    clip: float = 0.2
    """Clip range of the probability ratio."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Gradient norm is clipped to this."""


@dataclass(frozen=True)
class SacConfig:
    """The off-policy generator: soft actor-critic on remembered steps. Its temperature is `reward.alpha`."""

    num_envs: int = 16
    """Environments stepped side by side."""
    horizon: int = 32
    """Control steps per environment and iteration; raised to L when segments are longer."""
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
    density of the uniform mixture of up to 20 past policies."""
    negatives_rows: int = 0
    """The negatives come from this many of the newest steps of each environment; 0 means from all."""
    segments: int = 256
    """Segments of negatives drawn from the replay at each iteration."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    objective: str = "gan-gcl"
    """What is learned: "gan-gcl" (reward and policy from demos) or "task-reward" (policy only; makes experts)."""
    generator: str = "ppo"
    """What improves the policy: "ppo" (on-policy, fast by the clock) or "sac" (off-policy, needs few steps)."""
    total_steps: int | None = None
    """Control steps of environment experience, over all environments; None means 2,000,000, with "sac" 200,000."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """torch device of the networks; simulation is on the CPU."""
    threads: int = 2
    """torch threads and simulation threads."""
    holdout: float = 0.1
    """Share of each demo kept from the learner and used to measure overfitting."""
    checkpoint_every: int = 50
    """Iterations between checkpoints."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    sac: SacConfig = field(default_factory=SacConfig)

    @property
    def acting(self) -> PpoConfig | SacConfig:
        """The settings of the generator in use: environments, horizon and head start."""
        return self.sac if self.generator == "sac" else self.ppo

    def __post_init__(self) -> None:
        """Refuses values no run can use."""
        _require(self.objective in OBJECTIVES, f"objective {self.objective!r}; legal are {', '.join(OBJECTIVES)}")
        _require(self.generator in GENERATORS, f"generator {self.generator!r}; legal are {', '.join(GENERATORS)}")
        _require(
            self.generator == "ppo" or self.objective != "task-reward",
            'generator "sac" keeps no rewards, so it cannot learn objective "task-reward"; use generator "ppo"',
        )
        for name in ("total_steps", "threads", "checkpoint_every"):
            _require(
                getattr(self, name) is None or getattr(self, name) >= 1,
                f"{name} {getattr(self, name)}; must be at least 1",
            )
        _require(0.0 <= self.holdout < 1.0, f"holdout {self.holdout}; must be in [0, 1)")
        _require(
            self.device.split(":")[0] in DEVICES, f"device {self.device!r}; legal are {', '.join(DEVICES)}, cuda:1"
        )
        reward, ppo = self.reward, self.ppo
        _require(reward.segment >= 0, f"reward.segment {reward.segment}; must be >= 1, or 0 for the whole episode")
        _require(reward.alpha > 0.0, f"reward.alpha {reward.alpha}; must be positive")
        _require(
            reward.temper is None or 0.0 < reward.temper <= 1.0, f"reward.temper {reward.temper}; must be in (0, 1]"
        )
        for name in ("updates", "batch_segments"):
            _require(getattr(reward, name) >= 1, f"reward.{name} {getattr(reward, name)}; must be at least 1")
        for name in ("num_envs", "horizon", "epochs", "minibatches"):
            _require(getattr(ppo, name) >= 1, f"ppo.{name} {getattr(ppo, name)}; must be at least 1")
        _require(0.0 < ppo.discount <= 1.0, f"ppo.discount {ppo.discount}; must be in (0, 1]")
        sac = self.sac
        for name in ("num_envs", "horizon", "capacity", "policy_delay", "batch", "segments"):
            _require(getattr(sac, name) >= 1, f"sac.{name} {getattr(sac, name)}; must be at least 1")
        for name in ("discount", "tau"):
            _require(0.0 < getattr(sac, name) <= 1.0, f"sac.{name} {getattr(sac, name)}; must be in (0, 1]")
        _require(sac.updates_per_step > 0.0, f"sac.updates_per_step {sac.updates_per_step}; must be positive")
        _require(0.0 <= sac.demo_share < 1.0, f"sac.demo_share {sac.demo_share}; must be in [0, 1)")
        _require(sac.clone_weight >= 0.0, f"sac.clone_weight {sac.clone_weight}; must be >= 0")
        _require(sac.negatives in NEGATIVES, f"sac.negatives {sac.negatives!r}; legal are {', '.join(NEGATIVES)}")

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
    return _build(TrainConfig, data, "")


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
    import yaml

    data = config.to_dict()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"setting {setting!r}: expected name=value, such as reward.alpha=0.03")
        *parents, leaf = name.split(".")
        node = data
        for parent in parents:
            node = node.get(parent)
            if not isinstance(node, dict):
                raise ConfigError(f"setting {name!r}: no group {parent!r}")
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"setting {name!r}: {text!r} is not a value in YAML notation") from error
    return config_from_dict(data)


def _build(cls: type, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{where or 'settings'}: expected a mapping, got {data!r}")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"unknown setting {where}{key}{hint}; legal are {', '.join(hints)}")
        values[key] = _convert(hints[key], value, f"{where}{key}")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{where}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if typing.get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and all(
            isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value
        ):
            return tuple(value)
        raise ConfigError(f"{where}: expected a list of positive whole numbers, got {value!r}")
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # text too: YAML reads 1e-3, without a point, as text
        except ValueError:
            raise ConfigError(f"{where}: expected float, got {value!r}") from None
    if kind is not float and isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
