"""Policies that remember: what ONNX Runtime carries from step to step is what torch carries, without a copy."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from remembering import Recurrent, Stacked

from export.bundle import read_bundle, write_bundle_folder
from export.manifest import FILE_NAMES, BundleError
from export.parity import stack_history
from export.reference_check import check_bundle
from export.runtime import OnnxPolicy, ParityError, actions_in_order, load_bundle
from export.to_onnx import ExportError, write_bundle
from robots.spec import RobotSpec

MODULES: dict[str, Callable[[RobotSpec], torch.nn.Module]] = {
    "stacked": Stacked,
    "gru": lambda spec: Recurrent(spec, "gru"),
    "lstm": lambda spec: Recurrent(spec, "lstm", layers=2),
    "stacked gru": lambda spec: Recurrent(spec, "gru", history=2),
}


@pytest.fixture(scope="module", params=MODULES)
def remembering(
    request: pytest.FixtureRequest, arm: RobotSpec, make_parts: Callable[..., Any], tmp_path_factory: Any
) -> tuple[torch.nn.Module, Path]:
    """A module and the bundle of it."""
    torch.manual_seed(4)
    module = MODULES[request.param](arm)
    path = tmp_path_factory.mktemp("memory") / "arm.bundle"
    write_bundle(path, make_parts(policy_module=module))
    return module, path


def torch_actions(module: Any, observation: np.ndarray) -> np.ndarray:
    """One episode, written out here as plainly as can be."""
    history, actions = [observation[0]] * getattr(module, "history", 1), []
    states = [torch.zeros(layers, 1, width) for layers, width in getattr(module, "state_dims", {}).values()]
    with torch.inference_mode():
        for row in observation:
            history = [*history[1:], row]
            answer = module(torch.from_numpy(np.concatenate(history))[None], *states)
            action, states = (answer[0], list(answer[1:])) if states else (answer, [])
            actions.append(action.numpy()[0])
    return np.stack(actions)


def test_two_episodes_are_as_in_torch(remembering: tuple[torch.nn.Module, Path], arm: RobotSpec) -> None:
    """Step by step the same, from a fresh start and after a reset; without the reset the second would differ."""
    module, path = remembering
    _, policy, _ = load_bundle(path)
    assert policy.remembers and policy.obs_dim == arm.obs_dim
    episodes = np.random.default_rng(5).normal(size=(2, 40, arm.obs_dim)).astype(np.float32)
    for episode in episodes:
        policy.reset()
        actions = [policy.act(row).copy() for row in episode]
        np.testing.assert_allclose(actions, torch_actions(module, episode), atol=1e-5)
    carried_on = [policy.act(row).copy() for row in episodes[0]]
    assert np.abs(np.stack(carried_on) - torch_actions(module, episodes[0])).max() > 1e-3


def test_buffers_are_the_act_without_its_checks(remembering: tuple[torch.nn.Module, Path], arm: RobotSpec) -> None:
    """Writing the observation buffer, running and reading the action buffer is what `act` does."""
    first, second = OnnxPolicy(remembering[1]), OnnxPolicy(remembering[1])
    for row in np.random.default_rng(6).normal(size=(10, arm.obs_dim)):
        second.observation_buffer[:] = row
        second.run()
        np.testing.assert_array_equal(first.act(row), second.action_buffer)
    assert second.observation_buffer.shape == (arm.obs_dim,) and second.action_buffer.shape == (arm.act_dim,)


def test_parity_vectors_are_sequences(remembering: tuple[torch.nn.Module, Path]) -> None:
    """The bundle proves the memory, too: read as single steps the vectors do not agree."""
    _, path = remembering
    bundle = read_bundle(path)
    assert bundle.manifest.parity_sequence == 32
    single = actions_in_order(OnnxPolicy(bundle), bundle.parity.observation, 1)
    assert np.abs(single - bundle.parity.policy_action).max() > 1e-3
    assert check_bundle(path)["policy"] <= 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_comes_out_and_is_not_remembered(
    remembering: tuple[torch.nn.Module, Path], arm: RobotSpec, bad: float
) -> None:
    """What is not finite gives NaN, so that the safety layer sees it, and leaves no trace in what follows."""
    episode = np.random.default_rng(7).normal(size=(6, arm.obs_dim))
    policy, undisturbed = OnnxPolicy(remembering[1]), OnnxPolicy(remembering[1])
    for row in episode:
        disturbed = row.copy()
        disturbed[-1] = bad
        assert np.isnan(policy.act(disturbed)).all()
        np.testing.assert_array_equal(policy.act(row), undisturbed.act(row))


def test_nothing_grows(remembering: tuple[torch.nn.Module, Path], arm: RobotSpec) -> None:
    """Ten times the steps leave no more memory behind."""
    policy, observation = OnnxPolicy(remembering[1]), np.ones(arm.obs_dim)

    def growth(calls: int) -> int:
        tracemalloc.start()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(calls):
            policy.act(observation)
        end = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return end - start

    growth(100)
    assert growth(5000) <= growth(500) + 2000


def test_single_step_vectors_do_not_prove_a_memory(
    make_parts: Callable[..., Any], arm: RobotSpec, tmp_path: Path
) -> None:
    """A manifest that calls the vectors of a policy with memory single steps is refused, as is a wrong length."""
    import dataclasses

    path = tmp_path / "x.bundle"
    write_bundle(path, make_parts(policy_module=Recurrent(arm, "gru")))
    old, contents = read_bundle(path), {name: (path / name).read_bytes() for name in FILE_NAMES}
    for sequence, error in ((1, BundleError), (7, ParityError)):
        write_bundle_folder(path, dataclasses.replace(old.manifest, parity_sequence=sequence), contents)
        with pytest.raises(error):
            load_bundle(path)


def test_the_contract_says_what_is_remembered(make_parts: Callable[..., Any], arm: RobotSpec, tmp_path: Path) -> None:
    """A lone policy.onnx tells a reader in another language what to stack and what to feed back, by rsl_rl's names."""
    import json

    write_bundle(tmp_path / "x.bundle", make_parts(policy_module=Recurrent(arm, "lstm", layers=2, history=2)))
    model = onnx.load(tmp_path / "x.bundle" / "policy.onnx")
    contract = json.loads({entry.key: entry.value for entry in model.metadata_props}["gcl.contract"])
    assert contract["history"] == 2 and contract["states"] == {"h": [2, 1, 8], "c": [2, 1, 8]}
    assert contract["inputs"] == [node.name for node in model.graph.input] == ["observation", "h_in", "c_in"]
    assert [node.name for node in model.graph.output] == ["action", "h_out", "c_out"]
    assert "history" not in json.loads(read_metadata(make_parts, tmp_path)["gcl.contract"])


def read_metadata(make_parts: Callable[..., Any], folder: Path) -> dict[str, str]:
    """Of a policy without memory."""
    write_bundle(folder / "plain.bundle", make_parts())
    return {entry.key: entry.value for entry in onnx.load(folder / "plain.bundle" / "policy.onnx").metadata_props}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"history": 0}, "policy.history is 0"),
        ({"history": 2.0}, "policy.history is 2.0"),
        ({"state_dims": {"h": 8}}, "policy.state_dims is"),
        ({"state_dims": {"h": (1, 0)}}, "lengths of at least 1"),
        ({"state_dims": {"h x": (1, 8)}}, "expected names"),
        ({"state_dims": {"h": (1, 9)}}, "policy fails on inputs"),
        ({"history": 5}, "policy fails on inputs"),
    ],
)
def test_a_module_that_does_not_fit_its_memory_is_refused(
    make_parts: Callable[..., Any], arm: RobotSpec, tmp_path: Path, attributes: dict, message: str
) -> None:
    """Attributes that are no memory, or not this module's, are refused in one line."""
    module = Recurrent(arm, "gru")
    for name, value in attributes.items():
        setattr(module, name, value)
    with pytest.raises(ExportError, match=message) as caught:
        write_bundle(tmp_path / "x.bundle", make_parts(policy_module=module))
    assert "\n" not in str(caught.value)


def foreign(state_in: list, state_out: list, out_name: str = "h_out", sizes: tuple = ("batch", 4)) -> bytes:
    """A model of someone else's making: action = observation, h_out = h_in."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (
            ("observation", list(sizes)),
            ("h_in", state_in),
            ("action", list(sizes)),
            (out_name, state_out),
        )
    ]
    nodes = [
        helper.make_node("Identity", ["observation"], ["action"]),
        helper.make_node("Concat", ["h_in", "h_in"], [out_name], axis=0)
        if state_in != state_out
        else helper.make_node("Identity", ["h_in"], [out_name]),
    ]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def test_foreign_recurrent_policies_run() -> None:
    """A fixed batch of 1, as rsl_rl writes it, and an open one are taken alike."""
    for shape in ([1, 1, 8], [1, "batch", 8], [1, 8]):
        policy = OnnxPolicy(foreign(shape, shape))
        assert policy.spec is None and policy.remembers
        np.testing.assert_array_equal(policy.act(np.arange(4.0)), np.arange(4.0))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (foreign([1, 1, 8], [1, 1, 8], "memory"), "no h_out to go on with"),
        (foreign(["a", "b", 8], ["a", "b", 8]), "at most one open length"),
        (foreign([1, 1, 2**40], [1, 1, 2**40]), "at most one open length"),
        (foreign([1, 1, 0], [1, 1, 0]), "at most one open length"),
        (foreign([1, 8], [2, 8]), "cannot run it"),
        (foreign([1, 8], [1, 8], sizes=("batch", 2**40)), r"expected float32 \[batch, length\]"),
    ],
)
def test_foreign_states_that_cannot_be_carried_are_refused(raw: bytes, message: str) -> None:
    """A state without continuation, of unknown, absurd or changing size, is refused in one line."""
    with pytest.raises(BundleError, match=message) as caught:
        OnnxPolicy(raw)
    assert "\n" not in str(caught.value)


def test_stacking_by_hand() -> None:
    """Worked out: two episodes of three steps, three observations stacked, oldest first, the first one repeated."""
    rows = np.arange(6.0)[:, None]
    expected = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 3, 4], [3, 4, 5]]
    np.testing.assert_array_equal(stack_history(rows, 3, 3), expected)
    np.testing.assert_array_equal(stack_history(rows, 1, 1), rows)
