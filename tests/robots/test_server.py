"""The robot's end of the cable: who may drive it, what it ignores, and that nothing is done twice or late."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots import load_robot
from robots.backend import SensorReading
from robots.datagram import (
    CLOSE,
    COMMAND,
    HELLO,
    MEASURE,
    READING,
    REFUSAL,
    RESET,
    WELCOME,
    Message,
    decode,
    encode,
    spec_mark,
)
from robots.mock import MockBackend
from robots.server import SILENCE, Peer, RobotServer
from robots.session import hello, session_key, welcomed
from robots.sim import MujocoBackend

SPEC = load_robot("cartpole")
MARK = spec_mark(SPEC)
DRIVER, STRANGER = ("127.0.0.1", 1111), ("127.0.0.1", 2222)
SERVER = RobotServer(MujocoBackend(SPEC))


def ask(server: RobotServer, kind: int, request: int, payload=(), peer=DRIVER) -> Message | None:
    answer = server.answer(encode(Message(kind, request, np.array(payload, dtype=np.float64)), MARK), peer)
    return None if answer is None else decode(answer, MARK)


@pytest.fixture
def server() -> RobotServer:
    SERVER.driver = None
    reset = ask(SERVER, RESET, 1, [0.0])
    assert reset is not None and reset.kind == READING
    return SERVER


def now(server: RobotServer) -> float:
    assert isinstance(server.backend, MujocoBackend)
    return server.backend.data.time


@given(noise=st.binary(max_size=200), peer=st.sampled_from([DRIVER, STRANGER]))
def test_noise_never_reaches_the_robot(noise: bytes, peer: tuple[str, int]) -> None:
    """Random bytes get no answer and move nothing."""
    before = now(SERVER)
    assert SERVER.answer(noise, peer) is None
    assert now(SERVER) == before


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_command_never_reaches_the_robot(data: st.DataObject) -> None:
    """A command with bytes changed, from the driver itself, gets no answer and moves nothing."""
    SERVER.driver = None
    ask(SERVER, RESET, 1, [0.0])
    good = bytearray(encode(Message(COMMAND, 2, np.array([1.0])), MARK))
    for place in data.draw(st.sets(st.integers(0, len(good) - 1), min_size=1, max_size=5)):
        good[place] ^= data.draw(st.integers(1, 255))
    assert SERVER.answer(bytes(good), DRIVER) is None
    assert now(SERVER) == 0.0


@pytest.mark.parametrize("payload", [[], [0.0, 0.0], [np.nan], [np.inf]])
def test_undamaged_nonsense_is_refused(server: RobotServer, payload: list[float]) -> None:
    """A command of a wrong size or not finite is refused with the reason, and moves nothing."""
    answer = ask(server, COMMAND, 2, payload)
    assert answer is not None and answer.kind == REFUSAL and answer.payload.size > 10
    assert now(server) == 0.0


def test_a_request_that_comes_again_is_done_once(server: RobotServer) -> None:
    """The repeated command is answered with the same reading, and the robot moves once."""
    first, again = ask(server, COMMAND, 2, [1.0]), ask(server, COMMAND, 2, [1.0])
    assert first is not None and again is not None
    np.testing.assert_array_equal(first.payload, again.payload)
    assert now(server) == pytest.approx(SPEC.control_dt)


def test_one_driver(server: RobotServer) -> None:
    """A stranger is not heard while somebody drives, and may reset once the driver has said goodbye."""
    assert ask(server, COMMAND, 2, [1.0], STRANGER) is None
    assert ask(server, RESET, 1, [0.0], STRANGER) is None
    assert now(server) == 0.0
    assert ask(server, CLOSE, 3) is None
    assert ask(server, COMMAND, 4, [1.0], STRANGER) is None
    assert ask(server, RESET, 5, [0.0], STRANGER) is not None
    assert ask(server, COMMAND, 6, [1.0], DRIVER) is None


def test_answers_are_no_requests(server: RobotServer) -> None:
    """A reading sent to the robot is refused."""
    answer = ask(server, READING, 2, [0.0])
    assert answer is not None and answer.kind == REFUSAL


def test_what_is_overtaken_is_not_obeyed(server: RobotServer) -> None:
    """A command that arrives after a newer one gets no answer and moves nothing, also when the count wraps around."""
    assert ask(server, COMMAND, 10, [1.0]) is not None
    assert ask(server, COMMAND, 9, [1.0]) is None
    assert ask(server, RESET, 2, [0.0]) is None
    assert now(server) == pytest.approx(SPEC.control_dt)
    for request in (2**31 + 5, 2**32 - 1):
        assert ask(server, COMMAND, request, [0.0]) is not None
    assert ask(server, COMMAND, 3, [0.0]) is not None
    assert ask(server, COMMAND, 2**32 - 1, [0.0]) is None


KEY = b"k" * 32


class Keyed:
    """Somebody with the key, and all he ever said."""

    def __init__(self, server: RobotServer, peer: Peer) -> None:
        self.server, self.peer, self.key, self.request = server, peer, b"", 0
        self.said: list[bytes] = []

    def greet(self) -> Keyed:
        nonce = bytes(range(16))
        answer = self.server.answer(encode(hello(7, nonce), MARK, KEY), self.peer)
        message = None if answer is None else decode(answer, MARK, KEY)
        assert message is not None and (told := welcomed(message, nonce)) is not None
        self.key = session_key(KEY, told)
        return self

    def ask(self, kind: int, *payload: float) -> Message | None:
        self.request += 1
        self.said.append(encode(Message(kind, self.request, np.array(payload)), MARK, self.key))
        answer = self.server.answer(self.said[-1], self.peer)
        return None if answer is None else decode(answer, MARK, self.key)


@pytest.fixture
def keyed() -> RobotServer:
    return RobotServer(MockBackend(SPEC), KEY)


def commands(server: RobotServer) -> int:
    assert isinstance(server.backend, MockBackend)
    return len(server.backend.commands)


def test_a_key_keeps_strangers_out(keyed: RobotServer) -> None:
    """Only datagrams of the session are heard: none without a key, with another, or with a bit changed."""
    friend = Keyed(keyed, DRIVER).greet()
    reset = Message(RESET, 1, np.array([0.0]))
    good = encode(reset, MARK, friend.key)
    for key in (b"", b"K" * 32, KEY):
        assert keyed.answer(encode(reset, MARK, key), DRIVER) is None
    assert keyed.answer(good[:-1] + bytes([good[-1] ^ 1]), DRIVER) is None and keyed.driver is None
    answer = friend.ask(RESET, 0.0)
    assert answer is not None and answer.kind == READING


@pytest.mark.parametrize("kind", [RESET, COMMAND, CLOSE, MEASURE, WELCOME])
def test_under_the_key_itself_there_is_only_hello(keyed: RobotServer, kind: int) -> None:
    """And a hello without a nonce is none."""
    assert keyed.answer(encode(Message(kind, 1, np.zeros(4)), MARK, KEY), DRIVER) is None
    for payload in ([], [0.5, 1.0, 2.0, 3.0], [1.0] * 8, [-1.0, 0.0, 0.0, 0.0]):
        assert keyed.answer(encode(Message(HELLO, 1, np.array(payload)), MARK, KEY), DRIVER) is None
    assert keyed.driver is None


def test_what_was_recorded_moves_nothing(keyed: RobotServer) -> None:
    """Neither after the farewell, nor while somebody drives from that address, nor after the robot was restarted."""
    driver = Keyed(keyed, DRIVER).greet()
    assert driver.ask(RESET, 0.0) and driver.ask(COMMAND, 0.5) and driver.ask(CLOSE) is None
    recorded = list(driver.said)
    for server, moved in ((keyed, 1), (RobotServer(MockBackend(SPEC), KEY), 0)):
        assert [server.answer(datagram, DRIVER) for datagram in recorded] == [None] * 3
        assert server.driver is None and commands(server) == moved
        again = Keyed(server, DRIVER).greet()
        assert again.ask(RESET, 0.0)
        assert [server.answer(datagram, DRIVER) for datagram in recorded] == [None] * 3
        assert server.driver == DRIVER and commands(server) == 0  # since its reset


def test_what_was_refused_moves_nothing_later(keyed: RobotServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset that came while somebody else drove: hours later it is a recording, and keeps nobody out."""
    at = [100.0]
    monkeypatch.setattr("robots.server.time.monotonic", lambda: at[0])
    first = Keyed(keyed, DRIVER).greet()
    assert first.ask(RESET, 0.0)
    second = Keyed(keyed, STRANGER).greet()
    assert second.ask(RESET, 0.0) is None
    first.ask(CLOSE)
    at[0] += 30.0
    assert keyed.answer(second.said[0], ("127.0.0.1", 3333)) is None and keyed.driver is None


def test_a_recording_of_the_driver_does_not_keep_others_out(
    keyed: RobotServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is gone, what it said last, again and again, is no word of it; what it waits for long is none either."""
    at = [100.0]
    monkeypatch.setattr("robots.server.time.monotonic", lambda: at[0])
    first, other = Keyed(keyed, DRIVER).greet(), Keyed(keyed, STRANGER)
    obey = keyed.obey

    def slow(message: Message) -> SensorReading:
        at[0] += 5.0
        return obey(message)

    monkeypatch.setattr(keyed, "obey", slow)
    assert first.ask(RESET, 0.0) and other.greet().ask(RESET, 0.0) is None
    for _ in range(20):
        at[0] += 0.1
        assert keyed.answer(first.said[0], DRIVER) is not None
    assert other.ask(RESET, 0.0) and keyed.driver == STRANGER


def test_the_driver_may_begin_anew(keyed: RobotServer) -> None:
    """A controller that was restarted at the same address: its requests count from 1 again, the old ones are over."""
    first = Keyed(keyed, DRIVER).greet()
    assert first.ask(RESET, 0.0) and all(first.ask(COMMAND, 0.1) for _ in range(5))
    second = Keyed(keyed, DRIVER).greet()
    assert first.ask(COMMAND, 0.2) is not None  # a hello ends nothing
    assert second.ask(COMMAND, 0.3) is None and second.ask(RESET, 0.0) and second.ask(COMMAND, 0.3)
    assert first.ask(COMMAND, 0.4) is None and commands(keyed) == 1  # since its reset


def test_who_greeted_is_not_yet_let_in(keyed: RobotServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who drives is not disturbed; once he is silent another takes over, with a nonce of that time."""
    at = [100.0]
    monkeypatch.setattr("robots.server.time.monotonic", lambda: at[0])
    first, other = Keyed(keyed, DRIVER).greet(), Keyed(keyed, STRANGER).greet()
    assert first.ask(RESET, 0.0)
    assert other.ask(RESET, 0.0) is None  # of the nonce that the first came with
    other.greet()
    assert other.ask(RESET, 0.0) is None and first.ask(COMMAND, 0.5) and commands(keyed) == 1
    at[0] += SILENCE + 0.1
    assert other.ask(RESET, 0.0) and keyed.driver == STRANGER
    assert first.ask(COMMAND, 0.5) is None and commands(keyed) == 0  # since its reset


def test_looking_is_allowed_to_whoever_may_drive(server: RobotServer) -> None:
    """A driver may measure; a stranger may not while somebody drives."""
    assert ask(server, MEASURE, 2) is not None
    assert ask(server, MEASURE, 2, peer=STRANGER) is None
