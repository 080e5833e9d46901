"""Seals: what stands at the end of a datagram, so that damage shows and, with a key, nobody else can have made it."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

TAG = 16  # bytes of a keyed seal
NONCE = 16  # bytes that are random and used once
LEAST_KEY, MOST_KEY = 16, 64  # bytes of a key that people share
_CRC = struct.Struct("<I")


def seal_size(key: bytes) -> int:
    """[bytes] of a seal."""
    return TAG if key else _CRC.size


def length_fault(key: bytes) -> str | None:
    """What is wrong with the length of a key that people share, in a few words; None if nothing is."""
    if LEAST_KEY <= len(key) <= MOST_KEY:
        return None
    return f"a key of {len(key)} bytes; legal are {LEAST_KEY} to {MOST_KEY}"


def seal(body: bytes, key: bytes) -> bytes:
    """The seal of a datagram: its CRC-32, or with a key its keyed BLAKE2b (RFC 7693).

    Args:
        body: All of the datagram before it.
        key: At most 64 bytes that both ends share; empty for none.

    Returns:
        (seal_size,) bytes.
    """
    if key:
        return hashlib.blake2b(body, key=key, digest_size=TAG).digest()
    return _CRC.pack(zlib.crc32(body))


def is_sealed(datagram: bytes, key: bytes) -> bool:
    """Whether a datagram ends with its seal, and is as it was made."""
    end = len(datagram) - seal_size(key)
    return hmac.compare_digest(datagram[end:], seal(datagram[:end], key))
