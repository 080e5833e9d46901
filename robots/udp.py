"""UdpBackend: a robot at the other end of a network cable.

The peer may be `python -m export.guardian`, which owns a robot or a simulated one, or a few lines of C on a motor
board; `robots/datagram.py` and `robots/session.py` say what goes over the wire.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from robots.address import is_loopback, parse_address
from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.datagram import (
    CLOSE,
    COMMAND,
    LARGEST,
    MEASURE,
    READING,
    REFUSAL,
    RESET,
    WELCOME,
    Message,
    decode,
    encode,
    spec_mark,
)
from robots.processors import available_cpus
from robots.seal import NONCE
from robots.session import hello, session_key, welcomed
from robots.spec import RobotSpec

_ATTEMPTS = 4  # times a request is sent before the robot counts as gone
_FAREWELLS = 3  # nobody answers one, and the robot's side takes the loss of it for the loss of its controller
_LAST_COMMANDS = 4  # times the last command is sent, unless it is answered sooner
_LAST_WAIT = 0.1  # [s] for which each of these is waited for, at most
_LEAST_WAIT_NS = 50_000  # [ns] for which an answer is waited for, however late it is already
# Datagrams taken at a time, however late it is: what stays behind is older than what comes, and doubled answers, of
# which more come than one a step, would pile up until every reading is stale. Noise without end must not hold a loop
_MOST_TAKEN = 32
_AWAKE_NS = 500_000  # [ns] for which an answer is looked for without sleeping, at most
_REMEMBERED = 256  # requests whose answers may still come late
_ANSWERS = (READING, REFUSAL, WELCOME)  # what else comes is our own, sent back
_Taken = TypeVar("_Taken")


class UdpBackend(Backend):
    """Drives a robot that answers on a UDP address."""

    _unanswered = b""  # newest request, in real time, while no answer to it was heard
    _asked = False  # anything at all: else there is nothing to end
    _abandoned = False  # in motion, and its own side has to notice: no farewell

    def __init__(
        self,
        spec: RobotSpec,
        address: str,
        *,
        seed: int | None = None,
        timeout_seconds: float = 1.0,
        reset_timeout_seconds: float = 10.0,
        allow_remote: bool = False,
        key: bytes = b"",
        real_time: bool = False,
    ) -> None:
        """Opens the socket; nothing is sent yet.

        Args:
            spec: The robot; the peer must have the very same description.
            address: "127.0.0.1:9870".
            seed: Sent with the first reset; a simulated robot begins its episodes from it. None leaves it as it is.
            timeout_seconds: [s] how long to wait for a reading.
            reset_timeout_seconds: [s] how long a robot may take to get to its start.
            allow_remote: Whether the address may be on another machine. Without a key datagrams can be forged, so this
                is for a cable or a network of your own; with one they cannot, but are not secret.
            key: At most 64 bytes that the robot's side knows too; empty for none.
            real_time: A reading is waited for at most 0.8 control periods, and not beyond `answer_by_ns`, and the
                newest one there is counts, so that a lost datagram or a late start costs the loop a repeated reading
                and no deadline. Between `send` and `receive` the robot answers while the loop does other things.
                Otherwise it asks again until the time-out, and no step is ever lost: for recording and tests.

        Raises:
            BackendError: The address is malformed, unusable, or remote without `allow_remote`, or the key is too long.
        """
        host, port = parse_address(address)
        if not (allow_remote or is_loopback(host)):
            raise BackendError(
                f"{address} is not on this machine; datagrams are not protected: allow remote explicitly"
            )
        if len(key) > 64:
            raise BackendError(f"a key of {len(key)} bytes; legal are up to 64")
        self.spec, self._address = spec, f"{host}:{port}"
        self._mark, self._key = spec_mark(spec), key
        self._session_key = b""  # of the present session, where there is a key; else there are no sessions
        if seed is not None and not 0 <= seed < 2**53:
            raise BackendError(f"seed {seed}; a seed sent to a robot lies in [0, 2**53)")
        self._seed, self._timeout, self._reset_timeout = seed, timeout_seconds, reset_timeout_seconds
        self._request = 0
        self._running = False
        self._wait_ns = round(0.8e9 * spec.control_dt) if real_time else None
        # Who sleeps has to be woken, which now and then takes longer than all else in a step. With one processor the
        # robot's side could not answer meanwhile.
        self._awake_ns = min(round(0.25e9 * spec.control_dt), _AWAKE_NS) if available_cpus() > 1 else 0
        self._sent_ns = [0] * _REMEMBERED  # [ns] when each of the newest requests was sent
        self._newest: SensorReading | None = None
        self._answer_due = False  # between `send` and `receive`, in real time
        self._socket: socket.socket | None = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            # Connected, the kernel hands over datagrams of this peer only.
            self._socket.connect((host, port))
        except OSError as error:
            self._socket.close()
            raise BackendError(f"cannot use {self._address}: {error}") from error

    def reset(self) -> SensorReading:
        """Asks the robot to go to the start of an episode."""
        seed = -1 if self._seed is None else self._seed
        self._running = self._answer_due = False
        self._greet()
        reading = self._ask(RESET, np.array([seed], dtype=np.float64), self._reset_timeout)
        self._seed = None
        self._running, self._abandoned, self._unanswered = True, False, b""
        self._newest = reading
        return reading

    def step(self, command: np.ndarray) -> SensorReading:
        """Sends one command and waits for the reading that answers it."""
        if self._wait_ns is not None:
            self.send(command)
            return self.receive()
        self._check(command)
        return self._ask(COMMAND, command, self._timeout)

    def send(self, command: np.ndarray) -> None:
        """Sends one command; in real time it waits for nothing."""
        if self._wait_ns is None:
            super().send(command)
            return
        self._check(command)
        self._say(COMMAND, command)
        self._answer_due = True

    def receive(self) -> SensorReading:
        """The reading that answers the last command; in real time the newest that is there by `answer_by_ns`."""
        if self._wait_ns is None:
            return super().receive()
        if not self._answer_due:
            raise BackendError("receive before send")
        self._answer_due = False
        return self._hear(self._wait_ns)

    def measure(self) -> SensorReading:
        """Asks for a reading and nothing else; in the loop it waits no longer than half of what a step may take."""
        if self._wait_ns is None or not self._running:
            if not self._session_key:
                self._greet()
            try:
                return self._ask(MEASURE, np.empty(0), self._reset_timeout)  # connecting to the robot may take a while
            except BackendError:
                if not self._running:
                    self._session_key = b""  # the robot may have been switched off, or driven by somebody else
                raise
        self._say(MEASURE, np.empty(0))
        return self._hear(self._wait_ns // 2)

    def close(self) -> None:
        """Tells the robot that nobody drives it any more. Closing twice is allowed.

        A robot that could not be reached is not told: it was not brought to rest, and its own side must notice.
        """
        if self._socket is not None:
            try:
                if self._asked and not self._abandoned:
                    self._say_goodbye(self._socket)
            except OSError:
                pass  # Whoever is gone already needs no farewell.
            self._socket.close()
            self._socket = None

    def __exit__(self, *error: object) -> None:
        """Closes; after an exception without a farewell, if the robot may be in motion: that is no end in order."""
        self._abandoned = self._abandoned or (self._running and any(error))
        self.close()

    def _say_goodbye(self, sock: socket.socket) -> None:
        """The last command brings the robot to rest: the farewell must not overtake it, nor come without it."""
        wait = min(self.spec.control_dt, _LAST_WAIT)
        for _ in range(_LAST_COMMANDS - 1 if self._running and self._unanswered else 0):
            if self._await(sock, time.monotonic() + wait, self._session_key) is not None:
                break
            sock.send(self._unanswered)
        farewell = encode(Message(CLOSE, (self._request + 1) % 2**32, np.empty(0)), self._mark, self._session_key)
        for _ in range(_FAREWELLS):
            sock.send(farewell)

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise BackendError("the connection to the robot is closed")
        return self._socket

    def _check(self, command: np.ndarray) -> None:
        self._open_socket()
        if not self._running:
            raise BackendError("step before reset")
        check_command(self.spec, command)

    def _say(self, kind: int, payload: np.ndarray) -> None:
        """Sends a request that `_hear` listens for the answer to."""
        sock = self._open_socket()
        self._next_request()
        self._sent_ns[self._request % _REMEMBERED] = time.monotonic_ns()
        self._unanswered = encode(Message(kind, self._request, payload), self._mark, self._session_key)
        try:
            sock.send(self._unanswered)
        except OSError as error:
            raise self._gone(error) from error

    def _hear(self, wait_ns: int) -> SensorReading:
        """The newest reading there is when the last request is answered, or was sent `wait_ns` ago."""
        sock, newest = self._open_socket(), self._newest
        assert newest is not None, "a robot in motion was reset, and that is answered by a reading"
        sent = self._sent_ns[self._request % _REMEMBERED]
        until = sent + wait_ns
        if self.answer_by_ns is not None:
            until = min(until, self.answer_by_ns)
        until = max(until, time.monotonic_ns() + _LEAST_WAIT_NS)
        awake_until = sent + self._awake_ns
        found, taken = True, 0  # as a rule there is one, and to look costs less than to ask first
        try:
            while (now := time.monotonic_ns()) < until or (found and taken < _MOST_TAKEN):
                came = self._take(sock) if found or now < awake_until else self._wait(sock, (until - now) * 1e-9)
                found = came is not None
                if came is None:
                    continue
                taken += 1
                answer = decode(came, self._mark, self._session_key)
                if answer is None or answer.kind not in _ANSWERS:
                    continue  # not one of this robot's, or of another session
                behind = (self._request - answer.request) % 2**32
                if behind >= _REMEMBERED:
                    continue  # an answer to nothing we asked lately
                # It was measured after its request was sent, and for all we know right then: it may have been long on
                # the way, or long here.
                reading = self._reading(answer, self._sent_ns[answer.request % _REMEMBERED])
                if reading.sequence > newest.sequence:
                    newest = reading
                if behind == 0:
                    self._unanswered = b""
                    break
        except OSError as error:
            raise self._gone(error) from error
        self._newest = newest
        return newest

    def _gone(self, error: OSError) -> BackendError:
        self._abandoned = self._abandoned or self._running
        return BackendError(f"no robot at {self._address}: {error.strerror or error}")

    def _greet(self) -> None:
        """Begins a session, where there is a key."""
        if not self._key:
            return
        nonce = os.urandom(NONCE)
        told = self._exchange(
            hello(self._next_request(), nonce), self._reset_timeout, self._key, lambda answer: welcomed(answer, nonce)
        )
        self._session_key = session_key(self._key, told)

    def _ask(self, kind: int, payload: np.ndarray, timeout: float) -> SensorReading:
        message = Message(kind, self._next_request(), payload)
        answer = self._exchange(message, timeout, self._session_key, lambda answer: answer)
        return self._reading(answer, time.monotonic_ns())

    def _next_request(self) -> int:
        self._request, self._asked = (self._request + 1) % 2**32, True
        return self._request

    def _exchange(
        self, message: Message, timeout: float, key: bytes, take: Callable[[Message], _Taken | None]
    ) -> _Taken:
        """Asks until it is answered or the time-out is over; `take` makes None of what is no answer after all."""
        sock, datagram = self._open_socket(), encode(message, self._mark, key)
        deadline = time.monotonic() + timeout
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                sock.send(datagram)
                until = deadline - timeout * (_ATTEMPTS - attempt) / _ATTEMPTS
                while (answer := self._await(sock, until, key)) is not None:
                    if (taken := take(answer)) is not None:
                        return taken
        except OSError as error:
            raise self._gone(error) from error
        raise BackendError(
            f"the robot at {self._address} did not answer within {timeout:g} s; is it the same robot"
            f"{' and the same key' if self._key else ''}?"
        )

    def _await(self, sock: socket.socket, deadline: float, key: bytes) -> Message | None:
        """The answer to the present request, None if it does not come in time."""
        while (left := deadline - time.monotonic()) > 0:
            came = self._wait(sock, left)
            answer = None if came is None else decode(came, self._mark, key)
            # Late answers to earlier requests end here, as does noise.
            if answer is not None and answer.kind in _ANSWERS and answer.request == self._request:
                return answer
        return None

    def _wait(self, sock: socket.socket, seconds: float) -> bytes | None:
        """The next datagram, None if none comes in time."""
        # Not the socket's own time-out, which Python rounds up to whole milliseconds: at 500 Hz a lost answer would
        # cost a deadline.
        return self._take(sock) if select.select([sock], [], [], seconds)[0] else None

    def _take(self, sock: socket.socket) -> bytes | None:
        """The next datagram that has come already, None if there is none."""
        try:
            return sock.recv(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _reading(self, answer: Message, timestamp_ns: int) -> SensorReading:
        if answer.kind == REFUSAL:
            self._running = False
            reason = "".join(chr(int(c)) if 32 <= c < 0xD800 or 0xE000 <= c < 0x110000 else "?" for c in answer.payload)
            raise BackendError(f"the robot at {self._address} refused: {reason}")
        expected = 1 + len(self.spec.channels)
        if answer.kind != READING or answer.payload.size != expected:
            raise BackendError(f"the robot at {self._address} sent {answer.payload.size} numbers; expected {expected}")
        sequence = answer.payload[0]
        if not (sequence >= 0 and sequence.is_integer()):
            raise BackendError(f"the robot at {self._address} sent a reading numbered {sequence}")
        return SensorReading(answer.payload[1:].copy(), timestamp_ns, int(sequence))
