"""Seals of datagrams: by hand, and seen to be wrong."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.seal import is_sealed, seal, seal_size

KEY = b"a key"


def test_by_hand() -> None:
    """CRC-32 as everybody computes it, little-endian; keyed BLAKE2b-128."""
    assert seal(b"123456789", b"") == (0xCBF43926).to_bytes(4, "little")
    assert seal(b"body", KEY) == hashlib.blake2b(b"body", key=KEY, digest_size=16).digest()


@given(body=st.binary(max_size=60), key=st.sampled_from((b"", KEY)), data=st.data())
def test_what_is_changed_is_not_sealed(body: bytes, key: bytes, data: st.DataObject) -> None:
    """A flipped byte anywhere, a cut, or another key; and nothing that is too short is, nor raises."""
    datagram = body + seal(body, key)
    assert len(datagram) == len(body) + seal_size(key) and is_sealed(datagram, key)
    place = data.draw(st.integers(0, len(datagram) - 1))
    flipped = bytearray(datagram)
    flipped[place] ^= data.draw(st.integers(1, 255))
    assert not is_sealed(bytes(flipped), key) and not is_sealed(datagram, b"another key")


@pytest.mark.parametrize("key", [b"", KEY])
def test_what_is_too_short(key: bytes) -> None:
    """Shorter than a seal."""
    for length in range(seal_size(key)):
        assert not is_sealed(bytes(range(1, length + 1)), key)
