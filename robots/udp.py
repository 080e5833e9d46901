"""UdpBackend: a robot at the other end of a network cable, one datagram each way per control step.

The peer may be `python -m robots.simulator` or a few lines of C on a motor board. A datagram is, little-endian:

    magic "GCL1" | kind u8 | 3 zero bytes | request u32 | count u32 | spec 8 bytes | payload count x f64 | crc32 u32

`spec` is the head of the robot description's SHA-256, so that a controller never drives another robot; `crc32` is over
all bytes before it. Each answer repeats the number of the request that it answers; a request that comes again is
answered again and not obeyed again, so a lost datagram costs a moment and never a second step.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
import zlib
from dataclasses import dataclass

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.spec import RobotSpec

RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE = 1, 2, 3, 4, 5, 6
_KINDS = (RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE)
_MAGIC = b"GCL1"
_HEADER = struct.Struct("<4sB3xII8s")
_CRC = struct.Struct("<I")
_ATTEMPTS = 4  # times a request is sent before the robot counts as gone
_LARGEST = 65_507  # bytes in the longest UDP datagram
_MOST = (_LARGEST - _HEADER.size - _CRC.size) // 8  # numbers that fit


@dataclass(frozen=True)
class Message:
    """A datagram that came through undamaged and is meant for this robot."""

    kind: int  # one of RESET, COMMAND, CLOSE, READING, REFUSAL, MEASURE
    request: int  # number of the request; an answer carries that of its request
    payload: np.ndarray  # (count,) float64: RESET [seed or -1], COMMAND the command, READING [sequence, *values],
    # REFUSAL the characters of the reason


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


def encode(message: Message, mark: bytes) -> bytes:
    """Writes a datagram.

    Args:
        message: What to say.
        mark: `spec_mark` of the robot.

    Returns:
        The bytes to send.
    """
    payload = np.ascontiguousarray(message.payload, dtype="<f8").tobytes()
    body = _HEADER.pack(_MAGIC, message.kind, message.request, len(payload) // 8, mark) + payload
    return body + _CRC.pack(zlib.crc32(body))


def decode(datagram: bytes, mark: bytes) -> Message | None:
    """Reads a datagram.

    Args:
        datagram: Whatever arrived.
        mark: `spec_mark` of the robot.

    Returns:
        The message, or None for anything damaged, foreign or meant for another robot. Never raises.
    """
    if len(datagram) < _HEADER.size + _CRC.size:
        return None
    magic, kind, request, count, found = _HEADER.unpack_from(datagram)
    if magic != _MAGIC or kind not in _KINDS or found != mark or datagram[5:8] != b"\0\0\0":
        return None
    end = _HEADER.size + 8 * count
    if (
        count > _MOST
        or len(datagram) != end + _CRC.size
        or _CRC.unpack_from(datagram, end)[0] != zlib.crc32(datagram[:end])
    ):
        return None
    # A copy: the datagram's own bytes are neither aligned nor writable.
    return Message(kind, request, np.frombuffer(datagram, "<f8", count, _HEADER.size).astype(np.float64))


def parse_address(address: str) -> tuple[str, int]:
    """Splits "127.0.0.1:9870" into host and port.

    Args:
        address: An IPv4 address, or "localhost", and a port.

    Returns:
        Host and port.

    Raises:
        BackendError: Not of that form.
    """
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BackendError(f"address {address!r}; expected HOST:PORT such as 127.0.0.1:9870")
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def is_loopback(host: str) -> bool:
    """Whether an address stays on this machine; a name that is no address counts as going out."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class UdpBackend(Backend):
    """Drives a robot that answers on a UDP address."""

    def __init__(
        self,
        spec: RobotSpec,
        address: str,
        *,
        seed: int | None = None,
        timeout_seconds: float = 1.0,
        reset_timeout_seconds: float = 10.0,
        allow_remote: bool = False,
    ) -> None:
        """Opens the socket; nothing is sent yet.

        Args:
            spec: The robot; the peer must have the very same description.
            address: "127.0.0.1:9870".
            seed: Sent with the first reset; a simulated robot begins its episodes from it. None leaves it as it is.
            timeout_seconds: [s] how long to wait for a reading.
            reset_timeout_seconds: [s] how long a robot may take to get to its start.
            allow_remote: Whether the address may be on another machine. Datagrams are neither secret nor signed, so
                this is for a cable or a network of your own.

        Raises:
            BackendError: The address is malformed, unusable, or remote without `allow_remote`.
        """
        host, port = parse_address(address)
        if not (allow_remote or is_loopback(host)):
            raise BackendError(
                f"{address} is not on this machine; datagrams are not protected: allow remote explicitly"
            )
        self.spec, self._address = spec, f"{host}:{port}"
        self._mark = spec_mark(spec)
        if seed is not None and not 0 <= seed < 2**53:
            raise BackendError(f"seed {seed}; a seed sent to a robot lies in [0, 2**53)")
        self._seed, self._timeout, self._reset_timeout = seed, timeout_seconds, reset_timeout_seconds
        self._request = 0
        self._running = False
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
        self._running = False
        reading = self._ask(RESET, np.array([seed], dtype=np.float64), self._reset_timeout)
        self._seed = None
        self._running = True
        return reading

    def step(self, command: np.ndarray) -> SensorReading:
        """Sends one command and waits for the reading that answers it."""
        self._open_socket()
        if not self._running:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        return self._ask(COMMAND, command, self._timeout)

    def measure(self) -> SensorReading:
        """Asks for a reading and nothing else."""
        return self._ask(MEASURE, np.empty(0), self._timeout)

    def close(self) -> None:
        """Tells the robot that nobody drives it any more. Closing twice is allowed."""
        if self._socket is not None:
            try:
                self._socket.send(encode(Message(CLOSE, self._request + 1, np.empty(0)), self._mark))
            except OSError:
                pass  # Whoever is gone already needs no farewell.
            self._socket.close()
            self._socket = None

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise BackendError("the connection to the robot is closed")
        return self._socket

    def _ask(self, kind: int, payload: np.ndarray, timeout: float) -> SensorReading:
        sock = self._open_socket()
        self._request = (self._request + 1) % 2**32
        datagram = encode(Message(kind, self._request, payload), self._mark)
        deadline = time.monotonic() + timeout
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                sock.send(datagram)
                answer = self._await(sock, deadline - timeout * (_ATTEMPTS - attempt) / _ATTEMPTS)
                if answer is not None:
                    return self._reading(answer)
        except OSError as error:
            raise BackendError(f"no robot at {self._address}: {error.strerror or error}") from error
        raise BackendError(f"the robot at {self._address} did not answer within {timeout:g} s; is it the same robot?")

    def _await(self, sock: socket.socket, deadline: float) -> Message | None:
        """The answer to the present request, None if it does not come in time."""
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                answer = decode(sock.recv(_LARGEST), self._mark)
            except TimeoutError:
                return None
            # Late answers to earlier requests end here, as does noise.
            if answer is not None and answer.request == self._request:
                return answer
        return None

    def _reading(self, answer: Message) -> SensorReading:
        arrived = time.monotonic_ns()
        if answer.kind == REFUSAL:
            self._running = False
            reason = "".join(chr(int(c)) if 32 <= c < 0x110000 else "?" for c in answer.payload)
            raise BackendError(f"the robot at {self._address} refused: {reason}")
        expected = 1 + len(self.spec.channels)
        if answer.kind != READING or answer.payload.size != expected:
            raise BackendError(f"the robot at {self._address} sent {answer.payload.size} numbers; expected {expected}")
        sequence = answer.payload[0]
        if not (sequence >= 0 and sequence.is_integer()):
            raise BackendError(f"the robot at {self._address} sent a reading numbered {sequence}")
        return SensorReading(answer.payload[1:].copy(), arrived, int(sequence))
