"""The exporter: ONNX equals torch, or there is no bundle."""

import json
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from remembering import Recurrent

from export.bundle import read_bundle
from export.manifest import BundleError
from export.metadata import spec_from_metadata
from export.reference_check import check_bundle
from export.runtime import OnnxPolicy, OnnxReward, ParityError
from export.to_onnx import IR_VERSION, OPSET, ExportError, reward_to_onnx, write_bundle
from robots.spec import RobotSpec

Make = Callable[..., Any]


def test_onnx_equals_torch_on_vectors_it_never_saw(pristine: Path, make_parts: Make, arm: RobotSpec) -> None:
    """Policy and reward give torch's numbers on fresh inputs, far ones included."""
    parts = make_parts()
    policy, reward = OnnxPolicy(pristine), OnnxReward(pristine)
    rng = np.random.default_rng(99)
    for scale in (1.0, 30.0):
        observation = (scale * rng.normal(size=(50, arm.obs_dim))).astype(np.float32)
        action = rng.uniform(-1, 1, (50, arm.act_dim)).astype(np.float32)
        with torch.inference_mode():
            actions = parts.policy_module(torch.from_numpy(observation)).numpy()
            rewards = parts.reward_module(torch.from_numpy(observation), torch.from_numpy(action)).numpy()
        np.testing.assert_allclose([policy.act(row).copy() for row in observation], actions, atol=1e-5)
        scores = [reward.score(o, a) for o, a in zip(observation, action, strict=True)]
        np.testing.assert_allclose(scores, rewards, atol=1e-5)


def test_file_stands_alone_and_tells_nothing_of_this_machine(pristine: Path, arm: RobotSpec) -> None:
    """One file of the promised versions, dynamic batch, metadata equal to the spec, no paths of this machine."""
    raw = (pristine / "policy.onnx").read_bytes()
    model = onnx.load_from_string(raw)
    assert model.ir_version == IR_VERSION and [entry.version for entry in model.opset_import] == [OPSET]
    assert [node.name for node in model.graph.input] == ["observation"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert spec_from_metadata({entry.key: entry.value for entry in model.metadata_props}, "x") == arm
    assert str(Path(__file__).parent).encode() not in raw and b"stack_trace" not in raw
    assert sorted(path.name for path in pristine.iterdir()) == [
        "bundle.json",
        "parity.npz",
        "policy.onnx",
        "reward.onnx",
    ]


def test_parity_vectors_are_real_random_and_zero(pristine: Path, make_parts: Make) -> None:
    """At least 64 vectors: steps of the demos themselves, wide random ones, and zeros."""
    vectors, samples = read_bundle(pristine).parity, make_parts().sample_observations
    real = [row for row in vectors.observation if (samples == row).all(axis=1).any()]
    assert len(real) >= 64 and len(vectors.observation) >= len(real) + 64
    assert np.abs(vectors.observation).max() > np.abs(samples).max()
    assert not vectors.observation[-1].any() and not vectors.action[-1].any()


def test_quantiles_are_of_all_demo_steps(pristine: Path, make_parts: Make) -> None:
    """The monitor's thresholds are quantiles of the reward over every sample, not over the parity vectors."""
    parts = make_parts()
    with torch.inference_mode():
        scores = parts.reward_module(*map(torch.from_numpy, (parts.sample_observations, parts.sample_actions))).numpy()
    quantiles = read_bundle(pristine).manifest.reward_quantiles
    assert list(quantiles) == ["0.001", "0.01", "0.05", "0.5"]
    np.testing.assert_allclose(quantiles["0.05"], np.quantile(scores, 0.05), rtol=1e-5)


def test_reward_of_three_inputs(make_parts: Make, three_input_reward: torch.nn.Module, tmp_path: Path) -> None:
    """A reward that looks at the observation after is exported with it, and needs samples of it."""
    parts = make_parts(reward_module=three_input_reward)
    parts.policy_module.double().train()
    with pytest.raises(ExportError, match="sample next_observation has shape"):
        write_bundle(tmp_path / "x.bundle", parts)
    parts.sample_next_observations = np.roll(parts.sample_observations, -1, axis=0)
    write_bundle(tmp_path / "x.bundle", parts)
    reward = OnnxReward(tmp_path / "x.bundle")
    rows = [parts.sample_observations[3], parts.sample_actions[3], parts.sample_next_observations[3]]
    with torch.inference_mode():
        expected = three_input_reward(*[torch.from_numpy(row)[None] for row in rows]).item()
    assert reward.uses_next_observation and reward.score(*rows) == pytest.approx(expected, abs=1e-5)
    assert check_bundle(tmp_path / "x.bundle")["reward"] <= 1e-5
    # What was handed in is as it was: the trainer may go on with it.
    parameter = next(parts.policy_module.parameters())
    assert parts.policy_module.training and parameter.dtype == torch.float64 and parameter.requires_grad


def test_disagreement_is_refused_and_the_old_bundle_stays(make_parts: Make, bundle: Path) -> None:
    """A tolerance below float32's own error refuses the bundle; the one already there is as it was, with no litter."""
    before = read_bundle(bundle).manifest
    with pytest.raises(ParityError, match="differs from torch by"):
        write_bundle(bundle, make_parts(settings={}), tolerance=1e-12)
    assert read_bundle(bundle).manifest == before and list(bundle.parent.iterdir()) == [bundle]


class TrainingOnly(torch.nn.Module):
    """What ONNX cannot hold: the answer depends on how often it was asked."""

    calls = 0

    def __init__(self, act_dim: int) -> None:
        super().__init__()
        self.act_dim = act_dim

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        TrainingOnly.calls += 1
        return (observation[:, : self.act_dim] * 0.1 + 0.01 * TrainingOnly.calls).clamp(-1, 1)


def test_a_graph_that_froze_the_wrong_thing_is_refused(make_parts: Make, arm: RobotSpec, tmp_path: Path) -> None:
    """Tracing records one run of a module; where that is not what torch computes, parity says so."""
    with pytest.raises(ParityError, match="policy"):
        write_bundle(tmp_path / "x.bundle", make_parts(policy_module=TrainingOnly(arm.act_dim)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arm: {"policy_module": torch.nn.Linear(arm.obs_dim, arm.act_dim + 1)}, "put out shape"),
        (lambda arm: {"policy_module": torch.nn.Linear(arm.obs_dim + 1, arm.act_dim)}, "fails on inputs"),
        (lambda arm: {"policy_module": torch.nn.Linear(arm.obs_dim, arm.act_dim)}, r"legal is \[-1, 1\]"),
        (lambda arm: {"sample_observations": np.zeros((300, arm.obs_dim + 1))}, "sample observation has shape"),
        (lambda arm: {"sample_actions": np.zeros((299, arm.act_dim))}, "sample action has shape"),
        (lambda arm: {"sample_observations": np.zeros((0, arm.obs_dim))}, "sample observation has shape"),
        (lambda arm: {"sample_observations": np.full((300, arm.obs_dim), np.nan)}, "NaN or infinity"),
        (lambda arm: {"settings": {"lr": float("inf")}}, "settings cannot be written as JSON"),
        (lambda arm: {"demos": {"path": Path("x")}}, "demos cannot be written as JSON"),
    ],
)
def test_wrong_parts_are_refused_and_nothing_is_written(
    make_parts: Make, arm: RobotSpec, tmp_path: Path, change: Callable[[RobotSpec], dict], message: str
) -> None:
    """Modules and samples that do not fit the robot, or are not finite, are refused in one line."""
    with pytest.raises(ExportError, match=message) as caught:
        write_bundle(tmp_path / "x.bundle", make_parts(**change(arm)))
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_non_finite_weights_are_refused(make_parts: Make, tmp_path: Path) -> None:
    """A network that diverged does not get as far as a robot."""
    parts = make_parts()
    with torch.no_grad():
        next(parts.reward_module.parameters()).fill_(float("nan"))
    with pytest.raises(ExportError, match="reward put out NaN"):
        write_bundle(tmp_path / "x.bundle", parts)


def test_a_folder_of_something_else_is_refused_before_the_work(tmp_path: Path) -> None:
    """A path that must not be overwritten is refused before anything is exported."""
    (tmp_path / "precious").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"):
        write_bundle(tmp_path, SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["policy", "reward"])
def test_a_batch_is_its_rows(pristine: Path, role: str) -> None:
    """A file takes any number of rows at once and gives what it gives for each alone, to float32's own rounding."""
    vectors = read_bundle(pristine).parity
    session = onnxruntime.InferenceSession((pristine / f"{role}.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    feeds = {node.name: getattr(vectors, node.name) for node in session.get_inputs()}
    together = np.asarray(session.run(None, feeds)[0])
    for size in (1, 7):
        parts = [
            np.asarray(session.run(None, {name: array[i : i + size] for name, array in feeds.items()})[0])
            for i in range(0, len(vectors.observation), size)
        ]
        np.testing.assert_allclose(np.concatenate(parts), together, rtol=0, atol=1e-6)


@pytest.mark.skipif("GCL_OLD_RUNTIME" not in os.environ, reason="installs 60 MB: set GCL_OLD_RUNTIME=1 to run it")
def test_the_oldest_runtime_agrees(make_parts: Make, arm: RobotSpec, tmp_path: Path) -> None:
    """ONNX Runtime 1.17, of January 2024, loads policy, variants and a recurrent policy, and agrees with torch."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    requirements = ["onnxruntime==1.17.3", "numpy<2", "pyyaml"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True, capture_output=True)
    write_bundle(tmp_path / "plain.bundle", make_parts(), variants={"float16": None, "int8": None})
    write_bundle(tmp_path / "lstm.bundle", make_parts(policy_module=Recurrent(arm, "lstm", layers=2, history=2)))
    for name in ("plain.bundle", "lstm.bundle"):
        words = [python, Path(__file__).with_name("old_runtime_check.py"), tmp_path / name]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        found = json.loads(process.stdout)
        assert found["onnxruntime"] == "1.17.3" and max(found["policy"], found["reward"]) <= 1e-5


def test_a_reward_that_is_onnx_already_is_taken_over(make_parts: Make, pristine: Path, tmp_path: Path) -> None:
    """Its graph stays as it is, and what it says about itself is said anew; of other operators it is refused."""

    class Already(torch.nn.Module):
        def __init__(self, raw: bytes) -> None:
            super().__init__()
            self.onnx = raw

        def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            reward = OnnxReward(self.onnx)
            return torch.tensor([reward.score(o, a) for o, a in zip(observation.numpy(), action.numpy(), strict=True)])

    raw = (pristine / "reward.onnx").read_bytes()
    parts = make_parts(reward_module=Already(raw), settings={"seed": 17})
    report = write_bundle(tmp_path / "again.bundle", parts)
    assert report.max_abs_reward == 0.0
    before, after = onnx.load_from_string(raw), onnx.load(tmp_path / "again.bundle" / "reward.onnx")
    assert after.graph == before.graph
    contract = json.loads({entry.key: entry.value for entry in after.metadata_props}["gcl.contract"])
    assert contract["settings"] == {"seed": 17} and len(after.metadata_props) == len(before.metadata_props)
    before.opset_import[0].version = 17
    with pytest.raises(ExportError, match="expected those of opset 18"):
        write_bundle(tmp_path / "other.bundle", make_parts(reward_module=Already(before.SerializeToString())))


def test_the_reward_alone_is_that_of_the_bundle(make_parts: Make, tmp_path: Path) -> None:
    """The same bytes, with the same facts about itself."""
    parts = make_parts()
    write_bundle(tmp_path / "whole.bundle", parts)
    assert reward_to_onnx(parts) == (tmp_path / "whole.bundle" / "reward.onnx").read_bytes()
