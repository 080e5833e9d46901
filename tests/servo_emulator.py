"""Bus servos at the other end of a pty: they speak the makers' packet protocols, written here a second time.

Time passes for them by the goals they are told: each goal packet moves a servo with torque one stride towards its goal.
"""

import os
import select
import threading
import time
import tty

STRIDE = 100  # [ticks] how far a servo gets for each goal it is told

FEETECH = {"mode": 33, "lower": 9, "upper": 11, "torque": 40, "goal": 42, "position": 56, "velocity": 58, "size": 2}
DYNAMIXEL = {
    "mode": 11,
    "lower": 52,
    "upper": 48,
    "torque": 64,
    "goal": 116,
    "position": 132,
    "velocity": 128,
    "size": 4,
}
TABLES = {"feetech": FEETECH, "dynamixel": DYNAMIXEL}
PING, READ, WRITE, SYNC_READ, SYNC_WRITE, STATUS = 1, 2, 3, 0x82, 0x83, 0x55
BROADCAST = 0xFE
WATCHDOG, HARDWARE_ERROR = 98, 70


def feetech_packet(servo: int, middle: int, data: bytes) -> bytes:
    """`middle` is the instruction in a request, the error flags in an answer."""
    body = bytes([servo, len(data) + 2, middle]) + data
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def dynamixel_packet(servo: int, instruction: int, data: bytes) -> bytes:
    stuffed, tail = bytearray(), bytes([instruction]) + data
    for byte in tail:
        stuffed.append(byte)
        if stuffed[-3:] == b"\xff\xff\xfd":
            stuffed.append(0xFD)
    length = len(stuffed) + 2
    packet = b"\xff\xff\xfd\x00" + bytes([servo, length & 0xFF, length >> 8]) + bytes(stuffed)
    return packet + crc16(packet).to_bytes(2, "little")


def crc16(data: bytes) -> int:
    """Polynomial 0x8005, bit by bit, where the SDK has a table."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x8005 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def answer_packet(protocol: str, servo: int, data: bytes, error: int = 0) -> bytes:
    if protocol == "feetech":
        return feetech_packet(servo, error, data)
    return dynamixel_packet(servo, STATUS, bytes([error]) + data)


class Servo:
    """The registers of one servo."""

    def __init__(self, protocol: str, position: int) -> None:
        self.at, self.signed = TABLES[protocol], protocol == "dynamixel"
        self.memory = bytearray(256)
        self.heard = time.monotonic()
        self.set("lower", 0)
        self.set("upper", 4095)
        self.set("position", position)
        if protocol == "feetech":
            self.memory[18] = 0b1100  # phase: speeds in ticks a second, as delivered
        else:
            self.memory[self.at["mode"]] = 3

    def get(self, name: str) -> int:
        raw = self.memory[self.at[name] : self.at[name] + self.at["size"]]
        if name == "torque" or name == "mode":
            return raw[0]
        value = int.from_bytes(raw, "little", signed=self.signed)
        return -(value & 0x7FFF) if not self.signed and value & 0x8000 else value

    def set(self, name: str, value: int) -> None:
        if not self.signed and value < 0:
            value = -value | 0x8000
        size = self.at["size"]
        self.memory[self.at[name] : self.at[name] + size] = value.to_bytes(size, "little", signed=self.signed)

    def obey(self, address: int, data: bytes) -> None:
        goal = range(self.at["goal"], self.at["goal"] + self.at["size"])
        if address in goal and self.signed and self.memory[WATCHDOG] == 0xFF:
            return  # a watchdog that has bitten: goals are read-only
        self.memory[address : address + len(data)] = data
        if address in goal and self.memory[self.at["torque"]]:
            stride = max(-STRIDE, min(STRIDE, self.get("goal") - self.get("position")))
            self.set("position", self.get("position") + stride)
            self.set("velocity", stride)

    def watch(self) -> None:
        """Dynamixel's Bus Watchdog: silence longer than its register says, with torque on, stops the servo."""
        now, patience = time.monotonic(), self.memory[WATCHDOG]
        if self.signed and 0 < patience < 128 and self.memory[self.at["torque"]]:
            if now - self.heard > patience * 0.02:
                self.memory[WATCHDOG] = 0xFF
        self.heard = now


class ServoEmulator:
    """Some servos on a pty. `path` is the serial port; `written` is what they were told, in order."""

    def __init__(self, protocol: str, positions: dict[int, int]) -> None:
        self.protocol = protocol
        self.servos = {servo: Servo(protocol, position) for servo, position in positions.items()}
        self.written: list[tuple[int, dict[int, bytes]]] = []  # (address, {servo: bytes})
        self.requests = 0
        self._faults: dict[int, tuple[str, int]] = {}  # servo -> (kind, how many more answers)
        self.noise = b""  # sent once, before the next answers
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> "ServoEmulator":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._master >= 0:
            os.write(self._wake_write, b"x")
            self._thread.join()
            for descriptor in (self._master, self._slave, self._wake_read, self._wake_write):
                os.close(descriptor)
            self._master = -1

    def fault(self, servo: int, kind: str, times: int = 10**9) -> None:
        """Lets a servo misbehave in its next answers.

        Kinds: silence, checksum, wrong_id, truncated, garbage, error, refused, long.
        """
        self._faults[servo] = (kind, times)

    def told(self, register: str) -> list[dict[int, int]]:
        """What was written to a register, in order."""
        address = TABLES[self.protocol][register]
        signed = self.protocol == "dynamixel"
        return [
            {servo: int.from_bytes(data, "little", signed=signed) for servo, data in each.items()}
            for at, each in self.written
            if at == address
        ]

    def _serve(self) -> None:
        buffer = b""
        while True:
            ready, _, _ = select.select([self._master, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                buffer += os.read(self._master, 4096)
            except OSError:
                return
            while (found := self._request(buffer)) is not None:
                servo, instruction, data, buffer = found
                self._obey(servo, instruction, data)

    def _request(self, buffer: bytes) -> tuple[int, int, bytes, bytes] | None:
        """(servo, instruction, parameters, what is left) of the first whole packet."""
        if self.protocol == "feetech":
            start = buffer.find(b"\xff\xff")
            if start < 0 or len(buffer) < start + 4 or len(buffer) < start + 4 + buffer[start + 3]:
                return None
            packet = buffer[start : start + 4 + buffer[start + 3]]
            assert packet == feetech_packet(packet[2], packet[4], packet[5:-1]), "a request with a bad checksum"
            return packet[2], packet[4], packet[5:-1], buffer[start + len(packet) :]
        start = buffer.find(b"\xff\xff\xfd\x00")
        if start < 0 or len(buffer) < start + 7:
            return None
        end = start + 7 + int.from_bytes(buffer[start + 5 : start + 7], "little")
        if len(buffer) < end:
            return None
        packet = buffer[start:end]
        assert crc16(packet[:-2]) == int.from_bytes(packet[-2:], "little"), "a request with a bad checksum"
        return packet[4], packet[7], packet[8:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"), buffer[end:]

    def _obey(self, servo: int, instruction: int, data: bytes) -> None:
        wide = 1 if self.protocol == "feetech" else 2  # bytes of an address and of a length
        for each in self.servos.values():
            each.watch()
        address, rest = int.from_bytes(data[:wide], "little"), data[wide:]
        if instruction == SYNC_WRITE:
            size, rest = int.from_bytes(rest[:wide], "little"), rest[wide:]
            pieces = [rest[i : i + 1 + size] for i in range(0, len(rest), 1 + size)]
            told = {piece[0]: piece[1:] for piece in pieces}
            for each, values in told.items():
                if each in self.servos:
                    self.servos[each].obey(address, values)
            self.written.append((address, told))
        elif instruction in (READ, SYNC_READ):
            self.requests += 1
            size = int.from_bytes(rest[:wide], "little")
            asked = list(rest[wide:]) if instruction == SYNC_READ else [servo]
            answers = b"".join(self._answer(each, address, size) for each in asked)
            answers, self.noise = self.noise + answers, b""
            if answers:
                os.write(self._master, answers)

    def _answer(self, servo: int, address: int, size: int) -> bytes:
        kind, left = self._faults.get(servo, ("", 0))
        if left > 0:
            self._faults[servo] = (kind, left - 1)
        else:
            kind = ""
        if servo not in self.servos or kind == "silence":
            return b""
        data = bytes(self.servos[servo].memory[address : address + size])
        error = {"error": 0x20 if self.protocol == "feetech" else 0x80, "refused": 0x04}.get(kind, 0)
        if kind == "long":
            data += b"\x01"
        packet = answer_packet(self.protocol, servo + 50 if kind == "wrong_id" else servo, data, error)
        if kind == "checksum":
            packet = packet[:-1] + bytes([packet[-1] ^ 0x10])
        elif kind == "truncated":
            packet = packet[:-2]
        elif kind == "garbage":
            packet = bytes([0xFF, 0x12, 0xFF, 0xFF, 0x00, 0xFD, 0x55] * 5)
        return packet
