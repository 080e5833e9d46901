"""The robot's end of the cable: who may drive it, what it ignores, and that nothing is done twice or late."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots import load_robot
from robots.datagram import CLOSE, COMMAND, MEASURE, READING, REFUSAL, RESET, Message, decode, encode, spec_mark
from robots.mock import MockBackend
from robots.server import RobotServer
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


def test_a_key_keeps_strangers_out() -> None:
    """With a key only datagrams sealed with it are heard: none without a key, with another, or with a bit changed."""
    keyed = RobotServer(MockBackend(SPEC), key=b"k" * 32)
    reset = Message(RESET, 1, np.array([0.0]))
    good = encode(reset, MARK, b"k" * 32)
    for forged in (encode(reset, MARK), encode(reset, MARK, b"K" * 32), good[:-1] + bytes([good[-1] ^ 1])):
        assert keyed.answer(forged, DRIVER) is None
    answer = keyed.answer(good, DRIVER)
    assert answer is not None and decode(answer, MARK) is None and decode(answer, MARK, b"k" * 32) is not None


def test_looking_is_allowed_to_whoever_may_drive(server: RobotServer) -> None:
    """A driver may measure; a stranger may not while somebody drives."""
    assert ask(server, MEASURE, 2) is not None
    assert ask(server, MEASURE, 2, peer=STRANGER) is None
