"""The emergency stop: pressed, silent, forged and replayed heartbeats, and a button that has to be told the nonce."""

import socket
import threading
import time

import pytest
from free_address import free_address
from hypothesis import given
from hypothesis import strategies as st

from export.estop import NONCE, EStopButton, EStopError, UdpEStop, _sealed, heartbeat
from robots.datagram import encode
from robots.session import hello

KEY = b"k" * 32
MS = 1_000_000  # [ns]


@pytest.fixture
def wire() -> tuple[UdpEStop, socket.socket]:
    """A listener, and a socket that speaks to it."""
    listener = UdpEStop(free_address(), KEY, timeout_seconds=0.25)
    button = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    button.setblocking(False)
    button.connect(("127.0.0.1", listener.port))
    return listener, button


def beat(listener: UdpEStop, sent_ns: int, pressed: bool = False, key: bytes = KEY) -> bytes:
    """What a button says that knows the listener's nonce."""
    return heartbeat(sent_ns, pressed, key, listener._nonce)


def test_it_must_speak_before_the_robot_moves(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Without a first heartbeat the robot does not start."""
    assert wire[0].check(0) == "estop_silent"


def test_silence_stops(wire: tuple[UdpEStop, socket.socket]) -> None:
    """All is well for the time-out after a heartbeat and not longer; another one makes it well again."""
    listener, button = wire
    button.send(beat(listener, 1))
    assert listener.check(1000 * MS) is None
    assert listener.check(1250 * MS) is None
    assert listener.check(1251 * MS) == "estop_silent"
    button.send(beat(listener, 1 + 1000 * MS))
    assert listener.check(2000 * MS) is None


def test_a_press_latches(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Once pressed it stays pressed, whatever is sent after."""
    listener, button = wire
    button.send(beat(listener, 1, pressed=True))
    button.send(beat(listener, 2))
    assert listener.check(0) == "estop_pressed" and listener.check(MS) == "estop_pressed"


def test_what_is_old_or_forged_is_not_heard(wire: tuple[UdpEStop, socket.socket]) -> None:
    """A replayed heartbeat, one of another key, and noise count as silence, and nobody is told the nonce for them."""
    listener, button = wire
    good = beat(listener, 5)
    button.send(good)
    assert listener.check(0) is None
    for datagram in (good, beat(listener, 4), beat(listener, 6, key=b"K" * 32), b"", good[:-1], good + b"x"):
        button.send(datagram)
    assert listener.check(251 * MS) == "estop_silent"
    with pytest.raises(BlockingIOError):
        button.recv(256)


def test_without_the_key_nobody_is_heard(wire: tuple[UdpEStop, socket.socket]) -> None:
    """However fresh it is and whatever nonce it has: nobody has been heard yet, so that nothing is too old."""
    listener, button = wire
    good = beat(listener, 5)
    other_key, no_key = beat(listener, 5, key=b"K" * 32), good[:-16] + bytes(16)
    for forged in (other_key, no_key, good[:-1] + bytes([good[-1] ^ 1])):
        button.send(forged)
        assert listener.check(0) == "estop_silent"
    button.send(good)
    assert listener.check(0) is None


def test_heartbeats_of_another_run_are_not_heard(wire: tuple[UdpEStop, socket.socket]) -> None:
    """However new they say they are, pressed or not; they are answered by the nonce, once a look."""
    listener, button = wire
    with_zeros = heartbeat(10**18, False, KEY, bytes(NONCE))
    other = UdpEStop(free_address(), KEY)
    for datagram in (beat(other, 10**18), with_zeros, beat(other, 10**18 + 1, pressed=True)):
        button.send(datagram)
    assert listener.check(0) == "estop_silent"
    assert len(button.recv(256)) == 4 + 8 + NONCE + 16
    with pytest.raises(BlockingIOError):
        button.recv(256)
    other.close()


def test_what_else_is_sealed_with_the_key_is_no_heartbeat(wire: tuple[UdpEStop, socket.socket]) -> None:
    """The robot's own datagrams may have the same key: other sizes and other magic are not heard."""
    listener, button = wire
    good = beat(listener, 1)[:-16]
    for body in (b"", b"GCLE", good[:-1], good + b"x", b"GCL1" + good[4:], b"GCLN" + bytes(NONCE)):
        button.send(_sealed(body, KEY))
    button.send(encode(hello(1, bytes(NONCE)), b"12345678", KEY))
    assert listener.check(0) == "estop_silent"
    with pytest.raises(BlockingIOError):
        button.recv(256)


def test_a_button_learns_the_nonce_and_is_heard() -> None:
    """Of a robot that is there first, that comes later, and of the next one at the same address."""
    address = free_address()
    button = EStopButton(address, KEY)
    for _ in range(3):
        for _ in range(3):
            button.say(pressed=False)  # nobody is there
        assert not button.listen()
        listener = UdpEStop(address, KEY)
        button.say(pressed=False)
        button.say(pressed=False)
        assert listener.check(0) == "estop_silent"
        assert button.listen() and not button.listen()
        button.say(pressed=False)
        assert listener.check(0) is None
        button.say(pressed=True)
        assert listener.check(0) == "estop_pressed"
        listener.close()
    button.close()


def test_a_button_believes_the_robot_only(wire: tuple[UdpEStop, socket.socket]) -> None:
    """A nonce under another seal, cut off, or a heartbeat sent back teaches it nothing."""
    listener, _ = wire
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
        liar.bind(("127.0.0.1", 0))
        button = EStopButton(f"127.0.0.1:{liar.getsockname()[1]}", KEY)
        button.say(pressed=False)
        said, peer = liar.recvfrom(256)
        told = said[8:16] + bytes(range(NONCE))  # of the very heartbeat
        recorded = _sealed(b"GCLN" + bytes(8) + bytes(range(NONCE)), KEY)
        other_magic, other_key = _sealed(b"GCLE" + told, KEY), _sealed(b"GCLN" + told, b"K" * 32)
        for datagram in (said, recorded, other_magic, other_key, _sealed(b"GCLN" + told, KEY)[:-1], b""):
            liar.sendto(datagram, peer)
        assert not button.listen()
        button.say(pressed=False)
        assert liar.recv(256)[: -16 - 16] != said[: -16 - 16]  # sent later
        button.close()


def test_it_is_waited_for() -> None:
    """Until it says that all is well; a button that comes late, or before, is heard either way."""
    listener = UdpEStop(free_address(), KEY)
    button, pressed, ended = EStopButton(f"127.0.0.1:{listener.port}", KEY), threading.Event(), threading.Event()

    def speak() -> None:
        while not ended.wait(0.01):
            button.listen()
            button.say(pressed.is_set())

    thread = threading.Timer(0.1, speak)
    thread.daemon = True
    thread.start()
    listener.wait(20.0)
    assert listener._heard_ns is not None
    pressed.set()
    with pytest.raises(EStopError, match="the emergency stop is pressed"):
        listener.wait(20.0)
    ended.set()
    listener.close()


def test_what_was_said_before_it_was_waited_for_does_not_count(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Heartbeats that lie there tell nothing of now."""
    listener, button = wire
    for sent in range(5):
        button.send(beat(listener, sent + 1))
    assert listener.check(0) is None
    for sent in range(5, 10):
        button.send(beat(listener, sent + 1))
    with pytest.raises(EStopError, match="no emergency stop"):
        listener.wait(0.05)


def test_a_heartbeat_is_as_old_as_it_says(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Held back, or unread for long, it does not say that all is well now, whatever the button's clock shows."""
    listener, button = wire
    clock = 10**18  # ahead of ours
    for i in range(100):
        now = 50 * MS * i
        button.send(beat(listener, clock + now))
        assert listener.check(now + 2 * MS) is None
    button.send(beat(listener, clock + now - 500 * MS))  # overtaken on the way: what is known is newer
    assert listener.check(now + 3 * MS) is None
    now += 1000 * MS
    button.send(beat(listener, clock + now - 260 * MS))
    assert listener.check(now) == "estop_silent"
    button.send(beat(listener, clock + now - 200 * MS))
    assert listener.check(now) is None
    button.send(beat(listener, clock + now - 150 * MS, pressed=True))
    assert listener.check(now + 1000 * MS) == "estop_pressed"  # late, but a press is a press


@pytest.mark.parametrize("rate", [-300e-6, 300e-6])
def test_two_clocks_may_drift_apart(rate: float, wire: tuple[UdpEStop, socket.socket]) -> None:
    """By more than two bad ones do in a day: nobody takes it for a delay."""
    listener, button = wire
    for hour in range(0, 24 * 3600, 600):
        for second in (0.0, 0.05):
            now = round((hour + second) * 1e9)
            button.send(beat(listener, 10**18 + round(now * (1.0 + rate))))
            assert listener.check(now) is None


@pytest.mark.parametrize("last", ["well", "pressed", "silent"])
def test_after_a_long_start_it_is_known_how_things_are(last: str) -> None:
    """More heartbeats than one look takes came meanwhile; a press may be behind them, or lost with a full socket."""
    listener = UdpEStop(free_address(), KEY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as button:
        button.connect(("127.0.0.1", listener.port))
        begin = time.monotonic_ns() - 10_000 * MS
        button.send(beat(listener, begin))
        assert listener.check(begin) is None
        count = {"well": 200, "pressed": 199, "silent": 150}[last]
        for i in range(1, count + 1):
            button.send(beat(listener, begin + 50 * MS * i))
        if last == "pressed":
            button.send(beat(listener, begin + 10_000 * MS, pressed=True))
        listener.catch_up()
        expected = {"well": None, "pressed": "estop_pressed", "silent": "estop_silent"}[last]
        assert listener.check(begin + 10_001 * MS) == expected
    listener.close()


def test_it_is_not_waited_for_for_ever(wire: tuple[UdpEStop, socket.socket]) -> None:
    """Who forgot to start it reads how."""
    with pytest.raises(EStopError, match=r"on 127.0.0.1:\d+ for 0.05 s: start `gcl estop`"):
        wire[0].wait(0.05)


@given(st.binary(max_size=80))
def test_noise_never_says_that_all_is_well(noise: bytes) -> None:
    """Whatever bytes arrive, without the key they are no heartbeat."""
    listener = UdpEStop(free_address(), KEY)
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


def test_a_button_needs_a_key_as_well() -> None:
    """One that no robot would take is refused."""
    with pytest.raises(EStopError, match="16 to 64"):
        EStopButton("127.0.0.1:1", b"short")
