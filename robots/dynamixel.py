"""Dynamixel servos of the X series (protocol 2.0) through the maker's SDK, `dynamixel-sdk`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robots.backend import BackendError
from robots.bus_port import BusPort
from robots.servo_bus import Register, ServoBus, ServoError, ServoRegisters

_RADIANS_PER_SECOND = 0.229 * 2.0 * math.pi / 60.0  # a unit of speed is 0.229 revolutions a minute
_OVERHEAD = 11  # bytes of an answer beside its data: seven of header, instruction, error, two of checksum
_ALERT = 0x80
_ALERT_REASON = "it reports a hardware error"
_HARDWARE_ERROR = 70
_HARDWARE_ERRORS = {0: "voltage", 2: "overheating", 3: "motor encoder", 4: "electrical shock", 5: "overload"}  # by bit


class DynamixelBus(ServoBus):
    """X-series servos. The goal's range is one turn, in position or current-limited position mode."""

    registers = ServoRegisters(
        mode=Register(11, 1),
        position_modes=(3, 5),
        lower=Register(52, 4),
        upper=Register(48, 4),
        torque=Register(64, 1),
        goal=Register(116, 4, signed=True),
        position=Register(132, 4, signed=True),
        velocity=Register(128, 4, signed=True),
        current=Register(126, 2, signed=True),
        watchdog=Register(98, 1, signed=True),
        watchdog_seconds=0.02,
    )

    def __init__(self, port: BusPort, servos: Sequence[int]) -> None:
        """Makes the SDK's packet handler; nothing is sent.

        Args:
            port: The open port.
            servos: Ids.

        Raises:
            BackendError: The SDK is missing.
        """
        super().__init__(port, servos)
        try:
            from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
        except ModuleNotFoundError as error:
            raise BackendError(f"Dynamixel servos need {error.name}: pip install 'gcl-toolkit[serial]'") from error
        self._handler = Protocol2PacketHandler()

    def radians_per_second(self) -> list[float]:
        """One unit for all X-series servos; nothing is asked."""
        return [_RADIANS_PER_SECOND] * len(self.servos)

    def read(self, *registers: Register) -> list[list[int]]:
        """Asks all servos at once; an alert, which says only that something is wrong, is asked what."""
        try:
            return super().read(*registers)
        except ServoError as fault:
            if fault.reason != _ALERT_REASON:
                raise
            try:
                errors = self._hardware_errors(fault.servo)
            except OSError as error:  # pulled out just now
                raise self.gone(error) from error
            raise ServoError(fault.servo, errors) from fault

    def _request(self, address: int, size: int) -> None:
        servos = list(self.servos)
        result = self._handler.syncReadTx(self.port, address, size, servos, len(servos), False)
        if result != 0:
            raise BackendError(f"the serial port {self.port.path} did not take a packet (code {result})")
        self.port.setPacketTimeout(len(servos) * (_OVERHEAD + size))

    def _answer(self, servo: int, size: int) -> bytes:
        packet, result = self._handler.rxPacket(self.port, False)
        if result != 0:
            raise ServoError(servo, "no answer" if not packet else "a damaged answer")
        if packet[4] != servo:
            raise ServoError(servo, f"no answer of its own, but one of servo {packet[4]}")
        length = packet[5] | packet[6] << 8  # of what follows: instruction, error, data, two of checksum
        if length != size + 4:
            raise ServoError(servo, f"an answer of {length - 4} bytes where {size} were asked for")
        if packet[8] & _ALERT:
            raise ServoError(servo, _ALERT_REASON)
        if packet[8] != 0:
            raise ServoError(servo, f"it refused (error {packet[8]})")
        return bytes(packet[9 : 9 + size])

    def _hardware_errors(self, servo: int) -> str:
        self.port.is_using = False
        data, result, _ = self._handler.readTxRx(self.port, servo, _HARDWARE_ERROR, 1)
        bits = data[0] if result == 0 and len(data) == 1 else 0
        flags = [_HARDWARE_ERRORS.get(bit, f"bit {bit}") for bit in range(8) if bits >> bit & 1]
        return f"it reports {', '.join(flags)}" if flags else _ALERT_REASON

    def _send(self, address: int, size: int, payload: list[int]) -> int:
        return self._handler.syncWriteTxOnly(self.port, address, size, payload, len(payload))
