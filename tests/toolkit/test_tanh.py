"""The networks' unit: what torch calls tanh, to single precision, and its derivatives."""

import math

import pytest
import torch

from toolkit.networks import mlp
from toolkit.tanh import Tanh


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2.0**-22), (torch.float64, 2.0**-51)])
def test_it_is_tanh(dtype: torch.dtype, error: float) -> None:
    x = torch.linspace(-20.0, 20.0, 200_001, dtype=dtype)
    true = torch.tanh(x.double())
    assert (Tanh()(x).double() - true).abs().max() <= error


def test_by_hand() -> None:
    y = Tanh()(torch.tensor([0.0, math.log(2.0), -math.log(3.0)], dtype=torch.float64))
    assert y.tolist() == pytest.approx([0.0, 3.0 / 5.0, -4.0 / 5.0], abs=1e-15)  # (e^2x - 1) / (e^2x + 1)


def test_limits_are_reached_and_what_is_no_number_stays_none() -> None:
    y = Tanh()(torch.tensor([-math.inf, -1e30, 1e30, math.inf, math.nan]))
    assert y[:4].tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert y[4].isnan()


def test_what_it_is_given_stays_as_it_is() -> None:
    x = torch.tensor([0.5, -2.0])
    Tanh()(x)
    assert x.tolist() == [0.5, -2.0]


def test_first_and_second_derivative() -> None:
    x = torch.linspace(-3.0, 3.0, 31, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Tanh(), x)
    assert torch.autograd.gradgradcheck(Tanh(), x)


def test_an_export_calls_it_by_its_name() -> None:
    program = torch.onnx.export(mlp(3, (4, 4), 1, 1.0).eval(), (torch.zeros(1, 3),), dynamo=True)
    assert program is not None
    assert [node.op_type for node in program.model_proto.graph.node] == ["Gemm", "Tanh", "Gemm", "Tanh", "Gemm"]
