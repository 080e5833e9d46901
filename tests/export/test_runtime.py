"""The runtime: quick, allocation-free, and unwilling to run what it cannot vouch for."""

import dataclasses
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.bundle import read_bundle, write_bundle_folder
from export.manifest import BundleError
from export.parity import pack_parity
from export.runtime import OnnxPolicy, OnnxReward, ParityError, load_bundle
from robots.spec import RobotSpec


def rewritten(path: Path, **contents: bytes) -> None:
    """Replaces files of a bundle and recomputes every hash, as someone would who edits it by hand."""
    old = read_bundle(path)
    files = {"policy.onnx": old.policy_onnx, "reward.onnx": old.reward_onnx, "parity.npz": pack_parity(old.parity)}
    write_bundle_folder(path, old.manifest, {**files, **contents})


def with_constant_changed(raw: bytes, amount: float) -> bytes:
    """The same network with one bias moved."""
    model = onnx.load_from_string(raw)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("net.2.bias"))
    array = onnx.numpy_helper.to_array(tensor) + np.float32(amount)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model.SerializeToString()


def test_loads_and_runs_on_the_cpu(pristine: Path, arm: RobotSpec) -> None:
    """A whole bundle gives a policy and a reward of the robot's sizes, and says what computes."""
    bundle, policy, reward = load_bundle(pristine)
    assert bundle.spec == policy.spec == reward.spec == arm
    assert policy.provider == "CPUExecutionProvider"
    action = policy.act(np.zeros(arm.obs_dim))
    assert action.shape == (arm.act_dim,) and action.dtype == np.float32
    assert isinstance(reward.score(np.zeros(arm.obs_dim), action), float)


def test_a_lone_policy_file_runs_too(pristine: Path, tmp_path: Path, arm: RobotSpec) -> None:
    """policy.onnx works without its bundle, and still knows its robot."""
    lone = tmp_path / "some.onnx"
    lone.write_bytes((pristine / "policy.onnx").read_bytes())
    policy = OnnxPolicy(lone)
    vectors = read_bundle(pristine).parity
    assert policy.spec == arm
    np.testing.assert_allclose(policy.act(vectors.observation[0]), vectors.policy_action[0], atol=1e-5)


def test_the_buffer_is_shared_and_inputs_are_not_kept(pristine: Path, arm: RobotSpec) -> None:
    """Both float widths and strided inputs give the same action; the returned array is the one buffer."""
    policy = OnnxPolicy(pristine)
    wide = np.arange(2 * arm.obs_dim, dtype=np.float64) / 10
    expected = policy.act(wide[::2].copy()).copy()
    first = policy.act(wide[::2])
    np.testing.assert_array_equal(first, expected)
    assert policy.act(wide[::2].astype(np.float32)) is first


def test_no_growth_over_many_calls(pristine: Path, arm: RobotSpec) -> None:
    """Ten times the calls leave no more memory behind."""
    policy, reward = OnnxPolicy(pristine), OnnxReward(pristine)
    observation = np.zeros(arm.obs_dim)

    def growth(calls: int) -> int:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(calls):
            reward.score(observation, policy.act(observation))
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after - before

    growth(100)
    assert growth(5000) <= growth(500) + 2000


def test_another_weight_is_refused_by_parity(bundle: Path) -> None:
    """A network whose hashes are right but whose numbers are not is refused at start-up."""
    rewritten(bundle, **{"policy.onnx": with_constant_changed(read_bundle(bundle).policy_onnx, 1e-3)})
    read_bundle(bundle)
    with pytest.raises(ParityError, match="policy .* differs from torch by"):
        load_bundle(bundle)


def test_a_network_of_another_robot_is_refused(bundle: Path, arm: RobotSpec) -> None:
    """A policy whose own contract names another robot does not run under this manifest."""
    model = onnx.load_from_string(read_bundle(bundle).policy_onnx)
    other = dataclasses.replace(arm, control_dt=0.01)
    for entry in model.metadata_props:
        entry.value = entry.value.replace(arm.sha256, other.sha256).replace('"control_dt": 0.005', '"control_dt": 0.01')
    rewritten(bundle, **{"policy.onnx": model.SerializeToString()})
    with pytest.raises(BundleError, match="another robot"):
        load_bundle(bundle)


def test_swapped_networks_are_refused(bundle: Path) -> None:
    """A reward in the policy's place is told by its inputs and outputs."""
    old = read_bundle(bundle)
    rewritten(bundle, **{"policy.onnx": old.reward_onnx})
    with pytest.raises(BundleError, match="expected .*observation.* -> action"):
        OnnxPolicy(bundle)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    """Garbage and a missing file are refused in one line."""
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(BundleError, match="not ONNX") as caught:
        OnnxPolicy(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="not there"):
        OnnxPolicy(tmp_path / "none.onnx")


def test_wrong_shapes_are_refused_not_broadcast(pristine: Path, arm: RobotSpec) -> None:
    """A scalar, a batch or a missing input never reaches the network."""
    policy, reward = OnnxPolicy(pristine), OnnxReward(pristine)
    for shape in ((1,), (1, arm.obs_dim), (arm.obs_dim + 1,), ()):
        with pytest.raises(BundleError, match="this policy takes"):
            policy.act(np.zeros(shape))
        with pytest.raises(BundleError, match="this reward takes"):
            reward.score(np.zeros(shape), np.zeros(arm.act_dim))
    with pytest.raises(BundleError, match="this reward takes"):
        reward.score(np.zeros(arm.obs_dim), np.zeros(1))


def test_nan_in_gives_nan_out(pristine: Path, make_parts: Callable[..., Any], arm: RobotSpec) -> None:
    """A NaN is passed on, so that the safety layer sees it; the next call is not affected."""
    policy = OnnxPolicy(pristine)
    before = policy.act(np.ones(arm.obs_dim)).copy()
    assert np.isnan(policy.act(np.full(arm.obs_dim, np.nan))).any()
    np.testing.assert_array_equal(policy.act(np.ones(arm.obs_dim)), before)


def test_everything_on_the_robot_is_light() -> None:
    """Importing the whole robot side in a fresh interpreter loads neither torch nor a simulator nor a store."""
    code = (
        "import sys, export.loop, export.runtime, export.monitor\n"
        "heavy = {'torch', 'mujoco', 'dm_control', 'zarr', 'onnx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
