"""Entropy of the clipped Gaussian in closed form: what the off-policy generator adds to its reward, without noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def clipped_gaussian_entropy(mean: Tensor, log_std: Tensor) -> Tensor:
    """-E[log q(a)] of a = clip(x, -1, 1), x ~ Normal(mu, diag(sigma^2)), q as in `clipped_gaussian_log_prob`.

    q is a density inside the limits and a probability at each limit (Fujita and Maeda 2018, arXiv 1802.07564). With
    l = (-1 - mu) / sigma, h = (1 - mu) / sigma, phi and Phi of the standard normal, P = Phi(h) - Phi(l):

        H = P (log sigma + 1/2 log 2 pi + 1/2) - 1/2 (h phi(h) - l phi(l))
            - Phi(l) log Phi(l) - Phi(-h) log Phi(-h)

    since int z^2 phi dz from l to h is P - (h phi(h) - l phi(l)). Differentiating a sample of -log q instead would miss
    that the probability at the limits moves with mu and sigma.

    Args:
        mean: (..., d) mu.
        log_std: (d,) log sigma.

    Returns:
        (...) entropy [nats], summed over the elements, which are independent.

    Raises:
        ValueError: Another number of elements in `log_std`.
    """
    if log_std.shape != mean.shape[-1:]:
        raise ValueError(f"log_std {tuple(log_std.shape)} for a mean of {tuple(mean.shape)}")
    std = log_std.exp()
    low, high = (-1.0 - mean) / std, (1.0 - mean) / std
    log_below, log_above = torch.special.log_ndtr(low), torch.special.log_ndtr(-high)
    below, above = log_below.exp(), log_above.exp()
    inside = 1.0 - below - above
    edge = high * _phi(high) - low * _phi(low)
    return (inside * (log_std + _LOG_SQRT_2PI + 0.5) - 0.5 * edge - below * log_below - above * log_above).sum(-1)


def _phi(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square() - _LOG_SQRT_2PI)


class _InwardClip(torch.autograd.Function):
    """clip(x, -1, 1) whose gradient also passes at a limit where descending it leads back inside."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: D102
        (x,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        # Descent moves x by -gradient: beyond +1 it comes back where the gradient is positive.
        inward = x * gradient > 0.0
        return torch.where((x.abs() < 1.0) | inward, gradient, 0.0)


def inward_clip(x: Tensor) -> Tensor:
    """clip(x, -1, 1), through which a loss can pull a value back from beyond a limit, but not push it further out.

    A plain clip has no gradient beyond its limits, so a mean that was driven there would never return. After Hausknecht
    and Stone 2016, "Deep reinforcement learning in parameterized action space" (arXiv 1511.04143), section 4.3.

    Args:
        x: (...) to be clipped; the result must enter a loss that is minimised.

    Returns:
        (...) clipped.
    """
    return _InwardClip.apply(x)  # pyright: ignore[reportReturnType]
