"""Smaller copies of the policy: still float32 outside, measured, refused when too far off."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from remembering import Recurrent

from export.bundle import read_bundle, write_bundle_folder
from export.manifest import BundleError, VariantRecord
from export.runtime import OnnxPolicy, ParityError, load_bundle
from export.to_onnx import IR_VERSION, OPSET, ExportError, write_bundle
from export.to_variants import DEFAULT_TOLERANCE, make_variants
from robots.spec import RobotSpec

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def varied(make_parts: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both variants."""
    path = tmp_path_factory.mktemp("variants") / "arm.bundle"
    write_bundle(path, make_parts(), variants=dict.fromkeys(DEFAULT_TOLERANCE))
    return path


@pytest.mark.parametrize("name", DEFAULT_TOLERANCE)
def test_error_is_measured_against_torch(varied: Path, make_parts: Make, arm: RobotSpec, name: str) -> None:
    """The manifest's figure is what the variant's actions differ by from torch's, and about that on fresh inputs."""
    bundle, policy, _ = load_bundle(varied, variant=name)
    record, vectors = bundle.manifest.variants[name], bundle.parity
    error = np.abs(np.stack([policy.act(row).copy() for row in vectors.observation]) - vectors.policy_action)
    assert record.max_abs == pytest.approx(error.max(), abs=1e-6) and 0 < record.p99 <= record.max_abs
    assert record.max_abs > 10 * bundle.manifest.parity_max_abs["policy"]  # it is another network, not the same one
    fresh = np.random.default_rng(8).normal(size=(200, arm.obs_dim)).astype(np.float32)
    with torch.inference_mode():
        expected = make_parts().policy_module(torch.from_numpy(fresh)).numpy()
    assert np.abs(np.stack([policy.act(row).copy() for row in fresh]) - expected).max() <= 2 * record.max_abs


@pytest.mark.parametrize(("name", "word"), [("float16", "FLOAT16"), ("int8", "INT8")])
def test_the_file_is_the_same_but_for_its_weights(varied: Path, arm: RobotSpec, name: str, word: str) -> None:
    """Versions, names, float32 at both ends, metadata: as the policy's; weights smaller; the contract says so."""
    model = onnx.load(varied / f"policy.{name}.onnx")
    policy = onnx.load(varied / "policy.onnx")
    assert model.ir_version == IR_VERSION and [entry.version for entry in model.opset_import] == [OPSET]
    assert model.graph.input[0] == policy.graph.input[0] and model.graph.output[0] == policy.graph.output[0]
    metadata, original = ({entry.key: entry.value for entry in m.metadata_props} for m in (model, policy))
    contract = json.loads(metadata.pop("gcl.contract"))
    assert contract.pop("variant") == name and contract == json.loads(original.pop("gcl.contract"))
    assert metadata == original
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    assert len(weights) == 2 and all(tensor.data_type == getattr(onnx.TensorProto, word) for tensor in weights)
    assert OnnxPolicy(varied / f"policy.{name}.onnx").spec == arm


def test_int8_fits_processors_without_vnni(varied: Path) -> None:
    """There two products of bytes are added in 16 bits, which -128 and 255 overflow and seven bits never do."""
    model = onnx.load(varied / "policy.int8.onnx")
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    greatest = [int(np.abs(w.astype(np.int64)).max()) for w in weights if w.ndim == 2]
    assert len(greatest) == 2 and 2 * 255 * max(greatest) < 2**15


def test_the_usual_policy_is_untouched(varied: Path, pristine: Path) -> None:
    """Asking for variants changes nothing about policy.onnx, and no variant is run unless asked for."""
    assert (varied / "policy.onnx").read_bytes() == (pristine / "policy.onnx").read_bytes()
    bundle, policy, _ = load_bundle(varied)
    assert np.abs(policy.act(bundle.parity.observation[0]) - bundle.parity.policy_action[0]).max() <= 1e-5


def test_too_far_off_is_refused(varied: Path, make_parts: Make, tmp_path: Path) -> None:
    """Above the tolerance there is no bundle; a person may allow more, which is then on record."""
    with pytest.raises(ExportError, match="variant int8 differs from torch by .* allowed 1e-06: leave it out"):
        write_bundle(tmp_path / "x.bundle", make_parts(), variants={"int8": 1e-6})
    assert list(tmp_path.iterdir()) == []
    policy, vectors = read_bundle(varied).policy_onnx, read_bundle(varied).parity
    _, record = make_variants(policy, vectors, 1, {"int8": 0.5})["int8"]
    assert record.tolerance == 0.5
    with pytest.raises(ExportError, match="variant 'int4'; legal are float16, int8"):
        make_variants(policy, vectors, 1, {"int4": None})


def test_weights_beyond_half_precision_are_refused(varied: Path) -> None:
    """A weight that float16 cannot hold would become infinite, which tanh may hide from the parity vectors."""
    model = onnx.load(varied / "policy.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array[0, 0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ExportError, match="variant float16 cannot hold"):
        make_variants(model.SerializeToString(), read_bundle(varied).parity, 1, {"float16": None})


def test_the_robot_checks_the_variant_too(varied: Path, tmp_path: Path) -> None:
    """A variant that this machine computes otherwise is refused at start-up, one that is not there by name."""
    old = read_bundle(varied)
    contents = {name: (varied / name).read_bytes() for name in old.manifest.files}
    tight = {name: VariantRecord(1e-9, 1e-9, 1e-9) for name in old.manifest.variants}
    write_bundle_folder(tmp_path / "x.bundle", dataclasses.replace(old.manifest, variants=tight), contents)
    load_bundle(tmp_path / "x.bundle")
    with pytest.raises(ParityError, match="policy .* differs from torch by"):
        load_bundle(tmp_path / "x.bundle", variant="float16")
    write_bundle_folder(tmp_path / "y.bundle", dataclasses.replace(old.manifest, variants={}), contents)
    with pytest.raises(BundleError, match="has no variant 'int8'; it has none"):
        load_bundle(tmp_path / "y.bundle", variant="int8")


def test_a_policy_that_remembers_has_variants_too(make_parts: Make, arm: RobotSpec, tmp_path: Path) -> None:
    """A GRU in half precision, and with its linear layers in 8 bit, agrees over whole sequences."""
    torch.manual_seed(3)
    parts = make_parts(policy_module=Recurrent(arm, "gru"))
    write_bundle(tmp_path / "x.bundle", parts, variants=dict.fromkeys(DEFAULT_TOLERANCE, 0.1))
    for name in DEFAULT_TOLERANCE:
        _, policy, _ = load_bundle(tmp_path / "x.bundle", variant=name)
        assert policy.remembers
