"""The emergency stop: pressed, silent, forged and replayed heartbeats."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.estop import EStopError, UdpEStop, heartbeat

KEY = b"k" * 32
MS = 1_000_000  # [ns]


@pytest.fixture
def wire() -> tuple[UdpEStop, socket.socket]:
    """A listener, and a socket that speaks to it."""
    listener = UdpEStop(f"127.0.0.1:{_free_port()}", KEY, timeout_seconds=0.25)
    button = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    button.connect(("127.0.0.1", listener.port))
    return listener, button


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_it_must_speak_before_the_robot_moves(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Without a first heartbeat the robot does not start."""
    assert wire[0].check(0) == "estop_silent"


def test_silence_stops(wire: tuple[UdpEStop, socket.socket]) -> None:
    """All is well for the time-out after a heartbeat and not longer; another one makes it well again."""
    listener, button = wire
    button.send(heartbeat(1, False, KEY))
    assert listener.check(1000 * MS) is None
    assert listener.check(1250 * MS) is None
    assert listener.check(1251 * MS) == "estop_silent"
    button.send(heartbeat(2, False, KEY))
    assert listener.check(2000 * MS) is None


def test_a_press_latches(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Once pressed it stays pressed, whatever is sent after."""
    listener, button = wire
    button.send(heartbeat(1, True, KEY))
    button.send(heartbeat(2, False, KEY))
    assert listener.check(0) == "estop_pressed" and listener.check(MS) == "estop_pressed"


def test_what_is_old_or_forged_is_not_heard(wire: tuple[UdpEStop, socket.socket]) -> None:
    """A replayed heartbeat, one of another key, and noise count as silence."""
    listener, button = wire
    good = heartbeat(5, False, KEY)
    button.send(good)
    assert listener.check(0) is None
    for datagram in (good, heartbeat(4, False, KEY), heartbeat(6, False, b"K" * 32), b"", good[:-1], good + b"x"):
        button.send(datagram)
    assert listener.check(251 * MS) == "estop_silent"


@given(st.binary(max_size=80))
def test_noise_never_says_that_all_is_well(noise: bytes) -> None:
    """Whatever bytes arrive, without the key they are no heartbeat."""
    listener = UdpEStop(f"127.0.0.1:{_free_port()}", KEY)
    listener._take(noise, 0)
    assert listener.check(0) == "estop_silent"
    listener.close()


def test_a_flood_does_not_keep_the_loop(wire: tuple[UdpEStop, socket.socket]) -> None:
    """One look takes in a bounded number of datagrams."""
    listener, button = wire
    for _ in range(500):
        button.send(b"flood")
    listener.check(0)
    assert listener._socket.recv(256) == b"flood"  # the look ended though there was more


@pytest.mark.parametrize(
    ("address", "key", "timeout", "word"),
    [
        ("127.0.0.1:1", b"short", 0.25, "16 to 64"),
        ("127.0.0.1:1", KEY, 0.0, "above 0"),
        ("0.0.0.0:9999", KEY, 0.25, "allow remote"),
        ("192.0.2.1:9999", KEY, 0.25, "allow remote"),
    ],
)
def test_refusals(address: str, key: bytes, timeout: float, word: str) -> None:
    """What would be no protection is refused."""
    with pytest.raises(EStopError, match=word):
        UdpEStop(address, key, timeout)
