"""The manifest: lossless, and refused when even one byte changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import read_bundle
from export.manifest import BUNDLE_FORMAT_VERSION, BundleError, BundleManifest, read_manifest, write_manifest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**60), 2**60)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def manifest(pristine: Path) -> BundleManifest:
    """The manifest of a real bundle."""
    return read_bundle(pristine).manifest


def test_settings_keep_every_bit(manifest: BundleManifest) -> None:
    """Whatever JSON can say comes back exactly, floats to the last bit."""

    @given(st.dictionaries(st.text(), JSON, max_size=4))
    def check(settings: dict[str, Any]) -> None:
        changed = dataclasses.replace(manifest, settings=settings)
        assert read_manifest(write_manifest(changed), "x") == changed

    check()


def test_a_setting_that_is_not_json_is_named(manifest: BundleManifest) -> None:
    """NaN and objects are refused when written, not found out when read."""
    for value in (float("nan"), object()):
        with pytest.raises(BundleError, match="cannot be written as JSON"):
            write_manifest(dataclasses.replace(manifest, settings={"a": value}))


def test_any_changed_byte_is_refused(manifest: BundleManifest) -> None:
    """Flipping any bit of any byte, white space included, makes the manifest unreadable."""
    raw = write_manifest(manifest)

    @given(st.integers(0, len(raw) - 1), st.integers(1, 255))
    def check(position: int, flip: int) -> None:
        damaged = bytearray(raw)
        damaged[position] ^= flip
        with pytest.raises(BundleError):
            read_manifest(bytes(damaged), "x")

    check()


@given(st.binary(max_size=200) | st.just(b"[" * 100_000) | JSON.map(lambda data: json.dumps(data).encode()))
def test_garbage_is_refused_in_one_line(raw: bytes) -> None:
    """Bytes that are no manifest raise BundleError and nothing else."""
    with pytest.raises(BundleError) as caught:
        read_manifest(raw, "bundle.json")
    assert "\n" not in str(caught.value)


def test_white_space_and_duplicate_keys_are_changes(manifest: BundleManifest) -> None:
    """What JSON parsing forgives is still a change."""
    raw = write_manifest(manifest)
    for changed in (raw + b" ", raw.replace(b"{", b'{"control_dt": 1.0,', 1), raw.replace(b"\n", b"\r\n", 1)):
        with pytest.raises(BundleError, match="SHA-256 does not match"):
            read_manifest(changed, "x")


def test_newer_format_is_refused_by_name(manifest: BundleManifest) -> None:
    """A newer format is told apart from damage, whatever else it contains."""
    raw = json.dumps({"format_version": BUNDLE_FORMAT_VERSION + 1, "something": "new"}).encode()
    with pytest.raises(BundleError, match=rf"format {BUNDLE_FORMAT_VERSION + 1}; .* upgrade"):
        read_manifest(raw, "x")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spec_sha256", "0" * 64, "robot spec hashes to"),
        ("control_dt", 0.01, "differ from the robot spec"),
        ("action_scale", (1.0, 2.0, 3.0), "differ from the robot spec"),
        ("files", {}, "legal are exactly"),
        ("parity_tolerance", 0.0, "not a positive number"),
        ("parity_tolerance", None, "wrong type"),
        ("reward_quantiles", {"0.5": 1.0}, "reward quantiles"),
        ("spec", {"format": 1}, "damaged"),
        ("reward_inputs", 3, "wrong type"),
    ],
)
def test_a_rewritten_manifest_must_agree_with_itself(
    manifest: BundleManifest, field: str, value: object, message: str
) -> None:
    """Fields that contradict each other are refused even when the hash was recomputed."""
    with pytest.raises(BundleError, match=message):
        read_manifest(write_manifest(dataclasses.replace(manifest, **{field: value})), "x")
