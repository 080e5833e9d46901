"""Smaller copies of a policy: half-precision or 8-bit weights, inputs and outputs as before, the loss measured.

The networks of this toolkit's usual size are as quick in float32; docs/bundle.md has the figures.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.manifest import VARIANTS, VariantRecord
from export.metadata import CONTRACT_KEY
from export.parity import ParityVectors
from export.parity_samples import ExportError
from export.reference_check import check_model
from export.runtime import OnnxPolicy, actions_in_order

# Greatest |variant - torch| of an action in [-1, 1] unless the person allows more: 0.25 % and 2.5 % of the range
DEFAULT_TOLERANCE = {"float16": 0.005, "int8": 0.05}


def make_variants(
    policy: bytes, vectors: ParityVectors, sequence: int, wanted: Mapping[str, float | None]
) -> dict[str, tuple[bytes, VariantRecord]]:
    """Makes variants of a policy and measures each against torch's float32 on the parity vectors.

    Args:
        policy: Bytes of policy.onnx.
        vectors: What torch makes of which observations.
        sequence: Steps from one reset of the policy to the next among the vectors.
        wanted: Name of each variant -> greatest |variant - torch| allowed, None for the usual.

    Returns:
        Name -> the variant's bytes and its measured error.

    Raises:
        ExportError: There is no such variant, or it is too far from torch.
        BundleError: The robot would not load it.
    """
    made = {}
    for name, tolerance in wanted.items():
        if name not in VARIANTS:
            raise ExportError(f"variant {name!r}; legal are {', '.join(VARIANTS)}")
        allowed = DEFAULT_TOLERANCE[name] if tolerance is None else tolerance
        raw = _finished(_float16(policy) if name == "float16" else _int8(policy), policy, name)
        actions = actions_in_order(OnnxPolicy(raw), vectors.observation, sequence)
        error = np.abs(actions.astype(np.float64) - vectors.policy_action)
        record = VariantRecord(float(error.max()), float(np.quantile(error, 0.99)), allowed)
        if not record.max_abs <= allowed:
            raise ExportError(
                f"variant {name} differs from torch by {record.max_abs:.3g} (p99 {record.p99:.3g}), allowed "
                f"{allowed:g}: leave it out, or allow more with --variant-tolerance"
            )
        made[name] = raw, record
    return made


def _float16(policy: bytes) -> onnx.ModelProto:
    """Weights of two dimensions or more in half precision, cast back where used: what is computed is float32."""
    model = onnx.load_from_string(policy)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, stored = tensor.name, f"{tensor.name}.float16"
        with np.errstate(over="ignore"):
            halved = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(halved).all():  # the parity vectors need not show it: tanh makes 1 of infinity
            raise ExportError(f"variant float16 cannot hold {name}: a weight of it is beyond 65504")
        tensor.CopyFrom(numpy_helper.from_array(halved, stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _int8(policy: bytes) -> onnx.ModelProto:
    """ONNX Runtime's dynamic quantisation: 8-bit weights, activations quantised on each step by their own range."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(policy)
    del model.graph.value_info[:]  # it holds shapes of weights that the quantiser transposes
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # it advises, at each call, to do beforehand what makes no difference here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "policy.onnx"
            # Seven bits of eight: where a processor has no VNNI, the sum of two products of whole bytes overflows its
            # 16 bits, and actions would be off by 0.5. A scale for each unit makes up for the lost bit.
            quantize_dynamic(
                model, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8,
                reduce_range=True, per_channel=True,
            )  # fmt: skip
            return onnx.load_from_string(path.read_bytes())
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"variant int8 cannot be made: {' '.join(str(error).split())[:200]}") from error
    finally:
        log.setLevel(level)


def _finished(model: onnx.ModelProto, policy: bytes, name: str) -> bytes:
    """The variant with the policy's versions and metadata, and a contract that says what it is."""
    original = onnx.load_from_string(policy)
    model.ir_version = original.ir_version
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    for entry in model.metadata_props:
        if entry.key == CONTRACT_KEY:
            entry.value = json.dumps({**json.loads(entry.value), "variant": name}, allow_nan=False)
    del model.opset_import[:]
    model.opset_import.extend(original.opset_import)
    raw = model.SerializeToString(deterministic=True)
    check_model(raw, name)
    return raw
