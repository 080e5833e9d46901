"""Sessions: both ends come to the same key, of its own each time, and nothing else is taken for a nonce."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.datagram import HELLO, READING, WELCOME, Message
from robots.session import NONCE, RobotSessions, hello, session_key, welcomed

KEY, NOW = b"a key", 100.0
nonces = st.binary(min_size=NONCE, max_size=NONCE)


@given(nonces)
def test_both_ends_come_to_the_same_key(nonce: bytes) -> None:
    """By the robot's nonce, which comes back with the driver's own, whatever bytes that has."""
    robot = RobotSessions(KEY)
    answer = robot.welcome(hello(3, nonce), NOW)
    assert answer is not None and answer.request == 3
    told = welcomed(answer, nonce)
    assert told is not None and session_key(KEY, told) == robot.following(NOW)


def test_the_key_by_hand() -> None:
    """Keyed BLAKE2b, so that a motor board can do it, too."""
    expected = hashlib.blake2b(b"gcl session" + b"n" * 16, key=KEY, digest_size=32).digest()
    assert session_key(KEY, b"n" * 16) == expected != session_key(b"another", b"n" * 16)


@given(nonces, nonces.filter(lambda nonce: nonce != bytes(NONCE)))
def test_a_welcome_to_somebody_else(nonce: bytes, difference: bytes) -> None:
    """Is none: it may have been recorded."""
    answer = RobotSessions(KEY).welcome(hello(1, nonce), NOW)
    assert answer is not None
    assert welcomed(answer, bytes(a ^ b for a, b in zip(nonce, difference, strict=True))) is None


def told(robot: RobotSessions, now: float = NOW) -> bytes:
    """The key with which somebody may come who said hello at that time."""
    answer = robot.welcome(hello(1, bytes(NONCE)), now)
    assert answer is not None and (nonce := welcomed(answer, bytes(NONCE))) is not None
    return session_key(KEY, nonce)


def test_each_session_has_its_key() -> None:
    """Who takes over has the one that was told, and the next is new; a hello alone changes nothing."""
    robot, seen = RobotSessions(KEY), set()
    for _ in range(5):
        assert robot.following(NOW) is None  # nobody was told
        key = told(robot)
        assert robot.following(NOW) == key == told(robot)
        robot.take_over(key)
        assert robot.present == key
        seen.add(key)
    assert len(seen | {told(robot), told(RobotSessions(KEY))}) == 7


def test_nobody_may_come_late() -> None:
    """What was told is good for 25 s from the first who was told it; who asks after 10 s is told another."""
    robot = RobotSessions(KEY)
    first = told(robot)
    assert told(robot, NOW + 9.9) == first == robot.following(NOW + 24.9)
    assert robot.following(NOW + 25.1) is None
    second = told(robot, NOW + 10.1)
    assert second != first and robot.following(NOW + 35.0) == second


def test_without_a_key_there_is_none() -> None:
    """A checksum is all there is, of whichever session, at any time."""
    robot = RobotSessions(b"")
    assert robot.following(NOW) == robot.present == b""
    robot.take_over(b"")
    assert robot.following(NOW) == robot.present == b""


@pytest.mark.parametrize("odd", [np.nan, np.inf, -1.0, 0.5, 2.0**32])
def test_what_is_no_nonce(odd: float) -> None:
    """Numbers that are no 32-bit integers, too few or too many of them, or another kind of message."""
    robot = RobotSessions(KEY)
    payload = hello(1, bytes(NONCE)).payload.copy()
    answer = robot.welcome(hello(1, bytes(NONCE)), NOW)
    assert answer is not None
    for count in (0, 3, 5, 8, 12):
        assert robot.welcome(Message(HELLO, 1, np.zeros(count)), NOW) is None
        assert count == 8 or welcomed(Message(WELCOME, 1, np.zeros(count)), bytes(NONCE)) is None
    for place in range(len(payload)):
        wrong = payload.copy()
        wrong[place] = odd
        assert robot.welcome(Message(HELLO, 1, wrong), NOW) is None
        assert welcomed(Message(WELCOME, 1, np.concatenate([wrong, payload])), bytes(NONCE)) is None
    assert robot.welcome(Message(READING, 1, payload), NOW) is None
    assert welcomed(Message(READING, 1, answer.payload), bytes(NONCE)) is None
