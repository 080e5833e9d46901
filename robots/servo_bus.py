"""ServoBus: servos on one wire, read and written all at once; `feetech.py` and `dynamixel.py` speak to theirs.

Every servo holds its state in numbered registers. An answer counts only if it is whole, its checksum is right, it comes
from the servo whose turn it is, has the length that was asked for and no error flag: the SDKs leave most of that to
whoever calls them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from robots.backend import BackendError
from robots.bus_port import BusPort

TICKS = 4096  # encoder steps of one turn; where it stands in the middle, at 2048, our raw position is 0
RADIANS_PER_TICK = 2.0 * math.pi / TICKS


class ServoError(BackendError):
    """One servo did not answer as it should."""

    def __init__(self, servo: int, reason: str) -> None:
        """Says which servo and why.

        Args:
            servo: Its id.
            reason: What came instead of a good answer.
        """
        super().__init__(f"servo {servo}: {reason}")
        self.servo, self.reason = servo, reason


@dataclass(frozen=True)
class Register:
    """Where a number lies in a servo, least significant byte first."""

    address: int
    size: int  # [bytes] 1, 2 or 4
    signed: bool = False  # two's complement
    minus_bit: int | None = None  # the bit that means minus, the bits below being the magnitude; None = there is none

    def decode(self, data: bytes) -> int:
        """The number that bytes mean.

        Args:
            data: (size,) bytes.

        Returns:
            The number.
        """
        value = int.from_bytes(data, "little", signed=self.signed)
        if self.minus_bit is None:
            return value
        magnitude = value & ((1 << self.minus_bit) - 1)
        return -magnitude if value >> self.minus_bit & 1 else magnitude

    def encode(self, value: int) -> bytes:
        """The bytes of a number.

        Args:
            value: The number; one that does not fit is a mistake of the caller.

        Returns:
            (size,) bytes.
        """
        if self.minus_bit is not None and value < 0:
            value = -value | 1 << self.minus_bit
        return value.to_bytes(self.size, "little", signed=self.signed)


@dataclass(frozen=True)
class ServoRegisters:
    """Where a make of servos keeps what a driver needs."""

    mode: Register
    position_modes: tuple[int, ...]  # values of `mode` in which a goal is a position within one turn
    lower: Register  # [ticks] least goal that the servo takes
    upper: Register  # [ticks] greatest
    torque: Register  # 1: on
    goal: Register  # [ticks]
    position: Register  # [ticks]
    velocity: Register
    current: Register
    watchdog: Register | None = None  # stops the servo when nobody speaks, None = the make has none
    watchdog_seconds: float = 0.0  # [s] unit of `watchdog`


class ServoBus(ABC):
    """Some servos on one port, always all of them and in one order."""

    registers: ServoRegisters

    def __init__(self, port: BusPort, servos: Sequence[int]) -> None:
        """Remembers who is on the bus; nothing is sent.

        Args:
            port: The open port.
            servos: Ids, the order of everything below.
        """
        self.port, self.servos = port, tuple(servos)

    def read(self, *registers: Register) -> list[list[int]]:
        """Asks all servos at once for registers that lie near each other.

        Args:
            registers: What to read; everything between the first and the last travels with it.

        Returns:
            [register][servo] numbers.

        Raises:
            ServoError: A servo did not answer well; nothing of this round is used then.
            BackendError: The port is gone.
        """
        start = min(register.address for register in registers)
        size = max(register.address + register.size for register in registers) - start
        self.port.is_using = False  # whatever an earlier failure left
        try:
            try:
                self._request(start, size)
                answers = [self._answer(servo, size) for servo in self.servos]
            except ServoError:
                self.port.drain()  # the others may still be answering, and a new question would talk over them
                raise
        except OSError as error:  # of the draining, too
            raise self.gone(error) from error
        return [
            [r.decode(answer[r.address - start : r.address - start + r.size]) for answer in answers] for r in registers
        ]

    def write(self, register: Register, values: Sequence[int], servos: Sequence[int] | None = None) -> None:
        """Tells servos something, all in one packet. Nobody confirms it: read it back where it matters.

        Args:
            register: What to write.
            values: (n,) one for each servo.
            servos: (n,) ids, None for all.

        Raises:
            BackendError: The port does not take it.
        """
        payload: list[int] = []
        for servo, value in zip(self.servos if servos is None else servos, values, strict=True):
            payload += [servo, *register.encode(value)]
        self.port.is_using = False
        try:
            result = self._send(register.address, register.size, payload)
        except OSError as error:
            raise self.gone(error) from error
        if result != 0:
            raise BackendError(f"the serial port {self.port.path} did not take a packet (code {result})")

    def gone(self, error: OSError) -> BackendError:
        """What to raise when the port itself fails.

        Args:
            error: What the system said of it.

        Returns:
            A refusal that names the port.
        """
        return BackendError(f"the serial port {self.port.path} is gone: {error}")

    @abstractmethod
    def radians_per_second(self) -> list[float]:
        """Asks what one unit of the velocity register means.

        Returns:
            [servo] [rad/s].

        Raises:
            ServoError: A servo did not answer well.
        """

    @abstractmethod
    def _request(self, address: int, size: int) -> None:
        """Asks all servos for bytes and starts the waiting."""

    @abstractmethod
    def _answer(self, servo: int, size: int) -> bytes:
        """Takes the next packet; raises ServoError if it is not this servo's good answer."""

    @abstractmethod
    def _send(self, address: int, size: int, payload: list[int]) -> int:
        """Sends a packet to many servos; 0 if it went out."""
