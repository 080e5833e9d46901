"""The networks' unit: tanh by way of the logistic function, which a CPU computes several times sooner."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _LogisticTanh(torch.autograd.Function):
    """tanh x = 2 sigma(2 x) - 1 in place, and its derivative 1 - y^2 from the result; differentiable twice."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:  # noqa: D102
        y = (x + x).sigmoid_()
        y.add_(y).sub_(1.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # noqa: D102
        (y,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return torch.ops.aten.tanh_backward(gradient, y)


class Tanh(nn.Module):
    """tanh; in training on a CPU by the identity tanh x = 2 sigma(2 x) - 1, elsewhere and on the robot by name.

    A layer of 128 units spends as long in torch's tanh on a CPU as in the matrix product before it. What the identity
    costs is the last bits near 0: the error is that of numbers near 1, at most 2^-22 in single precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """tanh of each element of `x` (any shape)."""
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            return torch.tanh(x)
        return _LogisticTanh.apply(x)  # pyright: ignore[reportReturnType]
