"""The second opinion: onnx's own checker and evaluator."""

from pathlib import Path

import onnx
import pytest

from export.bundle import read_bundle, write_bundle_folder
from export.manifest import FILE_NAMES, BundleError
from export.parity_samples import ExportError
from export.reference_check import check_bundle, check_model
from export.runtime import ParityError


def changed(bundle: Path, policy: onnx.ModelProto) -> None:
    """Puts another policy in, every hash right."""
    contents = {name: (bundle / name).read_bytes() for name in FILE_NAMES}
    write_bundle_folder(bundle, read_bundle(bundle).manifest, {**contents, "policy.onnx": policy.SerializeToString()})


def test_reference_evaluator_agrees(bundle: Path) -> None:
    """onnx's own evaluator, which shares no code with ONNX Runtime, gives torch's numbers too."""
    assert all(error <= 1e-5 for error in check_bundle(bundle).values())


def test_another_weight_is_seen(bundle: Path) -> None:
    """A network that is not what torch exported is refused by its numbers."""
    policy = onnx.load(bundle / "policy.onnx")
    tensor = next(tensor for tensor in policy.graph.initializer if tensor.name.endswith("net.2.bias"))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 0.01, tensor.name))
    changed(bundle, policy)
    with pytest.raises(ParityError, match="reference evaluator is off by"):
        check_bundle(bundle)


def test_weights_elsewhere_are_refused_here_too(bundle: Path) -> None:
    """The guard comes before onnx, which would look for the file."""
    policy = onnx.load(bundle / "policy.onnx")
    policy.graph.initializer[0].external_data.add(key="location", value="../secret")
    changed(bundle, policy)
    with pytest.raises(BundleError, match="outside the file"):
        check_bundle(bundle)


def test_the_checker_is_asked() -> None:
    """Bytes that are no valid model are refused in one line."""
    with pytest.raises(ExportError, match="onnx's checker refuses it"):
        check_model(onnx.ModelProto(ir_version=8).SerializeToString(), "policy")
