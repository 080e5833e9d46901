"""The emergency stop's wire: somebody must say many times a second that all is well; silence stops the robot.

A stop button that sends something when it is pressed fails with its battery or its cable. Here the button's side sends
a heartbeat, and the robot stops when the heartbeat says so or is missing: pressed, out of range, unplugged and crashed
look alike. Both are sealed with a key that both ends share (keyed BLAKE2b, RFC 7693):

    button to robot   magic "GCLE" | pressed u8 | 3 zero bytes | sent u64 [ns] since the Unix epoch, by the sender |
                      nonce 16 bytes | seal 16 bytes
    robot to button   magic "GCLN" | sent u64 of a heartbeat without the nonce | nonce 16 bytes | seal 16 bytes

The robot makes a nonce when it begins to wait, and tells it to a button that does not know it: what was recorded before
is of no use then. Within a run a heartbeat is as old as it says, measured by the quickest so far: one that was played
again, held back, or lay unread while the robot was busy does not say that all is well now.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from typing import Protocol

from robots.address import is_loopback, parse_address
from robots.seal import NONCE, TAG, is_sealed, length_fault, seal
from robots.spec import ToolkitError

_HEADER, _TOLD = struct.Struct(f"<4sB3xQ{NONCE}s"), struct.Struct(f"<4sQ{NONCE}s")
_MAGIC, _TOLD_MAGIC = b"GCLE", b"GCLN"
_LOOKED_AT = 64  # datagrams in one look: whoever floods the port must not keep the loop there
_LOOKS = 16  # that take in whatever a socket holds
_DRIFT = 1000  # two clocks part by less than one in so many
_ASKED = 8  # newest heartbeats to which the robot's answer may still be on the way


class EStopError(ToolkitError):
    """An emergency stop that cannot be listened for."""


class EStop(Protocol):
    """Something that may forbid the robot to move; asked once a tick, so it must not wait."""

    def check(self, now_ns: int) -> str | None:
        """Why the robot must stop, None while all is well.

        Args:
            now_ns: [ns] monotonic clock.
        """
        ...

    def catch_up(self) -> None:
        """Takes in what came while nobody asked, as while the robot got to its start; must not wait."""
        ...


def heartbeat(sent_ns: int, pressed: bool, key: bytes, nonce: bytes) -> bytes:
    """What the button's side sends.

    Args:
        sent_ns: [ns] since the Unix epoch; each greater than the one before.
        pressed: Whether the robot must stop.
        key: 16 to 64 bytes.
        nonce: (16,) the robot's; zeros while it has not told it.

    Returns:
        The datagram.
    """
    return _sealed(_HEADER.pack(_MAGIC, pressed, sent_ns, nonce), key)


def _sealed(body: bytes, key: bytes) -> bytes:
    return body + seal(body, key)


def _opened(datagram: bytes, size: int, key: bytes) -> bytes | None:
    """The body, if it has that size and the key's seal."""
    return datagram[:size] if len(datagram) == size + TAG and is_sealed(datagram, key) else None


def _checked_key(key: bytes) -> bytes:
    if (fault := length_fault(key)) is not None:
        raise EStopError(fault)
    return key


class UdpEStop:
    """Listens for heartbeats of one button."""

    def __init__(self, address: str, key: bytes, timeout_seconds: float = 0.25, allow_remote: bool = False) -> None:
        """Opens the socket. The first heartbeat must come before the robot starts: see `wait`.

        Args:
            address: "127.0.0.1:9880", where to listen.
            key: 16 to 64 bytes that the button's side knows, too.
            timeout_seconds: [s] of silence that stop the robot.
            allow_remote: Whether the address may be reached from other machines.

        Raises:
            EStopError: The key is too short or long, the time not positive, or the address cannot be listened on.
        """
        host, port = parse_address(address)
        self._key = _checked_key(key)
        if not 0.0 < timeout_seconds < 60.0:
            raise EStopError(f"time-out of {timeout_seconds!r} s; legal are seconds above 0 and under 60")
        if not (allow_remote or is_loopback(host)):
            raise EStopError(f"{address} can be reached from other machines; allow remote explicitly")
        self._address, self._timeout_ns = address, round(timeout_seconds * 1e9)
        self._begin_anew()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise EStopError(f"cannot listen for the emergency stop on {address}: {error}") from error

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._socket.getsockname()[1]

    def check(self, now_ns: int) -> str | None:
        """Takes in what arrived; never waits. A press latches.

        Args:
            now_ns: [ns] monotonic clock.

        Returns:
            "estop_pressed", "estop_silent", or None.
        """
        told = False
        for _ in range(_LOOKED_AT):
            try:
                datagram, button = self._socket.recvfrom(256)
            except BlockingIOError:
                break
            ignorant = self._take(datagram, now_ns)
            if ignorant is not None and not told:
                told = True
                with contextlib.suppress(OSError):  # who cannot be told stays silent, and that stops the robot
                    self._socket.sendto(_sealed(_TOLD.pack(_TOLD_MAGIC, ignorant, self._nonce), self._key), button)
        if self._pressed:
            return "estop_pressed"
        return None if self._heard_ns is not None and now_ns - self._heard_ns <= self._timeout_ns else "estop_silent"

    def catch_up(self) -> None:
        """Takes in all that the socket holds."""
        for _ in range(_LOOKS):
            self.check(time.monotonic_ns())

    def wait(self, seconds: float) -> None:
        """Waits until the button says that all is well; what it said before does not count.

        Args:
            seconds: [s] at most.

        Raises:
            EStopError: It is pressed, or silent for as long.
        """
        self._begin_anew()
        end = time.monotonic() + seconds
        while (reason := self.check(time.monotonic_ns())) is not None:
            if reason == "estop_pressed":
                raise EStopError("the emergency stop is pressed")
            if (left := end - time.monotonic()) <= 0.0:
                heard = f"no emergency stop was heard on {self._address} for {seconds:g} s"
                raise EStopError(f"{heard}: start `gcl estop`, of the same version as this")
            select.select([self._socket], [], [], left)

    def close(self) -> None:
        """Stops listening. Closing twice is allowed."""
        self._socket.close()

    def _begin_anew(self) -> None:
        self._nonce = os.urandom(NONCE)
        self._newest_sent_ns = 0  # by the sender's clock
        self._least_lag_ns: int | None = None  # our clock minus the sender's, of a heartbeat that came straight
        self._heard_ns: int | None = None  # by our clock
        self._pressed = False

    def _take(self, datagram: bytes, now_ns: int) -> int | None:
        """Hears a heartbeat; one that does not know the nonce is only told of, by when it was sent [ns]."""
        body = _opened(datagram, _HEADER.size, self._key)
        if body is None:
            return None
        magic, pressed, sent_ns, nonce = _HEADER.unpack(body)
        if magic != _MAGIC:
            return None
        if nonce != self._nonce:
            return sent_ns
        if sent_ns > self._newest_sent_ns:
            lag = least = now_ns - sent_ns
            if self._least_lag_ns is not None:
                least = min(lag, self._least_lag_ns + (sent_ns - self._newest_sent_ns) // _DRIFT)
            self._newest_sent_ns, self._least_lag_ns = sent_ns, least
            self._heard_ns = now_ns - (lag - least)
            self._pressed = self._pressed or pressed != 0
        return None


class EStopButton:
    """The button's side."""

    def __init__(self, address: str, key: bytes) -> None:
        """Opens the socket; nothing is sent yet.

        Args:
            address: "127.0.0.1:9880", where the robot listens.
            key: 16 to 64 bytes that the robot knows, too.

        Raises:
            EStopError: The key is too short or long.
            BackendError: The address is none.
        """
        self._key, self._nonce = _checked_key(key), bytes(NONCE)
        self._sent: deque[int] = deque(maxlen=_ASKED)  # [ns] when the newest heartbeats were
        host, port = parse_address(address)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((host, port))

    def fileno(self) -> int:
        """Can be read when the robot has told its nonce."""
        return self._socket.fileno()

    def say(self, pressed: bool) -> None:
        """Sends one heartbeat. A robot that is not there has nothing to stop; one that it does not reach stops."""
        self._sent.append(time.time_ns())
        with contextlib.suppress(OSError):
            self._socket.send(heartbeat(self._sent[-1], pressed, self._key, self._nonce))

    def listen(self) -> bool:
        """Takes in what the robot told; never waits.

        Returns:
            Whether its nonce is another now, so that it is worth saying something at once.
        """
        before = self._nonce
        for _ in range(_LOOKED_AT):
            try:
                datagram = self._socket.recv(256)
            except BlockingIOError:
                break
            except OSError:
                continue  # an earlier heartbeat did not arrive
            body = _opened(datagram, _TOLD.size, self._key)
            magic, sent_ns, nonce = (b"", 0, b"") if body is None else _TOLD.unpack(body)
            if magic == _TOLD_MAGIC and sent_ns in self._sent:  # else it was recorded
                self._nonce = nonce
        return self._nonce != before

    def close(self) -> None:
        """Closes the socket. Closing twice is allowed."""
        self._socket.close()
