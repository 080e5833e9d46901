"""Hostile datagrams to both ends of the socket driver, without a socket in between."""

from __future__ import annotations

import socket
from collections import Counter, deque
from typing import cast

import numpy as np

from robots.backend import BackendError
from robots.datagram import decode, spec_mark
from robots.mock import MockBackend
from robots.server import RobotServer
from robots.spec import RobotSpec
from robots.udp import UdpBackend
from toolkit.fuzzing.datagram_oracle import (
    CLOSE,
    COMMAND,
    HELLO,
    MEASURE,
    NONCE,
    READING,
    REFUSAL,
    RESET,
    WELCOME,
    CommandOracle,
    Legal,
    ViolationError,
    body,
    may_be_read,
    nonce_numbers,
    read,
    seal,
    session_key,
)
from toolkit.fuzzing.datagrams import Mutator

_BATCHES = (1, 2, 4, 8, 32)  # hostile datagrams before a controller's right answer
_REMEMBERED = 256  # requests back that a controller in real time still takes an answer to
_DRIVER, _STRANGER = ("127.0.0.1", 40_000), ("127.0.0.1", 40_001)


class ServerTarget:
    """The robot's end: a server with a robot that writes down which commands it took."""

    def __init__(self, spec: RobotSpec, seed: int, key: bytes) -> None:
        """Nobody drives yet.

        Args:
            spec: The robot.
            seed: Of the hostile datagrams.
            key: That sessions begin with; empty for none.
        """
        mark = spec_mark(spec)
        self.counts: Counter[str] = Counter()
        self._robot = MockBackend(spec)
        self._server = RobotServer(self._robot, key)
        self._oracle = CommandOracle(mark, key, spec.act_dim)
        self._mutator = Mutator(seed, mark, key)
        self._mark, self._first_key, self._key = mark, key, key
        self._greeted = False  # the session that comes next has its key
        self._request = 2**32 - 1000  # wraps on the way
        self._act_dim = spec.act_dim

    def some(self, count: int) -> tuple[int, int]:
        """Sends `count` datagrams; returns how many, and how many were legal ones."""
        return count, sum(self.one() for _ in range(count))

    def one(self) -> bool:
        """Sends one datagram.

        Returns:
            Whether it was a legal one.

        Raises:
            ViolationError: It did what it must not, or raised.
        """
        if self._first_key and self._oracle.driver is None and not self._greeted:
            self._greet()
        draw = self._mutator.random.random()
        # A stranger who found the robot free would keep it: rarely, or there is nothing left to see.
        peer = _STRANGER if draw < (0.0001 if self._oracle.driver is None else 0.05) else _DRIVER
        if self._oracle.driver == _STRANGER:
            peer = _STRANGER if draw < 0.5 else _DRIVER
        datagram = self._mutator.spoil(self._good(draw))
        decoded(datagram, self._mark, self._key)
        before = len(self._robot.commands)
        try:
            answer = self._server.answer(datagram, peer)
        except Exception as error:
            raise ViolationError(f"the server raised {error!r} at {datagram[:80].hex()}") from error
        reached = self._robot.commands[before:]
        legal = self._oracle.check(datagram, peer, reached, answer)
        self.counts["commands that reached the robot"] += len(reached)
        if self._oracle.driver is not None:
            self._greeted = False
        if self._oracle.newest is not None:
            self._request = self._oracle.newest  # a driver knows what it said last, however far ahead that was
        if before > 1000:
            self._robot.commands.clear()
        return legal is not None

    def _greet(self) -> None:
        """Learns the next session's key. What was thrown before is of an earlier session, and must have no effect."""
        nonce = self._mutator.random.randbytes(NONCE)
        said = body(HELLO, 0, nonce_numbers(nonce), self._mark)
        answer = self._server.answer(said + seal(said, self._first_key), _DRIVER)
        legal = None if answer is None else read(answer, self._mark, self._first_key)
        if legal is None or legal.kind != WELCOME or legal.payload[8 * NONCE // 4 :] != nonce_numbers(nonce):
            raise ViolationError(f"a hello was answered by {legal}")
        robots_nonce = legal.numbers[: NONCE // 4].astype("<u4").tobytes()
        self._key = self._oracle.key = self._mutator.key = session_key(self._first_key, robots_nonce)
        self._greeted = True

    def _good(self, draw: float) -> bytes:
        self._request += 1
        if self._oracle.driver == _STRANGER and draw < 0.1:
            return self._mutator.good(CLOSE, self._request, [])
        if draw < 0.1 or self._oracle.driver is None:
            return self._mutator.good(RESET, self._request, [self._mutator.random.choice((-1.0, 5.0, 1e300, 0.5))])
        if draw < 0.15:
            return self._mutator.good(MEASURE, self._request, [])
        if draw < 0.16:
            return self._mutator.good(CLOSE, self._request, [])
        return self._mutator.good(COMMAND, self._request, [draw] * self._act_dim)


class ControllerTarget:
    """The controller's end: a backend whose socket is a queue of answers."""

    def __init__(self, spec: RobotSpec, seed: int, key: bytes, real_time: bool) -> None:
        """Asks for a first reading.

        Args:
            spec: The robot.
            seed: Of the hostile datagrams.
            key: That the session begins with; empty for none.
            real_time: Which of the backend's two ways to wait is tried.
        """
        self.counts: Counter[str] = Counter()
        self._mark, self._channels = spec_mark(spec), len(spec.channels)
        self._first_key = self._key = key
        self._mutator = Mutator(seed, self._mark, key)
        self._remembered = _REMEMBERED if real_time else 1
        self._command = np.zeros(spec.act_dim)
        self._queue: deque[bytes] = deque()
        self._given: list[bytes] = []
        self._hostile = False  # whether answers are spoiled
        self._sequence = 0
        self._readable, writing = socket.socketpair()
        writing.close()
        self._backend = UdpBackend(spec, "127.0.0.1:9", key=key, real_time=real_time)
        real = self._backend._socket
        # The fields of the backend that this file knows: what it receives from, and what it asked last.
        self._backend._socket = cast(socket.socket, self)
        if real is not None:
            real.close()
        self._backend.reset()

    # What the backend uses of a socket:

    def fileno(self) -> int:
        """A descriptor that can always be read: what is there is there, and waiting takes no time."""
        return self._readable.fileno()

    def close(self) -> None:
        """Closes that descriptor."""
        self._readable.close()

    def send(self, datagram: bytes) -> int:
        """Takes a request and puts the answers to it into the queue, the right one last."""
        self._queue.clear()
        request = int.from_bytes(datagram[8:12], "little")
        if datagram[4] == HELLO:
            self._queue.append(self._welcome(datagram, request))
            return len(datagram)
        for _ in range(self._mutator.random.choice(_BATCHES) if self._hostile else 0):
            self._queue.append(self._mutator.spoil(self._answer(request)))
        self._sequence += 1
        self._queue.append(self._mutator.good(READING, request, [self._sequence, *[0.5] * self._channels]))
        return len(datagram)

    def _welcome(self, datagram: bytes, request: int) -> bytes:
        legal, nonce = read(datagram, self._mark, self._first_key), self._mutator.random.randbytes(NONCE)
        if legal is None:
            raise ViolationError(f"a hello that is none: {datagram.hex()}")
        self._key = self._mutator.key = session_key(self._first_key, nonce)
        said = body(WELCOME, request, nonce_numbers(nonce) + legal.payload, self._mark)
        return said + seal(said, self._first_key)

    def recv(self, size: int, flags: int) -> bytes:
        """The next answer."""
        if not self._queue:
            raise BlockingIOError
        self._given.append(self._queue.popleft())
        return self._given[-1]

    def some(self, count: int) -> tuple[int, int]:
        """Sends `count` datagrams or a few more; returns how many, and how many were legal ones."""
        sent, before = 0, self.counts["legal"]
        while sent < count:
            sent += self.batch()
        return sent, self.counts["legal"] - before

    def batch(self) -> int:
        """Lets the backend take one step among hostile answers.

        Returns:
            How many it received.

        Raises:
            ViolationError: It took for a reading what is none, or raised what it must not.
        """
        self._given.clear()
        self._hostile = True
        request, reading, refused = 0, None, None
        before = self._backend._newest
        try:
            reading = self._backend.step(self._command)
        except BackendError as error:
            refused = str(error)
        except Exception as error:
            raise ViolationError(f"the controller raised {error!r}") from error
        finally:
            self._hostile = False
        request = self._backend._request
        legal = [decoded(datagram, self._mark, self._key) for datagram in self._given]
        judged = [
            (said, may_be_read(said, request, self._remembered, self._channels)) for said in legal if said is not None
        ]
        self.counts["legal"] += len(judged)
        if refused is not None:
            self._check_refusal(refused, [what for _, what in judged])
            self._backend.reset()
        elif reading is not None and reading is not before:
            payloads = {said.payload[8:] for said, what in judged if what == "reading"}
            if reading.values.tobytes() not in payloads:
                raise ViolationError(f"a reading that nobody sent: {reading}")
            self.counts["readings"] += 1
            if reading.sequence > self._sequence:
                self._backend.reset()  # after a reading numbered from far ahead no other is newer
        return len(self._given)

    def _check_refusal(self, reason: str, judged: list[str]) -> None:
        if "error" not in judged:
            raise ViolationError(f"without an answer that is no reading: {reason}")
        try:
            reason.encode()
        except UnicodeEncodeError as error:
            raise ViolationError(f"a refusal that cannot be printed: {reason!r}") from error
        self.counts["refusals"] += 1

    def _answer(self, request: int) -> bytes:
        draw = self._mutator.random.random()
        request -= self._mutator.random.choice((0, 0, 0, 1, 2, 255, 256, 2**31)) if draw < 0.5 else 0
        if draw < 0.02:
            return self._mutator.good(REFUSAL, request, [72.0, 105.0])
        # Mostly of another request, or a batch would end with its first datagram
        other = request + self._mutator.random.choice((1, 300, 2**31, 0)) if draw < 0.97 else request
        sequence = self._sequence + self._mutator.random.choice((-5, 0, 1, 1, 2))
        return self._mutator.good(READING, other, [sequence, *[draw] * self._channels])


def decoded(datagram: bytes, mark: bytes, key: bytes) -> Legal | None:
    """Checks that `robots.datagram.decode` and the oracle see the same in a datagram.

    Args:
        datagram: Whatever it is.
        mark: Of the robot.
        key: Of the session; empty for none.

    Returns:
        What they see.

    Raises:
        ViolationError: They differ, or it raised.
    """
    legal = read(datagram, mark, key)
    try:
        message = decode(datagram, mark, key)
    except Exception as error:
        raise ViolationError(f"decode raised {error!r} at {datagram[:80].hex()}") from error
    if (message is None) != (legal is None):
        raise ViolationError(f"decode says {message}, the format says {legal}: {datagram[:80].hex()}")
    if message is not None and legal is not None:
        same = (message.kind, message.request) == (legal.kind, legal.request)
        if not same or message.payload.astype("<f8").tobytes() != legal.payload:
            raise ViolationError(f"decode read {message} out of {datagram[:80].hex()}")
    return legal
