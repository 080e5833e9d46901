"""What a datagram may cause, written a second time from the description of the format and from nothing else.

Only this file knows the format on the fuzzer's side. It shares no code with `robots/datagram.py`: where the two differ,
one of them is wrong.
"""

from __future__ import annotations

import binascii
import hashlib
import math
import time
from dataclasses import dataclass

import numpy as np

MAGIC, HEADER_BYTES = b"GCL1", 24
RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE, HELLO, WELCOME = range(1, 9)
NONCE = 16  # bytes, which travel as four numbers
LONGEST = 65_507  # bytes
HALF = 2**31  # requests further ahead than this are behind
_SILENT = 0.5  # [s] a driver heard less long ago than this cannot have lost the robot yet: the limit is 1


class ViolationError(Exception):
    """The code under test did what it must not."""


@dataclass(frozen=True)
class Legal:
    """A datagram in which nothing is wrong."""

    kind: int
    request: int
    payload: bytes  # little-endian float64

    @property
    def numbers(self) -> np.ndarray:
        """(count,) float64."""
        return np.frombuffer(self.payload, dtype="<f8")


def seal(body: bytes, key: bytes) -> bytes:
    """What stands at the end of a datagram: CRC-32, or the keyed BLAKE2b-128."""
    if key:
        return hashlib.blake2b(body, digest_size=16, key=key).digest()
    return binascii.crc32(body).to_bytes(4, "little")


def body(kind: int, request: int, payload: bytes, mark: bytes) -> bytes:
    """All of a datagram but its seal."""
    head = MAGIC + bytes([kind, 0, 0, 0]) + request.to_bytes(4, "little") + (len(payload) // 8).to_bytes(4, "little")
    return head + mark + payload


def session_key(key: bytes, nonce: bytes) -> bytes:
    """What the datagrams of a session are sealed with: keyed BLAKE2b-256 of its purpose and the robot's nonce."""
    return hashlib.blake2b(b"gcl session" + nonce, digest_size=32, key=key).digest()


def nonce_numbers(nonces: bytes) -> bytes:
    """A payload that says nonces: each four bytes, little-endian, as one number."""
    return np.frombuffer(nonces, dtype="<u4").astype("<f8").tobytes()


def read(datagram: bytes, mark: bytes, key: bytes) -> Legal | None:
    """Judges a datagram.

    Args:
        datagram: Whatever it is.
        mark: Of the robot.
        key: Of the session; empty for none.

    Returns:
        What it says, None unless all of it is as the format has it.
    """
    length = 16 if key else 4
    said, tail = datagram[:-length], datagram[-length:]
    if len(said) < HEADER_BYTES or len(datagram) > LONGEST or seal(said, key) != tail:
        return None
    kind, request, count = said[4], int.from_bytes(said[8:12], "little"), int.from_bytes(said[12:16], "little")
    if said[:4] != MAGIC or said[5:8] != bytes(3) or said[16:24] != mark or not RESET <= kind <= WELCOME:
        return None
    return Legal(kind, request, said[24:]) if len(said) - HEADER_BYTES == 8 * count else None


class CommandOracle:
    """Follows what a robot's server does, and says when a command reached the robot that must not have."""

    def __init__(self, mark: bytes, key: bytes, act_dim: int) -> None:
        """Nobody drives yet.

        Args:
            mark: Of the robot.
            key: Of the session; empty for none.
            act_dim: Numbers in a command.
        """
        self._mark, self.key, self._act_dim = mark, key, act_dim
        self.driver: object = None
        self.newest: int | None = None  # request of the driver that was answered last
        self._heard = -math.inf  # [s]

    def check(self, datagram: bytes, peer: object, reached: list[np.ndarray], answer: bytes | None) -> Legal | None:
        """Judges one datagram's effects.

        Args:
            datagram: What was sent.
            peer: By whom.
            reached: Commands that reached the robot because of it.
            answer: What the server answered.

        Returns:
            The datagram, if it was a legal one.

        Raises:
            ViolationError: Something reached the robot, or was answered, that must not.
        """
        legal = read(datagram, self._mark, self.key)
        if legal is None:
            if reached or answer is not None:
                raise ViolationError(f"a malformed datagram had an effect: {datagram[:80].hex()}")
            return None
        if reached:
            self._check_command(legal, peer, reached)
        now = time.monotonic()
        if answer is not None:
            self._answered(legal, peer, now)
        if peer == self.driver:
            self._heard = now
            ahead = self.newest is None or (legal.request - self.newest) % 2**32 < HALF
            if legal.kind == CLOSE and ahead:
                self.driver, self.newest = None, None
        return legal

    def _check_command(self, legal: Legal, peer: object, reached: list[np.ndarray]) -> None:
        if legal.kind != COMMAND:
            raise ViolationError(f"a message of kind {legal.kind} moved the robot")
        if peer != self.driver:
            raise ViolationError(f"{peer} moved the robot that {self.driver} drives")
        if self.newest is None or not 0 < (legal.request - self.newest) % 2**32 < HALF:
            raise ViolationError(f"request {legal.request} was obeyed after {self.newest}")
        if len(reached) != 1 or reached[0].tobytes() != legal.payload:
            raise ViolationError(f"one command was asked for and others reached the robot: {reached}")
        if reached[0].shape != (self._act_dim,) or not all(math.isfinite(value) for value in reached[0].tolist()):
            raise ViolationError(f"a malformed command reached the robot: {reached[0]}")

    def _answered(self, legal: Legal, peer: object, now: float) -> None:
        if peer != self.driver:
            if legal.kind not in (RESET, MEASURE):
                raise ViolationError(f"{peer} was answered without taking the robot over: kind {legal.kind}")
            if self.driver is not None and now - self._heard < _SILENT:
                raise ViolationError(f"{peer} took the robot from {self.driver}, which is not silent")
            self.driver, self.newest = peer, None
        if self.newest is None or (legal.request - self.newest) % 2**32 < HALF:
            self.newest = legal.request
        else:
            raise ViolationError(f"request {legal.request} was answered after {self.newest}")


def may_be_read(legal: Legal, request: int, remembered: int, num_channels: int) -> str:
    """What a controller may make of a legal datagram while it waits for an answer.

    Args:
        legal: The datagram.
        request: That is waited for.
        remembered: How many requests back an answer still counts; 1 for none but this one.
        num_channels: Of the robot.

    Returns:
        "reading", "error" for an answer that is no reading of this robot, or "nothing" for what answers nothing asked.
    """
    if (request - legal.request) % 2**32 >= remembered:
        return "nothing"
    if legal.kind not in (READING, REFUSAL, WELCOME):
        return "nothing"  # such as our own request, sent back
    numbers = legal.numbers
    if legal.kind != READING or numbers.size != 1 + num_channels:
        return "error"
    sequence = float(numbers[0])
    return "reading" if sequence >= 0 and math.isfinite(sequence) and sequence == int(sequence) else "error"
