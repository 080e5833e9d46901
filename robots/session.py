"""Sessions: under a key that is kept for long, what was recorded of one day's driving says nothing on another.

    driver to robot   HELLO with a nonce of the driver's                    sealed with the key
    robot to driver   WELCOME with a nonce of the robot's and the driver's  sealed with the key
    both ways         everything else                                       sealed with `session_key`

A nonce is 16 random bytes, and travels as four numbers: each four bytes, as little-endian integer. The robot takes a
new one whenever somebody takes it over, so that a seal of an earlier session fits no more. It lets go of one with which
nobody came in time: a RESET that was not obeyed may have been recorded. The driver's own tells it that the WELCOME is
no recording. Without a key there is nothing to protect, and no HELLO.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from robots.datagram import HELLO, WELCOME, Message
from robots.seal import NONCE

_NUMBERS = NONCE // 4
_PURPOSE = b"gcl session"
# [s] for which a nonce is told to others after the first, and for which one may come with it: who was told it last may
# try for 10 s until his RESET arrives
_TOLD_SECONDS, _TAKEN_SECONDS = 10.0, 25.0


def session_key(key: bytes, nonce: bytes) -> bytes:
    """The key of one session: keyed BLAKE2b-256 (RFC 7693) of "gcl session" and the robot's nonce.

    Args:
        key: What both ends were given.
        nonce: (16,) of the robot.

    Returns:
        (32,) bytes.
    """
    return hashlib.blake2b(_PURPOSE + nonce, key=key, digest_size=32).digest()


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

    def welcome(self, message: Message, now: float) -> Message | None:
        """Answers a HELLO.

        Args:
            message: What came.
            now: [s] monotonic clock.

        Returns:
            The WELCOME; None to anything else, or to a HELLO without a nonce.
        """
        nonce = _nonces(message.payload) if message.kind == HELLO else None
        if nonce is None or len(nonce) != NONCE:
            return None
        if self._told is not None and now - self._told > _TOLD_SECONDS:
            self._renew()
        if self._told is None:
            self._told = now
        return Message(WELCOME, message.request, _numbers(self._nonce + nonce))

    def following(self, now: float) -> bytes | None:
        """The key with which somebody may take over at `now` [s]; None while there is none."""
        if not self._key:
            return b""
        if self._told is None or now - self._told > _TAKEN_SECONDS:
            return None
        return session_key(self._key, self._nonce)

    def take_over(self, key: bytes) -> None:
        """Whoever came with that key drives now; the one who comes after needs another."""
        self.present = key
        self._renew()

    def _renew(self) -> None:
        self._nonce = os.urandom(NONCE)
        self._told: float | None = None  # [s] when somebody was first told it


def _numbers(nonces: bytes) -> np.ndarray:
    return np.frombuffer(nonces, dtype="<u4").astype(np.float64)


def _nonces(payload: np.ndarray) -> bytes | None:
    """The bytes of one or more nonces; None if they are none."""
    if payload.size == 0 or payload.size % _NUMBERS or not ((payload >= 0.0) & (payload < 2.0**32)).all():
        return None
    whole = payload.astype("<u4")
    return whole.tobytes() if (whole == payload).all() else None
