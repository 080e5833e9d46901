"""Feetech STS and SMS servos (STS3215 and kin) through the maker's SDK, `ftservo-python-sdk`."""

from __future__ import annotations

from collections.abc import Sequence

from robots.backend import BackendError
from robots.bus_port import BusPort
from robots.servo_bus import RADIANS_PER_TICK, Register, ServoBus, ServoError, ServoRegisters

_PHASE = Register(18, 1)  # bits that say how the servo counts
_FINE_SPEED = 1 << 2  # in _PHASE: speeds are in ticks a second and not in 50 ticks a second
_OVERHEAD = 6  # bytes of an answer beside its data: two of header, id, length, error, checksum
_ERRORS = {0: "voltage", 1: "angle sensor", 2: "overheating", 3: "overcurrent", 5: "overload"}  # by bit


class FeetechBus(ServoBus):
    """STS and SMS servos, whose registers lie in the same places. SCS servos do not answer together."""

    registers = ServoRegisters(
        mode=Register(33, 1),
        position_modes=(0,),
        lower=Register(9, 2, minus_bit=15),
        upper=Register(11, 2, minus_bit=15),
        torque=Register(40, 1),
        goal=Register(42, 2, minus_bit=15),
        position=Register(56, 2, minus_bit=15),
        velocity=Register(58, 2, minus_bit=15),
        current=Register(69, 2, minus_bit=15),
    )

    def __init__(self, port: BusPort, servos: Sequence[int]) -> None:
        """Makes the SDK's packet handler; nothing is sent.

        Args:
            port: The open port.
            servos: Ids.

        Raises:
            BackendError: The SDK is missing, or an older one of the same name is in its place.
        """
        super().__init__(port, servos)
        try:
            import scservo_sdk
        except ModuleNotFoundError as error:
            raise BackendError(f"Feetech servos need {error.name}: pip install 'gcl-toolkit[serial]'") from error
        if not hasattr(scservo_sdk, "sms_sts"):
            raise BackendError(
                "scservo_sdk is here the old feetech-servo-sdk, which goes by the same name; "
                "pip uninstall feetech-servo-sdk, then pip install --force-reinstall ftservo-python-sdk"
            )
        self._handler = scservo_sdk.sms_sts(port)

    def radians_per_second(self) -> list[float]:
        """Asks for the unit of speed, which a bit in each servo decides."""
        (phases,) = self.read(_PHASE)
        return [(1.0 if phase & _FINE_SPEED else 50.0) * RADIANS_PER_TICK for phase in phases]

    def _request(self, address: int, size: int) -> None:
        result = self._handler.syncReadTx(address, size, list(self.servos), len(self.servos))
        if result != 0:
            raise BackendError(f"the serial port {self.port.path} did not take a packet (code {result})")
        self.port.setPacketTimeout(len(self.servos) * (_OVERHEAD + size))

    def _answer(self, servo: int, size: int) -> bytes:
        packet, result = self._handler.rxPacket()
        if result != 0:
            raise ServoError(servo, "no answer" if not packet else "a damaged answer")
        if packet[2] != servo:
            raise ServoError(servo, f"no answer of its own, but one of servo {packet[2]}")
        if packet[3] != size + 2:
            raise ServoError(servo, f"an answer of {packet[3] - 2} bytes where {size} were asked for")
        if packet[4] != 0:
            flags = [_ERRORS.get(bit, f"bit {bit}") for bit in range(8) if packet[4] >> bit & 1]
            raise ServoError(servo, f"it reports {', '.join(flags)}")
        return bytes(packet[5 : 5 + size])

    def _send(self, address: int, size: int, payload: list[int]) -> int:
        return self._handler.syncWriteTxOnly(address, size, payload, len(payload))
