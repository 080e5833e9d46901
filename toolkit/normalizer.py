"""RunningNormalizer: features shifted and scaled by statistics that are part of the network, and exported with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIP = 10.0  # standard deviations; keeps one wild sensor value from saturating every unit behind it


class RunningNormalizer(nn.Module):
    """clip((x - mean) / std, -CLIP, CLIP), the mean and variance over everything `update` has seen."""

    mean: Tensor  # (dim,)
    std: Tensor  # (dim,)
    count: Tensor  # () float64
    total: Tensor  # (dim,) float64
    total_square: Tensor  # (dim,) float64

    def __init__(self, dim: int, min_std: float = 1e-2) -> None:
        """Starts as the identity.

        Args:
            dim: Number of features.
            min_std: Floor of the standard deviation, in feature units: a feature that hardly moves in a few demos must
                not blow up when it does.
        """
        super().__init__()
        self.min_std = min_std
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        # Sums in float64: after 1e9 samples a float32 sum would stop moving.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("total_square", torch.zeros(dim, dtype=torch.float64))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Adds samples to the statistics.

        Args:
            x: (..., dim).
        """
        flat = x.reshape(-1, x.shape[-1]).double()
        self.count += flat.shape[0]
        self.total += flat.sum(0)
        self.total_square += flat.square().sum(0)
        mean = self.total / self.count
        variance = (self.total_square / self.count - mean.square()).clamp_min(0.0)
        self.mean.copy_(mean)
        self.std.copy_(variance.sqrt().clamp_min(self.min_std))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `x` (..., dim) to (..., dim)."""
        return ((x - self.mean) / self.std).clamp(-CLIP, CLIP)
