"""An exported reward stands where a network is expected, and a file that reaches beyond itself does not."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import set_external_data

from export.manifest import BundleError
from export.to_onnx import reward_to_onnx
from robots.robot_yaml import load_robot
from toolkit.config import RewardConfig
from toolkit.export_parts import ExportParts
from toolkit.exported_reward import ExportedReward
from toolkit.networks import RewardNetwork, build_reward_network

SPEC = load_robot("cartpole")


@pytest.fixture(scope="module")
def network() -> RewardNetwork:
    torch.manual_seed(0)
    return build_reward_network(SPEC, RewardConfig(hidden=(8,)))


@pytest.fixture(scope="module")
def raw(network: RewardNetwork) -> bytes:
    samples = np.zeros((4, SPEC.obs_dim), np.float32), np.zeros((4, SPEC.act_dim), np.float32)
    return reward_to_onnx(ExportParts(torch.nn.Identity(), network, SPEC, {}, {}, *samples))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_any_leading_shape_as_the_network(network: RewardNetwork, raw: bytes, shape: tuple[int, ...]) -> None:
    """A step, steps, a rollout [T, B]; a copy, which the exporter makes, is as good."""
    s, a = torch.randn(*shape, SPEC.obs_dim), torch.rand(*shape, SPEC.act_dim) * 2 - 1
    reward = ExportedReward(raw)
    for one in (reward, copy.deepcopy(reward)):
        torch.testing.assert_close(one(s, a), network(s, a).detach(), atol=1e-5, rtol=0.0)
    assert list(reward.parameters()) == []


def test_a_file_that_reaches_beyond_itself_is_refused(raw: bytes, tmp_path: Path) -> None:
    """It may come in a stranger's checkpoint: it is looked at before any engine sees it."""
    model = onnx.load_from_string(raw)
    weight = model.graph.initializer[0]
    set_external_data(weight, str(tmp_path / "secret"))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(BundleError, match="outside the file"):
        ExportedReward(model.SerializeToString())
    with pytest.raises(BundleError):
        ExportedReward(b"not ONNX")
