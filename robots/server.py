"""The robot's end of the cable: answers a controller's datagrams with a backend, whichever that is."""

from __future__ import annotations

import time

import numpy as np

from robots.backend import Backend, BackendError, SensorReading
from robots.datagram import (
    CLOSE,
    COMMAND,
    HELLO,
    MEASURE,
    READING,
    RESET,
    Message,
    decode,
    encode,
    refusal,
    spec_mark,
)
from robots.session import RobotSessions
from robots.spec import ToolkitError

SILENCE = 1.0  # [s] without a word from the driver before another may take over
Peer = tuple[str, int]  # host, port


class RobotServer:
    """Obeys one driver, each request once and in order; knows nothing of sockets, so a test can hand it anything."""

    def __init__(self, backend: Backend, key: bytes = b"") -> None:
        """Takes the backend over; closing it is the caller's business.

        Args:
            backend: The robot.
            key: What sessions are sealed with; empty for a checksum only.
        """
        self.backend = backend
        self.driver: Peer | None = None  # who drives; others are not listened to
        self._mark, self._key, self._sessions = spec_mark(backend.spec), key, RobotSessions(key)
        self._heard = 0.0  # [s] monotonic, when the driver last spoke
        self._last: tuple[int, bytes] | None = None  # newest request and its answer

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        """Acts on one datagram.

        Args:
            datagram: Whatever arrived.
            peer: From where.

        Returns:
            The bytes to send back, or None: what came was damaged, forged, foreign, of another session, older than what
            was obeyed before, not from the driver, or a farewell.
        """
        now = time.monotonic()
        if datagram[4:5] == bytes([HELLO]):
            return self._welcome(datagram, now)
        message = decode(datagram, self._mark, self._sessions.present) if peer == self.driver else None
        if message is None:
            message = self._newcomers(datagram, peer, now)
        if message is None:
            return None
        if self._last is not None:
            ahead = (message.request - self._last[0]) % 2**32
            if ahead == 0 and message.kind != CLOSE:
                return self._last[1]  # asked twice, done once
            if ahead >= 2**31:
                return None  # overtaken on the way: what was newer has been obeyed
        if message.kind == CLOSE:
            self.driver = None
            self.released()
            return None
        try:
            reading = self.obey(message)
        except ToolkitError as error:
            answer = refusal(message.request, str(error))
        else:
            answer = Message(READING, message.request, np.array([reading.sequence, *reading.values]))
        self._heard = time.monotonic()  # what was asked for may have taken long
        self._last = (message.request, encode(answer, self._mark, self._sessions.present))
        return self._last[1]

    def _welcome(self, datagram: bytes, now: float) -> bytes | None:
        """The answer to a HELLO, where there is a key; it disturbs nobody who drives."""
        message = decode(datagram, self._mark, self._key) if self._key else None
        answer = None if message is None else self._sessions.welcome(message, now)
        return None if answer is None else encode(answer, self._mark, self._key)

    def _newcomers(self, datagram: bytes, peer: Peer, now: float) -> Message | None:
        """The message of somebody who takes the robot over with it; None of everybody else."""
        # A robot has one driver. Another may take over by a reset, once the first has gone or fallen silent; and the
        # driver itself may begin anew.
        taken = self.driver not in (None, peer) and now - self._heard < SILENCE
        key = None if taken else self._sessions.following(now)
        message = None if key is None else decode(datagram, self._mark, key)
        if key is None or message is None or message.kind not in (RESET, MEASURE):
            return None
        self.driver, self._last = peer, None
        self._sessions.take_over(key)
        return message

    def obey(self, message: Message) -> SensorReading:
        """Does what an undamaged, new message of the driver asks for.

        Args:
            message: The message.

        Returns:
            The reading to answer with.

        Raises:
            ToolkitError: Refused; the reason is sent back.
        """
        if message.kind == RESET and message.payload.shape == (1,):
            seed = message.payload[0]
            if seed >= 0 and seed.is_integer():
                self.backend.reseed(int(seed))
            return self.backend.reset()
        if message.kind == MEASURE:
            return self.backend.measure()
        if message.kind == COMMAND:
            return self.backend.step(message.payload)
        raise BackendError(f"a driver does not send messages of kind {message.kind}")

    def released(self) -> None:
        """The driver said goodbye; whether the robot is at rest is for who guards it to see."""
