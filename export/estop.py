"""The emergency stop's wire: somebody must say many times a second that all is well; silence stops the robot.

A stop button that sends something when it is pressed fails with its battery or its cable. Here the button's side sends
a heartbeat, and the robot stops when the heartbeat says so or is missing: pressed, out of range, unplugged and crashed
look alike. A heartbeat is sealed with a key that both ends share, and numbered: of a run's heartbeats none can be played
again in it. Those of an earlier run can, to a robot that is started while its button is away; so a key is for one button,
and made anew when somebody may have listened:

    magic "GCLE" | pressed u8 | 3 zero bytes | sent u64 [ns] since the Unix epoch, by the sender | BLAKE2b 16 bytes
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
from typing import Protocol

from robots.address import is_loopback, parse_address
from robots.spec import ToolkitError

_HEADER = struct.Struct("<4sB3xQ")
_MAGIC = b"GCLE"
_TAG = 16
_LEAST_KEY, _MOST_KEY = 16, 64  # bytes


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


def heartbeat(sent_ns: int, pressed: bool, key: bytes) -> bytes:
    """What the button's side sends.

    Args:
        sent_ns: [ns] since the Unix epoch; each greater than the one before.
        pressed: Whether the robot must stop.
        key: 16 to 64 bytes.

    Returns:
        The datagram.
    """
    body = _HEADER.pack(_MAGIC, pressed, sent_ns)
    return body + hashlib.blake2b(body, key=key, digest_size=_TAG).digest()


class UdpEStop:
    """Listens for heartbeats of one button."""

    def __init__(self, address: str, key: bytes, timeout_seconds: float = 0.25, allow_remote: bool = False) -> None:
        """Opens the socket. The first heartbeat must come before the robot starts.

        Args:
            address: "127.0.0.1:9880", where to listen.
            key: 16 to 64 bytes that the button's side knows, too.
            timeout_seconds: [s] of silence that stop the robot.
            allow_remote: Whether the address may be reached from other machines.

        Raises:
            EStopError: The key is too short or long, the time not positive, or the address cannot be listened on.
        """
        host, port = parse_address(address)
        if not _LEAST_KEY <= len(key) <= _MOST_KEY:
            raise EStopError(f"a key of {len(key)} bytes; legal are {_LEAST_KEY} to {_MOST_KEY}")
        if not 0.0 < timeout_seconds < 60.0:
            raise EStopError(f"time-out of {timeout_seconds!r} s; legal are seconds above 0 and under 60")
        if not (allow_remote or is_loopback(host)):
            raise EStopError(f"{address} can be reached from other machines; allow remote explicitly")
        self._key, self._timeout_ns = key, round(timeout_seconds * 1e9)
        self._newest_sent_ns = 0  # by the sender's clock: only for order
        self._heard_ns: int | None = None  # by ours
        self._pressed = False
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
        for _ in range(64):  # whoever floods the port must not keep the loop here
            try:
                datagram = self._socket.recv(256)
            except BlockingIOError:
                break
            self._take(datagram, now_ns)
        if self._pressed:
            return "estop_pressed"
        return None if self._heard_ns is not None and now_ns - self._heard_ns <= self._timeout_ns else "estop_silent"

    def close(self) -> None:
        """Stops listening. Closing twice is allowed."""
        self._socket.close()

    def _take(self, datagram: bytes, now_ns: int) -> None:
        body, tag = datagram[:-_TAG], datagram[-_TAG:]
        if len(body) != _HEADER.size:
            return
        if not hmac.compare_digest(tag, hashlib.blake2b(body, key=self._key, digest_size=_TAG).digest()):
            return
        magic, pressed, sent_ns = _HEADER.unpack(body)
        if magic != _MAGIC or sent_ns <= self._newest_sent_ns:
            return
        self._newest_sent_ns, self._heard_ns = sent_ns, now_ns
        self._pressed = self._pressed or pressed != 0
