"""ONNX metadata: the customary keys at full precision, and the whole robot without loss."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.manifest import BundleError
from export.metadata import CONTRACT_KEY, policy_metadata, reward_metadata, spec_from_metadata
from robots.spec import RobotSpec


def floats(text: str) -> list[float]:
    """As a customary reader parses it."""
    return [float(part) for part in text.split(",")]


def test_customary_keys_have_an_entry_each(arm: RobotSpec) -> None:
    """Readers of mjlab's files find the keys they require, one entry an action element or a term."""
    metadata = policy_metadata(arm, {})
    assert metadata["joint_names"].split(",") == list(arm.action_names)
    assert floats(metadata["action_scale"]) == [0.7, 5.0, 2 / 3]
    assert floats(metadata["joint_stiffness"]) == [31.7, 0.0, 0.0]
    assert floats(metadata["joint_damping"]) == [0.9, 0.5, 0.0]
    assert floats(metadata["default_joint_pos"]) == [0.1, 0.25, 0.0]
    assert metadata["observation_names"] == "position,velocity"
    assert metadata["observation_terms_scale"].split(",") == ["0.30000000000000004;1.0", repr(1 / 3)]
    assert metadata["observation_terms_history_length"] == "0,0"
    assert metadata["observation_terms_clip"] == "-inf;inf,-inf;inf"


def test_numbers_keep_every_bit(arm: RobotSpec) -> None:
    """Whatever the scales and gains are, reading them back gives the same bits."""
    numbers = st.floats(1e-300, 1e300)

    @given(numbers, numbers)
    def check(scale: float, gain: float) -> None:
        action = tuple(dataclasses.replace(term, scale=scale, kp=gain) for term in arm.action)
        spec = dataclasses.replace(arm, action=action)
        metadata = policy_metadata(spec, {})
        assert floats(metadata["action_scale"]) == [scale] * 3
        assert floats(metadata["joint_stiffness"]) == [gain] * 3
        assert spec_from_metadata(metadata, "x") == spec

    check()


def test_the_contract_says_what_is_in_the_graph(arm: RobotSpec) -> None:
    """The lossless key answers what every deployer asks: what is scaled, clipped and normalised where."""
    contract = json.loads(
        reward_metadata(arm, ("observation", "action"), {"reward_quantiles": {"0.5": 0.1}})[CONTRACT_KEY]
    )
    assert contract["role"] == "reward" and contract["inputs"] == ["observation", "action"]
    assert contract["normaliser_in_graph"] is True and contract["action_scale_in_graph"] is False
    assert contract["reward_quantiles"] == {"0.5": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda contract: None, "not written by"),
        (lambda contract: "{", "damaged"),
        (lambda contract: json.dumps({**contract, "version": 2}), "contract version 2"),
        (lambda contract: json.dumps({**contract, "spec_sha256": "0" * 64}), "hashes to"),
        (lambda contract: json.dumps({**contract, "spec": {"format": 1}}), "damaged"),
    ],
)
def test_a_wrong_contract_is_refused(arm: RobotSpec, change: object, message: str) -> None:
    """A file without our contract, with a newer one or a damaged one is refused in one line."""
    metadata = policy_metadata(arm, {})
    changed = change(json.loads(metadata.pop(CONTRACT_KEY)))  # type: ignore[operator]
    with pytest.raises(BundleError, match=message):
        spec_from_metadata(metadata if changed is None else {**metadata, CONTRACT_KEY: changed}, "policy.onnx")
