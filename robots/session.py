"""Sessions: under a key that is kept for long, what was recorded of one day's driving says nothing on another.

    driver to robot   HELLO with a nonce of the driver's                    sealed with the key
    robot to driver   WELCOME with a nonce of the robot's and the driver's  sealed with the key
    both ways         everything else                                       sealed with `session_key`

The robot takes a new nonce whenever somebody takes it over, so that a seal of an earlier session fits no more. The
driver's own nonce tells it that the WELCOME is no recording. Without a key there is nothing to protect, and no HELLO.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from robots.datagram import HELLO, WELCOME, Message

NONCE = 16  # bytes
_NUMBERS = NONCE // 4  # a nonce travels as so many 32-bit integers: a payload is of float64, which holds them exactly


def session_key(key: bytes, nonce: bytes) -> bytes:
    """The key of one session: keyed BLAKE2b-256 (RFC 7693) of the robot's nonce.

    Args:
        key: What both ends were given.
        nonce: (16,) of the robot.

    Returns:
        (32,) bytes.
    """
    return hashlib.blake2b(nonce, key=key, digest_size=32, person=b"gcl session").digest()


def hello(request: int, nonce: bytes) -> Message:
    """What a driver says first.

    Args:
        request: Its number.
        nonce: (16,) bytes that the driver never used before.
    """
    return Message(HELLO, request, _numbers(nonce))


def welcomed(answer: Message, nonce: bytes) -> bytes | None:
    """The robot's nonce, (16,) bytes, out of the answer to `hello`; None if it is no answer to that nonce."""
    nonces = _nonces(answer.payload) if answer.kind == WELCOME else None
    return nonces[:NONCE] if nonces is not None and nonces[NONCE:] == nonce else None


class RobotSessions:
    """The robot's end: the key of who drives, and that of who may come next."""

    def __init__(self, key: bytes) -> None:
        """Waits for a first driver.

        Args:
            key: What both ends were given; empty for none, which is then every session's.
        """
        self._key = key
        self.present = b""  # of who drives; of no use while nobody does
        self._renew()

    def welcome(self, message: Message) -> Message | None:
        """The answer to a HELLO; None to anything else, or to one without a nonce."""
        nonce = _nonces(message.payload) if message.kind == HELLO else None
        if nonce is None or len(nonce) != NONCE:
            return None
        return Message(WELCOME, message.request, _numbers(self._nonce + nonce))

    def take_over(self) -> None:
        """Whoever came with the next key drives now; the one who comes after gets another."""
        self.present = self.next
        self._renew()

    def _renew(self) -> None:
        self._nonce = os.urandom(NONCE)
        self.next = session_key(self._key, self._nonce) if self._key else b""


def _numbers(nonces: bytes) -> np.ndarray:
    return np.frombuffer(nonces, dtype="<u4").astype(np.float64)


def _nonces(payload: np.ndarray) -> bytes | None:
    """The bytes of one or more nonces; None if they are none."""
    if payload.size == 0 or payload.size % _NUMBERS or not ((payload >= 0.0) & (payload < 2.0**32)).all():
        return None
    whole = payload.astype("<u4")
    return whole.tobytes() if (whole == payload).all() else None
