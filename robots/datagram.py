"""The datagrams between a controller and a robot, one each way per control step.

Little-endian:

    magic "GCL1" | kind u8 | 3 zero bytes | request u32 | count u32 | spec 8 bytes | payload count x f64 | seal

`spec` is the head of the robot description's SHA-256, so that a controller never drives another robot. The seal is over
all bytes before it: their CRC-32 (4 bytes), which shows damage; or, where both ends share a key, their keyed BLAKE2b
(16 bytes, RFC 7693), which nobody without the key can make. Each answer repeats the number of the request that it
answers; a request that comes again is answered again and not obeyed again, so a lost datagram costs a moment and never
a second step. The key is not always the one that both ends were given: see `robots/session.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from robots.seal import TAG, is_sealed, seal, seal_size
from robots.spec import RobotSpec

RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE, HELLO, WELCOME = _KINDS = tuple(range(1, 9))
_MAGIC = b"GCL1"
_HEADER = struct.Struct("<4sB3xII8s")
LARGEST = 65_507  # bytes in the longest UDP datagram
_MOST = (LARGEST - _HEADER.size - TAG) // 8  # numbers that fit


@dataclass(frozen=True)
class Message:
    """A datagram that came through undamaged and is meant for this robot."""

    kind: int  # one of RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE, HELLO, WELCOME
    request: int  # number of the request; an answer carries that of its request
    payload: np.ndarray  # (count,) float64: RESET [seed or -1], COMMAND the command, READING [sequence, *values],
    # REFUSAL the characters of the reason, HELLO the driver's nonce, WELCOME the robot's and then the driver's


def spec_mark(spec: RobotSpec) -> bytes:
    """The 8 bytes by which both ends know that they speak of the same robot."""
    return bytes.fromhex(spec.sha256)[:8]


def refusal(request: int, reason: str) -> Message:
    """The answer that a request was not obeyed.

    Args:
        request: Its number.
        reason: One line; what is beyond 500 characters is cut off.

    Returns:
        The message.
    """
    return Message(REFUSAL, request, np.array([ord(c) for c in reason[:500]], dtype=np.float64))


def encode(message: Message, mark: bytes, key: bytes = b"") -> bytes:
    """Writes a datagram.

    Args:
        message: What to say.
        mark: `spec_mark` of the robot.
        key: At most 64 bytes that both ends share; empty for none.

    Returns:
        The bytes to send.
    """
    payload = np.ascontiguousarray(message.payload, dtype="<f8").tobytes()
    body = _HEADER.pack(_MAGIC, message.kind, message.request, len(payload) // 8, mark) + payload
    return body + seal(body, key)


def decode(datagram: bytes, mark: bytes, key: bytes = b"") -> Message | None:
    """Reads a datagram.

    Args:
        datagram: Whatever arrived.
        mark: `spec_mark` of the robot.
        key: As for `encode`.

    Returns:
        The message, or None for anything damaged, forged, foreign or meant for another robot. Never raises.
    """
    end = len(datagram) - seal_size(key)
    if end < _HEADER.size:
        return None
    magic, kind, request, count, found = _HEADER.unpack_from(datagram)
    if magic != _MAGIC or kind not in _KINDS or found != mark or datagram[5:8] != b"\0\0\0":
        return None
    if count > _MOST or end != _HEADER.size + 8 * count:
        return None
    if not is_sealed(datagram, key):
        return None
    # A copy: the datagram's own bytes are neither aligned nor writable.
    return Message(kind, request, np.frombuffer(datagram, "<f8", count, _HEADER.size).astype(np.float64))
