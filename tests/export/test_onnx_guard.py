"""The guard before the engine: nothing outside the file, nothing but standard operators, whatever bytes come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import _get_all_tensors, set_external_data, uses_external_data

from export import onnx_guard
from export.bound_graph import BoundGraph
from export.manifest import BundleError
from export.onnx_guard import check_onnx


def outside(name: str = "weight") -> TensorProto:
    """A tensor whose data lie in another file, as onnx writes one."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    set_external_data(tensor, "../../etc/passwd")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def model_of(*nodes: onnx.NodeProto, initializer: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    """A model of these nodes; what they compute does not matter here."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph(list(nodes), "g", [], [value], list(initializer))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def constant(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], **attributes)


def in_subgraph(tensor: TensorProto, depth: int) -> onnx.ModelProto:
    """The tensor `depth` branches deep."""
    node = constant(value=tensor)
    for _ in range(depth):
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch)
    return model_of(node)


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[8])


def hidden_in_graphs() -> onnx.ModelProto:
    """In an attribute that is a list of graphs."""
    node = onnx.NodeProto(op_type="Loop")
    node.attribute.add(name="many", type=onnx.AttributeProto.GRAPHS).graphs.add().initializer.append(outside())
    return model_of(node)


def hidden_in_sparse(part: str) -> onnx.ModelProto:
    """In the values or the indices of a sparse initializer."""
    model, inside = model_of(), numpy_helper.from_array(np.zeros(4, np.int64))
    chosen = sparse(outside(), inside) if part == "values" else sparse(inside, outside())
    model.graph.sparse_initializer.append(chosen)
    return model


def hidden_in_training() -> onnx.ModelProto:
    """In a graph that only training would run."""
    model = model_of()
    model.training_info.add().initialization.initializer.append(outside())
    return model


def hidden_in_function() -> onnx.ModelProto:
    """In a function that the model brings along."""
    model = model_of()
    model.functions.add(name="f", domain="mine").node.append(constant(value=outside()))
    return model


HIDDEN: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializer": lambda: model_of(initializer=(outside(),)),
    "constant": lambda: model_of(constant(value=outside())),
    "list of tensors": lambda: model_of(onnx.NodeProto(attribute=[onnx.AttributeProto(tensors=[outside()])])),
    "sparse constant": lambda: model_of(constant(sparse_value=sparse(outside(), outside()))),
    "sparse values": lambda: hidden_in_sparse("values"),
    "sparse indices": lambda: hidden_in_sparse("indices"),
    "subgraph": lambda: in_subgraph(outside(), 1),
    "deep subgraph": lambda: in_subgraph(outside(), 5),
    "list of graphs": hidden_in_graphs,
    "training": hidden_in_training,
    "function": hidden_in_function,
}


@pytest.mark.parametrize("place", HIDDEN)
def test_weights_outside_the_file_are_found_wherever_they_hide(place: str) -> None:
    """Every place that a tensor can be in is looked at; the message says what is wrong."""
    with pytest.raises(BundleError, match="outside the file|training graphs|functions of its own"):
        check_onnx(HIDDEN[place]().SerializeToString(), "x")


@pytest.mark.parametrize("half", ["data_location", "external_data"])
def test_half_of_a_pointer_is_enough(half: str) -> None:
    """protobuf merges a tensor that comes in two pieces, so either field alone is refused."""
    tensor = outside()
    tensor.ClearField(half)
    with pytest.raises(BundleError, match="outside the file"):
        check_onnx(model_of(initializer=(tensor,)).SerializeToString(), "x")


def test_the_engine_never_sees_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session is made of a model with weights in another file."""
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("the engine was given the file"))
    with pytest.raises(BundleError, match="x: has weights outside the file"):
        BoundGraph(HIDDEN["constant"]().SerializeToString(), "x")


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.contrib", "AI.ONNX", "ai.onnx.preview.training"])
@pytest.mark.parametrize("deep", [False, True])
def test_operators_from_elsewhere_are_refused(domain: str, deep: bool) -> None:
    """A domain that is not ONNX's own is named, in a subgraph too."""
    node = helper.make_node("Run", [], ["y"], domain=domain)
    if deep:
        branch = helper.make_graph([node], "b", [], [])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(BundleError, match=f"domain '{domain}'"):
        check_onnx(model_of(node).SerializeToString(), "x")


def test_standard_models_pass(pristine: Path) -> None:
    """Our own files, the standard domains by name, sparse weights and subgraphs are all legal."""
    check_onnx((pristine / "policy.onnx").read_bytes(), "x")
    check_onnx((pristine / "reward.onnx").read_bytes(), "x")
    check_onnx(model_of(helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")).SerializeToString(), "x")
    check_onnx(in_subgraph(numpy_helper.from_array(np.zeros(4, np.float32)), 5).SerializeToString(), "x")
    inside = numpy_helper.from_array(np.zeros(4, np.float32))
    check_onnx(model_of(constant(sparse_value=sparse(inside, inside))).SerializeToString(), "x")


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nesting, number of fields and size are bounded, and the engine's private format is not ONNX."""
    inside = numpy_helper.from_array(np.zeros(4, np.float32))
    with pytest.raises(BundleError, match="nested more than"):
        check_onnx(in_subgraph(inside, 25).SerializeToString(), "x")
    with pytest.raises(BundleError, match="more than 1000000 fields"):
        check_onnx(b"\x08\x08" * 1_000_001, "x")
    with pytest.raises(BundleError, match="own format"):
        check_onnx(b"\x18\0\0\0ORTM" + bytes(100), "x")
    with pytest.raises(BundleError, match="0 bytes"):
        check_onnx(b"", "x")
    monkeypatch.setattr(onnx_guard, "MAX_FILE_SIZE", 100)
    with pytest.raises(BundleError, match="101 bytes"):
        check_onnx(bytes(101), "x")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x3a\x7f",  # a graph that reaches beyond the file
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # the same by 2^64 bytes
        b"\x08",  # a number that is not there
        b"\x08" + b"\x80" * 20,  # a number that does not end
        b"\x3b\x3c",  # a group, which protobuf skips unread
        b"\x38\x01",  # a graph that is a number, which protobuf skips unread
        b"\xf8\xff\xff\xff\xff\x01\x00",  # a field number beyond 32 bit
        b"\x00\x00",  # field 0
        b"\xfa\x07\x00",  # a field of the future
    ],
)
def test_what_protobuf_forgives_is_refused(raw: bytes) -> None:
    """Where parsers may differ in what they make of bytes, nothing is made of them."""
    with pytest.raises(BundleError) as caught:
        check_onnx(raw, "x")
    assert "\n" not in str(caught.value)


def test_damaged_models_raise_nothing_else_and_hide_nothing(pristine: Path) -> None:
    """Cut, flipped and spliced models give BundleError or pass; what passes has no weights elsewhere for onnx, too."""
    seeds = [(pristine / "policy.onnx").read_bytes()]
    seeds += [make().SerializeToString() for make in HIDDEN.values()]
    passed = refused = 0

    @settings(max_examples=1500, deadline=None)
    @given(st.sampled_from(seeds), st.sampled_from(seeds), st.data())
    def check(seed: bytes, other: bytes, data: st.DataObject) -> None:
        nonlocal passed, refused
        raw = bytearray(seed)
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, len(raw)))
            match data.draw(st.integers(0, 3)):
                case 0:
                    raw[at : at + 1] = data.draw(st.binary(max_size=3))
                case 1:
                    raw[at:at] = data.draw(st.binary(max_size=12))
                case 2:
                    del raw[at : at + data.draw(st.integers(1, 40))]
                case _:
                    raw[at:at] = other  # protobuf merges what comes twice
        try:
            check_onnx(bytes(raw), "x")
        except BundleError as error:
            assert "\n" not in str(error)
            refused += 1
            return
        passed += 1
        try:
            model = onnx.load_from_string(bytes(raw))
        except Exception:  # protobuf's own errors; a file that does not parse points nowhere
            return
        assert not any(uses_external_data(tensor) for tensor in _get_all_tensors(model))

    check()
    assert passed and refused  # both happen, so neither is shown about nothing
