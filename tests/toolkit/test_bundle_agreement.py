"""A bundle beside its run: what agrees, and that each kind of disagreement is seen."""

import dataclasses
import math
from pathlib import Path

import pytest
from untrained_run import SPEC, saved

from export.runtime import load_bundle
from export.to_onnx import write_bundle
from toolkit.bundle_agreement import Agreement, AgreementError, compare, metadata_differences
from toolkit.checkpoint import Checkpoint
from toolkit.export_parts import load_for_export

DEMOS = Path(__file__).parents[2] / "demos" / "data" / "cartpole.zarr"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """A checkpoint and the bundle of it, with a variant."""
    folder = tmp_path_factory.mktemp("agreement")
    checkpoint = saved(folder, 0)
    write_bundle(folder / "x.bundle", load_for_export(folder), variants={"float16": 0.5})
    return checkpoint, folder / "x.bundle"


@pytest.fixture(scope="module")
def agreement(run: tuple[Checkpoint, Path]) -> Agreement:
    """What is found on one episode and the checkpoint's own sample."""
    return compare(*run, None, (1, 0))


def test_a_bundle_agrees_with_its_run(run: tuple[Checkpoint, Path]) -> None:
    """On every observation of the store, in its metadata, and in the returns on the same seeds."""
    found = compare(*run, DEMOS, (2, 0))
    assert found.observations > 1000 and 0 < found.max_abs_policy <= 1e-5 and found.max_abs_reward <= 1e-5
    assert found.metadata_differences == () and found.agrees
    assert found.torch_returns.seeds == found.onnx_returns.seeds and len(found.onnx_returns.returns) == 2
    assert found.to_dict()["agrees"] is True


def test_without_a_store_the_sample_in_the_checkpoint_is_used(run: tuple[Checkpoint, Path]) -> None:
    """A run whose demos are gone is compared on what it kept of them; a variant by its own tolerance."""
    found = compare(*run, None, (1, 0), variant="float16")
    assert found.observations == 100 and 1e-5 < found.max_abs_policy <= found.policy_tolerance == 0.5


def test_another_run_is_seen(run: tuple[Checkpoint, Path], tmp_path: Path) -> None:
    """The bundle of one run does not agree with another run."""
    found = compare(saved(tmp_path / "other", 1), run[1], None, (1, 0))
    assert found.max_abs_policy > 0.01 and not found.agrees


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        ({}, True),
        ({"max_abs_policy": 2e-5}, False),
        ({"max_abs_policy": float("nan")}, False),
        ({"max_abs_reward": 2e-5}, False),
        ({"metadata_differences": ("action_scale",)}, False),
        ({"onnx_returns": (99.5, 99.5)}, True),
        ({"onnx_returns": (98.0, 98.0)}, False),
        ({"torch_returns": (0.0, 0.0), "onnx_returns": (0.0, 0.0)}, True),
        ({"torch_returns": (0.0, 0.0), "onnx_returns": (1.0, 1.0)}, False),
    ],
)
def test_each_of_the_three_must_hold(agreement: Agreement, change: dict, agrees: bool) -> None:
    """Any one figure above its bound is enough to disagree."""
    found = agreement
    base = dataclasses.replace(found.torch_returns, returns=(100.0, 100.0))
    changes = {
        key: dataclasses.replace(base, returns=value) if key.endswith("_returns") else value
        for key, value in ({"torch_returns": (100.0, 100.0), "onnx_returns": (100.0, 100.0)} | change).items()
    }
    assert dataclasses.replace(found, **changes).agrees is agrees


def test_standard_error_by_hand(agreement: Agreement) -> None:
    """Differences of 1 and 3 at a mean of 100 have the mean 2 and its standard error 1; one episode has none."""
    found = agreement
    assert math.isnan(found.standard_error) and found.to_dict()["standard_error"] is None
    two = dataclasses.replace(
        found,
        torch_returns=dataclasses.replace(found.torch_returns, returns=(90.0, 110.0)),
        onnx_returns=dataclasses.replace(found.onnx_returns, returns=(91.0, 113.0)),
    )
    assert two.return_difference == pytest.approx(0.02) and two.standard_error == pytest.approx(0.01)


def test_one_bit_of_one_number_is_a_difference(run: tuple[Checkpoint, Path]) -> None:
    """A robot whose action scale differs in the last bit is told from the one the bundle is for, in every place."""
    bundle, policy, reward = load_bundle(run[1])
    assert metadata_differences(SPEC, bundle.manifest.spec, policy, reward) == []
    term = dataclasses.replace(SPEC.action[0], scale=math.nextafter(SPEC.action[0].scale, 2.0))
    nearly = dataclasses.replace(SPEC, action=(term, *SPEC.action[1:]))
    found = metadata_differences(nearly, bundle.manifest.spec, policy, reward)
    assert found == ["the robot in bundle.json", "the robot in policy.onnx", "the robot in reward.onnx", "action_scale"]
    policy.metadata["joint_names"] = "slider"
    policy.metadata.pop("joint_damping")
    assert metadata_differences(SPEC, bundle.manifest.spec, policy, reward) == ["joint_names", "joint_damping"]


def test_what_cannot_be_compared_is_refused(run: tuple[Checkpoint, Path]) -> None:
    """Demos of another robot, and a bundle of one, are refused in one line."""
    with pytest.raises(AgreementError, match="recorded on another robot"):
        compare(*run, DEMOS.with_name("finger.zarr"), (1, 0))
    arm = Path(__file__).parents[1] / "export" / "format-1.bundle"
    with pytest.raises(AgreementError, match="not made of this run"):
        compare(run[0], arm, None, (1, 0))
