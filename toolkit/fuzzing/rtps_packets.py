"""RTPS packets, the protocol under DDS: of every kind, of anyone, with anything in them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

# RTPS 2.5, 9.4.5 and 9.6.2: kinds of submessages, built-in writers, and the parameters of an announcement
_KINDS = (0x01, 0x06, 0x07, 0x08, 0x09, 0x0C, 0x0D, 0x0E, 0x0F, 0x12, 0x13, 0x15, 0x16, 0x30, 0x80, 0xFF)
_WRITERS = tuple(
    bytes.fromhex(entity)
    for entity in "000100c2 000003c2 000004c2 000200c2 000300c3 00000103 00000203 00000303 00000000".split()
)
_READERS = tuple(bytes.fromhex(entity) for entity in "000100c7 000003c7 000004c7 000200c7 00000304 00000000".split())
_PARAMETERS = (
    0x0000, 0x0001, 0x0002, 0x0005, 0x0007, 0x000F, 0x0015, 0x0016, 0x001A, 0x001D, 0x002C, 0x002F, 0x0031, 0x0032,
    0x0040, 0x0050, 0x0052, 0x0058, 0x0059, 0x005A, 0x0062, 0x0070, 0x0071, 0x0073, 0x0075, 0x0077, 0x4014, 0x8000,
    0x800E, 0x8019,
)  # fmt: skip
_ENCODINGS = (b"\0\3\0\0", b"\0\3\0\0", b"\0\2\0\0", b"\0\1\0\0")  # parameter lists, and plain
_WORDS = (0, 1, 2, 255, 256, 2**31 - 1, 2**32 - 1)
_EDGES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFC, 0xFFFF)


class RtpsMutator:
    """Makes packets. The same seed and samples make the same ones."""

    def __init__(
        self, seed: int, samples: Sequence[bytes], contents: Sequence[bytes], prefixes: Sequence[bytes]
    ) -> None:
        """Remembers what to begin with.

        Args:
            seed: Of its choices.
            samples: Real packets.
            contents: Real serialised messages, with their encapsulation header.
            prefixes: GUID prefixes [12 bytes] of real participants, to speak in their names.
        """
        self._random = random.Random(seed)
        self._samples, self._contents, self._prefixes = list(samples), list(contents), list(prefixes)

    def one(self) -> bytes:
        """One packet."""
        draw = self._random.random()
        if draw < 0.03:
            return self._random.randbytes(self._random.choice((0, 1, 4, 19, 20, 24, 100, 1400)))
        made = self._random.choice(self._samples) if draw < 0.3 else self._composed()
        if self._random.random() < 0.6:
            made = self._spoiled(made)
        return made[:65_000]

    def _composed(self) -> bytes:
        prefix = self._random.choice(self._prefixes) if self._random.random() < 0.1 else self._random.randbytes(12)
        version = self._random.choice((b"\2\1", b"\2\5", b"\2\5", b"\1\0", b"\xff\xff"))
        head = b"RTPS" + version + self._random.choice((b"\1\x10", b"\1\x0f", b"\0\0")) + prefix
        return head + b"".join(self._submessage(prefix) for _ in range(self._random.choice((1, 1, 2, 3, 8))))

    def _submessage(self, prefix: bytes) -> bytes:
        kind = self._random.choice(_KINDS) if self._random.random() < 0.5 else 0x15
        flags = self._random.choice((1, 1, 1, 3, 5, 5, 7, 9, 0, 255))
        body = self._data(prefix, flags) if kind == 0x15 else self._body(kind)
        length = len(body) if self._random.random() < 0.9 else self._random.choice(_EDGES)
        return struct.pack("<BBH", kind, flags, length & 0xFFFF) + body

    def _data(self, prefix: bytes, flags: int) -> bytes:
        writer, reader = self._random.choice(_WRITERS), self._random.choice(_READERS)
        sequence = self._random.choice((1, 2, 3, 2**31, 0, -1, 2**40))
        offset = 16 if self._random.random() < 0.95 else self._random.choice(_EDGES)
        numbers = struct.pack("<iI", sequence >> 32, sequence & 0xFFFFFFFF)
        head = struct.pack("<HH", 0, offset) + reader + writer + numbers
        inline = self._parameters(prefix) if flags & 2 else b""
        if writer[3] == 0x03 and self._contents and self._random.random() < 0.7:
            content = self._random.choice(self._contents)
            return head + inline + (self._spoiled(content) if self._random.random() < 0.7 else content)
        return (
            head
            + inline
            + self._random.choice((b"\0\3\0\0", b"\0\3\0\0", b"\0\2\0\0", b"\0\1\0\0"))
            + self._parameters(prefix)
        )

    def _body(self, kind: int) -> bytes:
        """Numbers where this kind has numbers, or anything."""
        if kind in (0x06, 0x07, 0x08, 0x12, 0x13, 0x16) and self._random.random() < 0.8:
            ids = self._random.choice(_READERS) + self._random.choice(_WRITERS)
            words = [
                self._random.choice((0, 1, 2, 255, 256, 2**31 - 1, 2**32 - 1))
                for _ in range(self._random.randrange(12))
            ]
            return ids + struct.pack(f"<{len(words)}I", *words)
        if kind == 0x0E and self._prefixes:
            return self._random.choice(self._prefixes)
        return self._random.randbytes(self._random.choice((0, 4, 8, 12, 20, 64)))

    def _parameters(self, prefix: bytes) -> bytes:
        made = b"".join(self._parameter(prefix) for _ in range(self._random.choice((0, 1, 4, 10, 20))))
        return made + b"\1\0\0\0" if self._random.random() < 0.9 else made

    def _parameter(self, prefix: bytes) -> bytes:
        number = self._random.choice(_PARAMETERS)
        if number in (0x0050, 0x0052, 0x005A, 0x0070):
            value = prefix + self._random.choice((b"\0\0\1\xc1", *_WRITERS))
        elif number in (0x002F, 0x0031, 0x0032):
            # Of this machine: nothing here may make a driver speak to another
            value = struct.pack("<iI", self._random.choice((1, 1, -1)), self._random.choice((7410, 9, 0))) + bytes(12)
            value += bytes((127, 0, 0, self._random.choice((1, 77))))
        elif number in (0x0005, 0x0007, 0x0062, 0x4014):
            text = self._random.choice((b"rt/joint_states\0", b"sensor_msgs::msg::dds_::JointState_\0", b"rt/x", b""))
            value = struct.pack("<I", self._random.choice((len(text), len(text), *_EDGES))) + text
        else:
            value = self._random.randbytes(self._random.choice((0, 4, 8, 16, 44)))
        value += bytes(-len(value) % 4)
        length = len(value) if self._random.random() < 0.95 else self._random.choice(_EDGES)
        return struct.pack("<HH", number, length) + value

    def _spoiled(self, packet: bytes) -> bytes:
        data = bytearray(packet)
        for _ in range(self._random.choice((1, 1, 2, 4))):
            if not data:
                break
            place = self._random.randrange(len(data))
            way = self._random.randrange(5)
            if way == 0:
                data[place] ^= 1 << self._random.randrange(8)
            elif way == 1:
                data[place] = self._random.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif way == 2:
                del data[place:]
            elif way == 3:
                even = place & ~1
                data[even : even + 2] = struct.pack("<H", self._random.choice(_EDGES))
            else:
                other = self._random.choice(self._samples)
                data[place:] = other[self._random.randrange(len(other) + 1) :]
        return bytes(data)
