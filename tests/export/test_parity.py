"""Parity vectors: packed plain, and unpacked without trusting the file."""

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import Bundle, read_bundle
from export.manifest import BundleError
from export.parity import pack_parity, unpack_parity


@pytest.fixture(scope="module")
def whole(pristine: Path) -> Bundle:
    """A bundle that is in order."""
    return read_bundle(pristine)


def packed(save: Any, bundle: Bundle, **changes: Any) -> bytes:
    """An npz of the bundle's vectors with some replaced."""
    arrays = {f.name: getattr(bundle.parity, f.name) for f in dataclasses.fields(bundle.parity)}
    buffer = io.BytesIO()
    save(buffer, **{name: a for name, a in {**arrays, **changes}.items() if a is not None})
    return buffer.getvalue()


def test_round_trip(whole: Bundle) -> None:
    """What is packed comes back bit for bit, and packing twice gives the same bytes."""
    raw = pack_parity(whole.parity)
    again = unpack_parity(raw, whole.manifest, "x")
    for f in dataclasses.fields(again):
        np.testing.assert_array_equal(getattr(again, f.name), getattr(whole.parity, f.name))
    assert pack_parity(again) == raw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, "expected"),
        ({"extra": np.zeros(3)}, "expected"),
        ({"reward": np.zeros(3, np.float32)}, "expected finite float32"),
        ({"reward": np.zeros(10_000, np.float32)}, "vectors take at most"),
        ({"policy_action": "float64"}, "larger than|expected finite float32"),
        ({"reward": "nan"}, "expected finite float32"),
        ({"reward": np.array([object()], dtype=object)}, "is object"),
    ],
)
def test_wrong_vectors_are_refused(whole: Bundle, changes: dict[str, Any], message: str) -> None:
    """Missing, surplus, misshapen, non-finite or pickled arrays are refused in one line."""
    if isinstance(changes.get("policy_action"), str):
        changes = {"policy_action": whole.parity.policy_action.astype(np.float64)}
    if isinstance(changes.get("reward"), str):
        changes = {"reward": np.full_like(whole.parity.reward, np.nan)}
    with pytest.raises(BundleError, match=message):
        unpack_parity(packed(np.savez, whole, **changes), whole.manifest, "x")


def test_compressed_data_is_refused(whole: Bundle) -> None:
    """A file that could unpack to more than its size is not unpacked."""
    with pytest.raises(BundleError, match="compressed"):
        unpack_parity(packed(np.savez_compressed, whole), whole.manifest, "x")


def test_a_header_that_lies_about_its_shape_is_refused(whole: Bundle) -> None:
    """An array header that claims terabytes fails in one line instead of being believed."""
    raw = packed(np.savez, whole)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "reward.npy":
                head = io.BytesIO()
                np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
                content = head.getvalue() + bytes(64)
            new.writestr(entry.filename, content)
    with pytest.raises(BundleError):
        unpack_parity(buffer.getvalue(), whole.manifest, "x")


def test_sizes_are_bounded_before_anything_is_unpacked(whole: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than its vectors can be is refused without a look inside; so is an entry that declares more."""
    raw = pack_parity(whole.parity)
    lying = bytearray(raw)
    name = lying.rindex(b"reward.npy")  # in the zip's directory, which is what declares the sizes
    lying[name - 22 : name - 18] = (2**31).to_bytes(4, "little")
    with pytest.raises(BundleError):
        unpack_parity(bytes(lying), whole.manifest, "x")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(BundleError, match="vectors take at most"):
        unpack_parity(raw + bytes(200_000), whole.manifest, "x")


def test_nothing_is_unpickled(whole: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of objects is refused by its header; no pickle is read on the way."""
    import pickle

    raw = packed(np.savez, whole, reward=np.array([{"a": 1}] * 193, dtype=object))
    for loader in ("load", "loads"):
        monkeypatch.setattr(pickle, loader, lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(BundleError, match="is object"):
        unpack_parity(raw, whole.manifest, "x")


def test_damaged_archives_raise_nothing_else(whole: Bundle) -> None:
    """Changed, inserted and missing bytes anywhere give BundleError or finite vectors of the right shape."""
    raw = pack_parity(whole.parity)

    @settings(max_examples=400)
    @given(st.integers(0, len(raw) - 1), st.binary(max_size=6), st.integers(0, 300))
    def check(at: int, put: bytes, cut: int) -> None:
        try:
            vectors = unpack_parity(raw[:at] + put + raw[at + cut :], whole.manifest, "x")
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(vectors.reward).all() and vectors.reward.shape == whole.parity.reward.shape

    check()


def test_bytes_that_are_no_archive_are_refused(whole: Bundle) -> None:
    """Garbage raises BundleError and nothing else."""
    for raw in (b"", b"PK", b"\x93NUMPY" + bytes(50), pack_parity(whole.parity)[:-30]):
        with pytest.raises(BundleError):
            unpack_parity(raw, whole.manifest, "x")
