"""The three networks: policy q_theta, value V, reward r_psi. Each carries its own input normaliser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robots.spec import RobotSpec
from toolkit.config import PolicyConfig, RewardConfig
from toolkit.normalizer import RunningNormalizer
from toolkit.settings import require
from toolkit.tanh import Tanh


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int, last_gain: float) -> nn.Sequential:
    """Multi-layer perceptron with tanh units and orthogonal weights.

    Args:
        inputs: Input features.
        hidden: Widths of the hidden layers.
        outputs: Output features.
        last_gain: Gain of the last layer; small values start the output near zero.

    Returns:
        The network, (..., inputs) -> (..., outputs).
    """
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [_linear(width, size, math.sqrt(2.0)), Tanh()]
        width = size
    return nn.Sequential(*layers, _linear(width, outputs, last_gain))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class GaussianPolicy(nn.Module):
    """q_theta(a | s): a diagonal Gaussian whose samples are clipped to [-1, 1], sigma independent of s.

    The density is that of the action the robot is sent: a Gaussian inside, a point mass at each limit. So a demo that
    was driven into its limits is scored exactly, and a mean beyond the limits gains nothing.
    """

    def __init__(
        self, obs_dim: int, act_dim: int, hidden: tuple[int, ...], log_std: tuple[float, float, float]
    ) -> None:
        """Builds the network.

        Args:
            obs_dim: Observation features.
            act_dim: Action elements.
            hidden: Widths of the hidden layers.
            log_std: Initial, least and greatest log standard deviation.
        """
        super().__init__()
        initial, self.log_std_min, self.log_std_max = log_std
        self.normalizer = RunningNormalizer(obs_dim)
        self.mean_net = mlp(obs_dim, hidden, act_dim, last_gain=0.01)
        self.log_std_raw = nn.Parameter(torch.full((act_dim,), initial))

    @property
    def log_std(self) -> Tensor:
        """(act_dim,) log standard deviation within its limits."""
        return self.log_std_raw.clamp(self.log_std_min, self.log_std_max)

    def forward(self, observation: Tensor) -> Tensor:
        """Mean before clipping (..., act_dim) for `observation` (..., obs_dim)."""
        return self.mean_net(self.normalizer(observation))

    def sample(self, observation: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws actions.

        Args:
            observation: (..., obs_dim).
            generator: Source of randomness, or None for torch's global one.

        Returns:
            Action (..., act_dim) in [-1, 1] and its log density log q(a | s), (...).
        """
        mean = self(observation)
        action = self.around(mean, generator)
        return action, clipped_gaussian_log_prob(action, mean, self.log_std)

    def around(self, mean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws actions (..., act_dim) in [-1, 1] for a `mean` (..., act_dim) that this network gave."""
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return (mean + self.log_std.exp() * noise).clamp(-1.0, 1.0)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """log q(a | s), (...), for `observation` (..., obs_dim) and `action` (..., act_dim)."""
        return clipped_gaussian_log_prob(action, self(observation), self.log_std)


def clipped_gaussian_log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log density of clip(x, -1, 1), x ~ Normal(mu, diag(sigma^2)).

    Source: Fujita and Maeda 2018, "Clipped action policy gradient" (arXiv 1802.07564).

    Inside the limits it is the Gaussian's, -1/2 z^2 - log sigma - 1/2 log 2 pi with z = (a - mu) / sigma; at a limit it
    is the log probability of lying beyond it, log Phi((mu - 1) / sigma) or log Phi((-1 - mu) / sigma).

    Args:
        action: (..., d); elements at or beyond a limit count as being at it.
        mean: (..., d) mu.
        log_std: (d,) log sigma.

    Returns:
        (...) log density, summed over the elements, which are independent.
    """
    sign = action.sign()
    limited = action.abs() >= 1.0
    # Each branch is fed numbers it is finite for: a NaN in the branch not taken would poison the gradient.
    inside = (torch.where(limited, mean.detach(), action) - mean) / log_std.exp()
    beyond = torch.where(limited, (sign * mean - 1.0) / log_std.exp(), 0.0)
    density = -0.5 * inside.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    return torch.where(limited, torch.special.log_ndtr(beyond), density).sum(-1)


class ValueNetwork(nn.Module):
    """V(s), in units of a running scale so that a reward that grows while it is learned does not drag V behind."""

    shift: Tensor  # () return units
    scale: Tensor  # () return units

    def __init__(self, obs_dim: int, hidden: tuple[int, ...]) -> None:
        """Builds the network for `obs_dim` features."""
        super().__init__()
        self.net = mlp(obs_dim, hidden, 1, last_gain=1.0)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, normalized_observation: Tensor) -> Tensor:
        """Standardised value (...) for an observation (..., obs_dim) already normalised by the policy's normaliser."""
        return self.net(normalized_observation).squeeze(-1)

    def unscale(self, value: Tensor) -> Tensor:
        """Return units from standardised ones."""
        return value * self.scale + self.shift

    def rescale(self, returns: Tensor) -> Tensor:
        """Standardised units from return units."""
        return (returns - self.shift) / self.scale

    @torch.no_grad()
    def track(self, returns: Tensor, rate: float = 0.1) -> None:
        """Moves shift and scale toward those of `returns` (any shape), and keeps V(s) in return units unchanged.

        Source: Pop-Art, van Hasselt et al. 2016 (arXiv 1602.07714), equations 4 and 5.
        """
        rate = 1.0 if float(self.scale) == 1.0 and float(self.shift) == 0.0 else rate
        shift = self.shift + rate * (returns.mean() - self.shift)
        scale = (self.scale + rate * (returns.std() - self.scale)).clamp_min(1e-4)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(self.scale / scale)
        last.bias.copy_((self.scale * last.bias + self.shift - shift) / scale)
        self.shift.copy_(shift)
        self.scale.copy_(scale)


class RewardNetwork(nn.Module):
    """r_psi: one number per step, dimensionless. Actions are clipped: beyond [-1, 1] the robot cannot tell.

    Beside it there may be a potential h(s), which helps to learn and is not part of the reward (AIRL, section 6). Where
    tasks end for good there is one more state, the absorbing one, and what each step in it is worth (Kostrikov et al.
    2019, "Discriminator-Actor-Critic", arXiv 1809.02925, section 4.2): with nothing there, a reward that is mostly
    positive would say "never end" and one mostly negative "end at once", whatever the demos did. It is one state that
    no action leaves, so that a single number says it.
    """

    seen: Tensor | None  # (features,) int64 which observation features r_psi looks at; None for all

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        hidden: tuple[int, ...],
        state_only: bool = False,
        shaping: bool = False,
        seen: Sequence[int] | None = None,
        absorbing: bool = False,
    ) -> None:
        """Builds the network.

        Args:
            obs_dim: Observation features.
            act_dim: Action elements.
            hidden: Widths of the hidden layers, of r_psi and of h.
            state_only: r_psi(s) instead of r_psi(s, a).
            shaping: Whether there is a potential; it sees all of the observation.
            seen: Observation features that r_psi looks at; None for all.
            absorbing: Whether tasks end for good.
        """
        super().__init__()
        self.state_only = state_only
        self.register_buffer("seen", None if seen is None else torch.tensor(seen), persistent=False)
        self.normalizer = RunningNormalizer(obs_dim)
        width = obs_dim if seen is None else len(seen)
        self.net = mlp(width if state_only else width + act_dim, hidden, 1, last_gain=1.0)
        self.potential = mlp(obs_dim, hidden, 1, last_gain=1.0) if shaping else None
        self.absorbing = nn.Parameter(torch.zeros(())) if absorbing else None  # () reward of a step after the end

    def features(self, state: Tensor, action: Tensor) -> Tensor:
        """Input of `net` (..., features) for a normalised observation (..., obs_dim) and action (..., act_dim)."""
        if self.seen is not None:
            state = state.index_select(-1, self.seen)
        return state if self.state_only else torch.cat([state, action.clamp(-1.0, 1.0)], dim=-1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Reward (...) for `observation` (..., obs_dim) and `action` (..., act_dim)."""
        return self.net(self.features(self.normalizer(observation), action)).squeeze(-1)


def build_policy_network(obs_dim: int, act_dim: int, settings: PolicyConfig) -> GaussianPolicy:
    """q_theta as the settings want it, its weights fresh."""
    limits = (settings.log_std_init, settings.log_std_min, settings.log_std_max)
    return GaussianPolicy(obs_dim, act_dim, settings.hidden, limits)


def build_reward_network(spec: RobotSpec, settings: RewardConfig) -> RewardNetwork:
    """r_psi as the (resolved) settings want it, its weights fresh.

    Args:
        spec: The robot.
        settings: Of the reward.

    Returns:
        The network.

    Raises:
        ConfigError: `settings.observe` names something that the robot does not observe.
    """
    state_only = settings.inputs == "state"
    seen = _seen(spec, settings.observe) if settings.observe else None
    absorbing = bool(spec.terminate) and settings.segment != 1  # a single step never reaches past the end
    return RewardNetwork(
        spec.obs_dim, spec.act_dim, settings.hidden, state_only, bool(settings.shaping), seen, absorbing
    )


def _seen(spec: RobotSpec, names: Sequence[str]) -> list[int]:
    """Indices of the observation elements that are named, or whose term is, in the observation's order."""
    for name in names:
        require(bool(spec.elements(name)), f"reward.observe {name!r}; {spec.observes}")
    return sorted({i for name in names for i in spec.elements(name)})
