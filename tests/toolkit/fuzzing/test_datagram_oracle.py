"""The oracle itself: it says no to each thing that must not happen, so that its silence means something."""

import struct

import numpy as np
import pytest

from toolkit.fuzzing.datagram_oracle import (
    CLOSE,
    COMMAND,
    MEASURE,
    READING,
    REFUSAL,
    RESET,
    CommandOracle,
    ViolationError,
    body,
    may_be_read,
    read,
    seal,
)

MARK, KEY = b"12345678", b"secret"
DRIVER, OTHER = "driver", "other"


def datagram(kind: int, request: int, *numbers: float, key: bytes = b"") -> bytes:
    said = body(kind, request, struct.pack(f"<{len(numbers)}d", *numbers), MARK)
    return said + seal(said, key)


def driven(request: int = 7) -> CommandOracle:
    """An oracle that saw a driver take the robot over."""
    oracle = CommandOracle(MARK, b"", 2)
    oracle.check(datagram(RESET, request, -1.0), DRIVER, [], b"a reading")
    return oracle


def test_what_is_legal() -> None:
    """A datagram is legal with its own seal and robot alone, and each byte of it counts."""
    good = datagram(COMMAND, 9, 0.5, -1.0)
    legal = read(good, MARK, b"")
    assert legal is not None and (legal.kind, legal.request, legal.numbers.tolist()) == (COMMAND, 9, [0.5, -1.0])
    assert read(good, MARK, KEY) is None and read(good, b"87654321", b"") is None
    assert read(datagram(COMMAND, 9, 0.5, key=KEY), MARK, KEY) is not None
    for place in range(len(good)):
        assert read(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], MARK, b"") is None
        assert read(good[:place], MARK, b"") is None


def test_a_right_session_is_silent() -> None:
    """Reset, commands one after the other, one asked twice and done once, a farewell, another driver."""
    oracle = driven()
    command = np.array([0.5, -1.0])
    for request in (8, 9):
        oracle.check(datagram(COMMAND, request, *command), DRIVER, [command], b"a reading")
    oracle.check(datagram(COMMAND, 9, *command), DRIVER, [], b"a reading")
    oracle.check(datagram(COMMAND, 8, *command), DRIVER, [], None)
    oracle.check(datagram(CLOSE, 10), DRIVER, [], None)
    oracle.check(datagram(MEASURE, 1), OTHER, [], b"a reading")
    assert oracle.driver == OTHER


@pytest.mark.parametrize(
    ("sent", "peer", "reached", "answer", "word"),
    [
        (datagram(COMMAND, 8, 1.0, 2.0)[:-1] + b"\0", DRIVER, [[1.0, 2.0]], None, "malformed datagram"),
        (b"noise", DRIVER, [], b"a reading", "malformed datagram"),
        (datagram(MEASURE, 8), DRIVER, [[1.0, 2.0]], b"a reading", "kind 6 moved"),
        (datagram(COMMAND, 8, 1.0, 2.0), OTHER, [[1.0, 2.0]], None, "other moved"),
        (datagram(COMMAND, 7, 1.0, 2.0), DRIVER, [[1.0, 2.0]], None, "obeyed after 7"),
        (datagram(COMMAND, 6, 1.0, 2.0), DRIVER, [[1.0, 2.0]], None, "obeyed after 7"),
        (datagram(COMMAND, 8, 1.0, 2.0), DRIVER, [[1.0, 2.0]] * 2, None, "others reached"),
        (datagram(COMMAND, 8, 1.0, 2.0), DRIVER, [[1.0, 3.0]], None, "others reached"),
        (datagram(COMMAND, 8, 1.0, np.nan), DRIVER, [[1.0, np.nan]], None, "malformed command"),
        (datagram(COMMAND, 8, 1.0), DRIVER, [[1.0]], None, "malformed command"),
        (datagram(COMMAND, 8, 1.0, 2.0), OTHER, [], b"a reading", "without taking"),
        (datagram(RESET, 8, -1.0), OTHER, [], b"a reading", "not silent"),
        (datagram(MEASURE, 6), DRIVER, [], b"a reading", "answered after 7"),
    ],
)
def test_each_violation_is_seen(sent: bytes, peer: str, reached: list, answer: bytes | None, word: str) -> None:
    """Whatever a server may do wrong with a datagram is told from doing it right."""
    with pytest.raises(ViolationError, match=word):
        driven().check(sent, peer, [np.array(values) for values in reached], answer)


def test_what_a_controller_may_read() -> None:
    """A reading with the right request, length and a whole number in front; near misses are errors or nothing."""
    cases = {
        datagram(READING, 5, 3.0, 0.1, 0.2): "reading",
        datagram(READING, 5, 3.0, 0.1, np.nan): "reading",  # NaN is the safety layer's business
        datagram(READING, 4, 3.0, 0.1, 0.2): "nothing",
        datagram(READING, 6, 3.0, 0.1, 0.2): "nothing",
        datagram(READING, 5, 3.5, 0.1, 0.2): "error",
        datagram(READING, 5, -1.0, 0.1, 0.2): "error",
        datagram(READING, 5, np.inf, 0.1, 0.2): "error",
        datagram(READING, 5, 3.0, 0.1): "error",
        datagram(REFUSAL, 5, 72.0, 0.1, 0.2): "error",
        datagram(COMMAND, 5, 3.0, 0.1, 0.2): "nothing",  # our own, sent back
    }
    for sent, what in cases.items():
        legal = read(sent, MARK, b"")
        assert legal is not None and may_be_read(legal, 5, 1, 2) == what
    late = read(datagram(READING, 4, 3.0, 0.1, 0.2), MARK, b"")
    assert late is not None and may_be_read(late, 5, 256, 2) == "reading"
