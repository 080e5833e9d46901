"""Whatever bytes are on the wire, a bus gives only numbers sent in a whole packet, or says what was wrong."""

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servo_emulator import answer_packet

from robots import BackendError
from robots.bus_port import BusPort
from robots.dynamixel import DynamixelBus
from robots.feetech import FeetechBus
from robots.servo_bus import Register, ServoBus, ServoError

BUSES: dict[str, type[ServoBus]] = {"feetech": FeetechBus, "dynamixel": DynamixelBus}
SERVOS = (1, 2)
NUMBER = Register(56, 4)


@dataclass
class Wire(BusPort):
    """A port on which certain bytes arrive, and then none: no time passes."""

    incoming: bytes
    sent: list[bytes] = field(default_factory=list)
    path: str = "wire"
    is_using: bool = False

    def clearPort(self) -> None:  # noqa: N802
        pass

    def drain(self) -> None:
        self.incoming = b""

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        self.sent.append(bytes(packet))
        return len(packet)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        length = max(length, 0)
        taken, self.incoming = self.incoming[:length], self.incoming[length:]
        return taken

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        pass

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return not self.incoming


def read(protocol: str, incoming: bytes) -> list[int]:
    (numbers,) = BUSES[protocol](Wire(incoming), SERVOS).read(NUMBER)
    return numbers


# Bytes that mean something in a header come up often, so that the search gets deep into the parsers.
spice = st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x01, 0x02, 0x55, 0x06, 0x08, 0x04, 0x7F]), max_size=12).map(bytes)
noise = st.binary(max_size=30) | spice
payload = st.binary(min_size=4, max_size=4) | st.sampled_from(
    [b"\xff\xff\xfd\xfd", b"\xff\xff\xff\xfd", b"\xfd\xff\xff\xfd"]
)


@pytest.mark.parametrize("protocol", BUSES)
@given(data=st.tuples(payload, payload))
def test_whole_answers_are_read(protocol: str, data: tuple[bytes, bytes]) -> None:
    """Numbers of any bytes, those of a packet's head included, arrive as they were sent."""
    incoming = b"".join(answer_packet(protocol, servo, each) for servo, each in zip(SERVOS, data, strict=True))
    assert read(protocol, incoming) == [int.from_bytes(each, "little") for each in data]


@pytest.mark.parametrize("protocol", BUSES)
@given(data=st.tuples(payload, payload), pieces=st.tuples(noise, noise, noise), cut=st.integers(0, 80))
@example(
    data=(b"\0\0\0\0", b"\0\0\0\0"), pieces=(b"\xff\xff\x01\x01\xfd", b"", b""), cut=80
)  # a packet of no error byte
@example(data=(b"\0\0\0\0", b"\0\0\0\0"), pieces=(b"\xff\xff\x01\x00\xfe\x00", b"", b""), cut=80)
def test_garbage_gives_no_numbers(
    protocol: str, data: tuple[bytes, bytes], pieces: tuple[bytes, bytes, bytes], cut: int
) -> None:
    """With garbage before, between and after the answers, or answers cut off: sent numbers or a BackendError."""
    packets = [answer_packet(protocol, servo, each) for servo, each in zip(SERVOS, data, strict=True)]
    incoming = (pieces[0] + packets[0] + pieces[1] + packets[1] + pieces[2])[:cut]
    try:
        numbers = read(protocol, incoming)
    except BackendError:
        return
    for servo, number in zip(SERVOS, numbers, strict=True):
        assert answer_packet(protocol, servo, number.to_bytes(4, "little")) in incoming


@pytest.mark.parametrize("protocol", BUSES)
@given(data=st.tuples(payload, payload), place=st.integers(0, 60), flip=st.integers(1, 255))
def test_one_wrong_byte_gives_no_other_numbers(protocol: str, data: tuple[bytes, bytes], place: int, flip: int) -> None:
    """One changed byte anywhere gives the numbers that were sent, or an error that names a servo: never others."""
    incoming = bytearray(b"".join(answer_packet(protocol, s, each) for s, each in zip(SERVOS, data, strict=True)))
    incoming[place % len(incoming)] ^= flip
    try:
        numbers = read(protocol, bytes(incoming))
    except ServoError as error:
        assert error.servo in SERVOS
        return
    assert numbers == [int.from_bytes(each, "little") for each in data]


@pytest.mark.parametrize("protocol", BUSES)
@given(junk=st.binary(max_size=200) | st.lists(spice, max_size=20).map(b"".join))
def test_nothing_but_garbage(protocol: str, junk: bytes) -> None:
    """A wire full of noise is an error and nothing else, and asking ends."""
    try:
        numbers = read(protocol, junk)
    except BackendError:
        return
    for servo, number in zip(SERVOS, numbers, strict=True):
        assert answer_packet(protocol, servo, number.to_bytes(4, "little")) in junk


@pytest.mark.parametrize("protocol", BUSES)
def test_after_a_bad_answer_the_wire_is_left_to_fall_silent(protocol: str) -> None:
    """The servos whose turn is still to come are not talked over by the next question."""
    damaged, good = (answer_packet(protocol, servo, b"\0\0\0\0") for servo in SERVOS)
    wire = Wire(damaged[:-1] + b"\x77" + good)
    with pytest.raises(ServoError):
        BUSES[protocol](wire, SERVOS).read(NUMBER)
    assert wire.incoming == b""


@pytest.mark.parametrize("protocol", BUSES)
def test_a_port_that_goes_while_it_falls_silent(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulled out just after a bad answer: gone is what it is then, and no error of a servo."""

    def pulled(_: Wire) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Wire, "drain", pulled)
    with pytest.raises(BackendError, match="the serial port wire is gone: .*Input/output error") as raised:
        read(protocol, b"")
    assert not isinstance(raised.value, ServoError)


def test_a_port_that_goes_while_an_alert_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Dynamixel that reports a hardware error is asked which; pulled out just then, the port is gone all the same."""
    bus = DynamixelBus(Wire(answer_packet("dynamixel", 1, b"\0\0\0\0", error=0x80)), (1,))

    def pulled(_: Wire, packet: list[int]) -> int:
        if packet[7] == 0x02:  # a question to one servo
            raise OSError(5, "Input/output error")
        return len(packet)

    monkeypatch.setattr(Wire, "writePort", pulled)
    with pytest.raises(BackendError, match="the serial port wire is gone: .*Input/output error") as raised:
        bus.read(NUMBER)
    assert not isinstance(raised.value, ServoError)


@given(value=st.integers(-0x7FFF, 0x7FFF))
def test_sign_and_magnitude(value: int) -> None:
    """Feetech's numbers with a minus bit come back as they went."""
    register = Register(56, 2, minus_bit=15)
    assert register.decode(register.encode(value)) == value


def test_minus_bit_by_hand() -> None:
    """0x800A is minus ten, and two's complement is something else."""
    assert Register(56, 2, minus_bit=15).decode(b"\x0a\x80") == -10
    assert Register(126, 2, signed=True).decode(b"\xf6\xff") == -10
    assert Register(56, 2).decode(b"\x0a\x80") == 0x800A


def test_registers_of_one_question() -> None:
    """Registers near each other travel in one question and are told apart in the answer."""
    incoming = b"".join(answer_packet("feetech", servo, bytes([servo, 0, 9, 0x80])) for servo in SERVOS)
    bus = FeetechBus(Wire(incoming), SERVOS)
    assert bus.read(bus.registers.position, bus.registers.velocity) == [[1, 2], [-9, -9]]


def test_an_older_sdk_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution that installs the same module is told apart, with the way out."""
    import scservo_sdk

    monkeypatch.delattr(scservo_sdk, "sms_sts")
    with pytest.raises(BackendError, match="feetech-servo-sdk"):
        FeetechBus(Wire(b""), SERVOS)
