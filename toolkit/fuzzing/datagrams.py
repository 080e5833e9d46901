"""Datagrams that are almost right: damaged, cut, replayed, spliced, or wrong in one place under a right seal."""

from __future__ import annotations

import random
import struct

from toolkit.fuzzing.datagram_oracle import RESET, WELCOME, body, seal

_ODD = (
    float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e308, -1e308, 2.0**53, 2.0**64, -1.0, 0.5, 1e-300,
    1114111.0, float(0xD800),
)  # fmt: skip
_REMEMBERED = 64  # datagrams kept for replaying and splicing


class Mutator:
    """Makes hostile datagrams of good ones. The same seed makes the same ones."""

    def __init__(self, seed: int, mark: bytes, key: bytes) -> None:
        """Remembers nothing yet.

        Args:
            seed: Of its choices.
            mark: Of the robot, 8 bytes.
            key: With which seals are mended; empty for a checksum. Whoever begins another session sets it.
        """
        self.random = random.Random(seed)
        self._mark, self.key, self._first_key = mark, key, key
        self._past: list[bytes] = []
        # As it comes, several times as often as each way of spoiling it, so that the session goes on
        self._ways = [self._same] * 6 + [
            self._flipped, self._flipped, self._cut, self._extended, self._noise, self._spliced, self._replayed,
            self._other_kind, self._other_header, self._other_count, self._odd_numbers, self._odd_numbers,
            self._other_length, self._other_seal,
        ]  # fmt: skip

    def good(self, kind: int, request: int, payload: list[float]) -> bytes:
        """A datagram as it should be."""
        said = body(kind, request % 2**32, struct.pack(f"<{len(payload)}d", *payload), self._mark)
        return said + seal(said, self.key)

    def spoil(self, good: bytes) -> bytes:
        """One of the ways in which a datagram can be wrong, or none."""
        made = self.random.choice(self._ways)(good)
        if len(self._past) < _REMEMBERED:
            self._past.append(made)
        else:
            self._past[self.random.randrange(_REMEMBERED)] = good
        return made

    def _mended(self, said: bytes) -> bytes:
        return said + seal(said, self.key)

    def _said(self, good: bytes) -> bytearray:
        return bytearray(good[: -16 if self.key else -4])

    def _same(self, good: bytes) -> bytes:
        return good

    def _flipped(self, good: bytes) -> bytes:
        data = bytearray(good)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(data)

    def _cut(self, good: bytes) -> bytes:
        return good[: self.random.randrange(len(good))]

    def _extended(self, good: bytes) -> bytes:
        more = self.random.randbytes(self.random.choice((1, 4, 8, 16, 64)))
        return good + more if self.random.random() < 0.5 else self._mended(bytes(self._said(good)) + more)

    def _noise(self, good: bytes) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 27, 28, 40, len(good), 200)))

    def _spliced(self, good: bytes) -> bytes:
        other = self._replayed(good)
        place = self.random.randrange(len(good))
        joined = good[:place] + other[place:]
        return joined if self.random.random() < 0.5 else self._mended(joined[: -16 if self.key else -4])

    def _replayed(self, good: bytes) -> bytes:
        return self.random.choice(self._past) if self._past else good

    def _other_kind(self, good: bytes) -> bytes:
        said = self._said(good)
        said[4] = self.random.choice((*range(RESET, WELCOME + 1), 0, 9, 255))
        return self._mended(bytes(said))

    def _other_header(self, good: bytes) -> bytes:
        said = self._said(good)
        place = self.random.choice((*range(4), *range(5, 12), *range(16, 24)))
        said[place] ^= self.random.randrange(1, 256)
        return self._mended(bytes(said))

    def _other_count(self, good: bytes) -> bytes:
        said = self._said(good)
        count = self.random.choice((0, 1, 8185, 8186, 2**29, 2**31, 2**32 - 1, (len(said) - 24) // 8 + 1))
        said[12:16] = count.to_bytes(4, "little")
        return self._mended(bytes(said))

    def _odd_numbers(self, good: bytes) -> bytes:
        said = self._said(good)
        count = (len(said) - 24) // 8
        if count:
            place = 24 + 8 * self.random.randrange(count)
            said[place : place + 8] = struct.pack("<d", self.random.choice(_ODD))
        return self._mended(bytes(said))

    def _other_length(self, good: bytes) -> bytes:
        request = int.from_bytes(good[8:12], "little")
        count = self.random.choice((0, 1, 2, 3, 5, 7, 12, 18, 30, 500))
        values = [self.random.choice(_ODD) if self.random.random() < 0.1 else 0.25 for _ in range(count)]
        return self.good(good[4], request, values)

    def _other_seal(self, good: bytes) -> bytes:
        # That of somebody without the key, with another, or with the one that sessions only begin with
        said = bytes(self._said(good))
        return said + seal(said, self.random.choice((b"", b"another key", self.key[::-1], self._first_key)))
