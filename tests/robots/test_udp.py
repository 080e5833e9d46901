"""UdpBackend keeps the contract against a real guardian process, and does not listen to what is not meant for it."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from backend_contract import BackendContract
from free_address import free_address
from guardian_process import GuardianProcess
from hypothesis import given
from hypothesis import strategies as st

from robots import BackendError, load_robot
from robots.datagram import COMMAND, READING, RESET, Message, decode, encode, spec_mark
from robots.mock import MockBackend
from robots.server import RobotServer
from robots.udp import UdpBackend

SPEC = load_robot("cartpole")
MARK = spec_mark(SPEC)
OTHER = spec_mark(load_robot("reacher"))


@pytest.fixture(scope="module")
def guardians(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[GuardianProcess]]:
    # A test may drive two robots at once, and a robot has one driver.
    folders = [tmp_path_factory.mktemp("guardian") for _ in range(2)]
    with GuardianProcess(SPEC, folders[0]) as first, GuardianProcess(SPEC, folders[1]) as second:
        yield [first, second]


class TestUdpBackend(BackendContract):
    spec = SPEC

    @pytest.fixture(autouse=True)
    def _robots(self, guardians: list[GuardianProcess]) -> None:
        self.robots = itertools.cycle(guardians)

    def make(self, seed: int = 0) -> UdpBackend:
        return UdpBackend(self.spec, next(self.robots).address, seed=seed)


@given(
    kind=st.integers(1, 5),
    request=st.integers(0, 2**32 - 1),
    payload=st.lists(st.floats(width=64), max_size=50),
)
def test_round_trip(kind: int, request: int, payload: list[float]) -> None:
    """What was encoded decodes to the same bits, NaN and infinities included."""
    message = decode(encode(Message(kind, request, np.array(payload)), MARK), MARK)
    assert message is not None
    assert (message.kind, message.request) == (kind, request)
    assert message.payload.tobytes() == np.array(payload, dtype=np.float64).tobytes()


@given(st.binary(max_size=300))
def test_noise_is_no_message(noise: bytes) -> None:
    """Random bytes decode to nothing and raise nothing."""
    assert decode(noise, MARK) is None


@given(st.data())
def test_damage_is_seen(data: st.DataObject) -> None:
    """A datagram with any one byte changed, or cut, or lengthened, is none."""
    good = encode(Message(COMMAND, 7, np.array([0.25, -1.0])), MARK)
    place = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :]
    assert decode(good, MARK) is not None
    assert decode(changed, MARK) is None
    assert decode(good[:place], MARK) is None
    assert decode(good + good[place:], MARK) is None


def test_another_robot_is_not_heard() -> None:
    """A datagram for another robot is none, however whole it is."""
    assert decode(encode(Message(RESET, 1, np.array([-1.0])), OTHER), MARK) is None


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "robot.local", "8.8.8.8"])
def test_remote_needs_permission(host: str) -> None:
    """An address on another machine is refused unless told otherwise."""
    with pytest.raises(BackendError, match="not on this machine"):
        UdpBackend(SPEC, f"{host}:9999")


@pytest.mark.parametrize("seed", [-1, 2**53])
def test_seed_that_does_not_fit(seed: int) -> None:
    """A seed that a datagram cannot carry is refused."""
    with pytest.raises(BackendError, match="seed"):
        UdpBackend(SPEC, "127.0.0.1:9", seed=seed)


class Socket:
    """Somebody who sends back what a function makes of each datagram, from a thread."""

    def __init__(self, replies: Callable[[bytes, tuple[str, int]], list[bytes]]) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.replies = replies
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            datagram, peer = self.sock.recvfrom(65_535)
            for reply in self.replies(datagram, peer):
                self.sock.sendto(reply, peer)


class FakeRobot(Socket):
    """Answers each request with what a function makes of it; the function may return several datagrams or none."""

    def __init__(self, answer: Callable[[Message, int], list[bytes]]) -> None:
        self.answer = answer
        self.heard: list[Message] = []
        super().__init__(self._replies)

    def _replies(self, datagram: bytes, _: tuple[str, int]) -> list[bytes]:
        message = decode(datagram, MARK)
        if message is None:
            return []
        self.heard.append(message)
        return self.answer(message, len(self.heard))


def reading(message: Message, *values: float) -> bytes:
    return encode(Message(READING, message.request, np.array(values)), MARK)


def test_noise_before_the_answer_is_passed_over() -> None:
    """Foreign, damaged and late datagrams before the right one change nothing."""
    zeros = [0.0] * len(SPEC.channels)

    def answer(message: Message, _: int) -> list[bytes]:
        good = reading(message, 0, *zeros)
        late = encode(Message(READING, message.request - 1, np.array([9.0, *zeros])), MARK)
        foreign = encode(Message(READING, message.request, np.array([9.0, *zeros])), OTHER)
        return [b"noise", good[:-1], foreign, late, good]

    with UdpBackend(SPEC, FakeRobot(answer).address) as backend:
        assert backend.reset().sequence == 0


def test_lost_datagram_is_asked_again() -> None:
    """When the first request is lost, its repetition carries the same number."""
    robot = FakeRobot(lambda message, count: [] if count == 1 else [reading(message, 0, *[0.0] * len(SPEC.channels))])
    with UdpBackend(SPEC, robot.address, reset_timeout_seconds=2.0) as backend:
        assert backend.reset().sequence == 0
        assert len({message.request for message in robot.heard}) == 1


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [0.0] * (len(SPEC.channels) + 2),
        [-1.0] + [0.0] * len(SPEC.channels),
        [np.nan] * (1 + len(SPEC.channels)),
    ],
)
def test_answer_of_a_wrong_form(values: list[float]) -> None:
    """An undamaged answer that is no reading of this robot is an error."""
    robot = FakeRobot(lambda message, _: [reading(message, *values)])
    with UdpBackend(SPEC, robot.address) as backend, pytest.raises(BackendError, match="sent"):
        backend.reset()


def test_silence_is_an_error() -> None:
    """A robot that does not answer makes a BackendError, after asking more than once."""
    robot = FakeRobot(lambda *_: [])
    with UdpBackend(SPEC, robot.address, reset_timeout_seconds=0.2) as backend:
        with pytest.raises(BackendError, match="did not answer"):
            backend.reset()
    assert len([message for message in robot.heard if message.kind == RESET]) > 1


def test_nobody_there() -> None:
    """A port where nothing listens makes a BackendError."""
    with UdpBackend(SPEC, free_address(), reset_timeout_seconds=0.2) as backend, pytest.raises(BackendError):
        backend.reset()


KEY = b"kept for years, on both machines"


class KeyedRobot(Socket):
    """A robot with a key behind a socket; `before` may put datagrams in front of an answer."""

    def __init__(self) -> None:
        self.server = RobotServer(MockBackend(SPEC), KEY)
        self.before: Callable[[bytes], list[bytes]] = lambda _: []
        self.answers: list[bytes] = []
        super().__init__(self._replies)

    def _replies(self, datagram: bytes, peer: tuple[str, int]) -> list[bytes]:
        answer = self.server.answer(datagram, peer)
        replies = [*self.before(datagram), *([] if answer is None else [answer])]
        self.answers += [] if answer is None else [answer]
        return replies


@pytest.mark.parametrize("real_time", [False, True])
def test_under_a_key_each_reset_begins_a_session(real_time: bool) -> None:
    """A robot that was switched off and on in between is no other robot; and after a reset the old seals are gone."""
    robot = KeyedRobot()
    with UdpBackend(SPEC, robot.address, key=KEY, real_time=real_time) as backend:
        assert backend.measure().sequence == 0  # looking is enough to begin one
        seals = {backend._session_key}
        for restarted in (False, True, False):
            if restarted:
                robot.server = RobotServer(MockBackend(SPEC), KEY)
            assert backend.reset().sequence == 0 and backend.step(np.zeros(1)).sequence == 1
            seals.add(backend._session_key)
    assert len(seals) == 4 and KEY not in seals
    deadline = time.monotonic() + 5.0
    while robot.server.driver is not None and time.monotonic() < deadline:  # the farewell is of the session, too
        time.sleep(0.001)
    assert robot.server.driver is None


def test_a_recorded_welcome_is_not_believed() -> None:
    """One of an earlier day, under the same request number, begins no session: the robot's own answer does."""
    robot = KeyedRobot()
    with UdpBackend(SPEC, robot.address, key=KEY) as backend:
        backend.reset()
    recorded = list(robot.answers)
    robot.before = lambda _: recorded
    with UdpBackend(SPEC, robot.address, key=KEY) as backend:
        assert backend.reset().sequence == 0
        robot.server.backend.step(np.zeros(1))
        assert backend.step(np.zeros(1)).sequence == 2  # and no recorded reading is taken for this one's


def test_looking_finds_a_robot_again() -> None:
    """That was switched off and on: the look that fails is the last one that does."""
    robot = KeyedRobot()
    with UdpBackend(SPEC, robot.address, key=KEY, reset_timeout_seconds=0.2) as backend:
        backend.measure()
        robot.server = RobotServer(MockBackend(SPEC), KEY)
        with pytest.raises(BackendError, match="did not answer"):
            backend.measure()
        assert backend.measure().sequence == 0


def test_a_look_in_vain_ends_no_session() -> None:
    """While the robot is driven: nobody heard that look, and the next command is."""
    robot = KeyedRobot()
    with UdpBackend(SPEC, robot.address, key=KEY, reset_timeout_seconds=0.2) as backend:
        backend.reset()
        server, robot.server = robot.server, RobotServer(MockBackend(SPEC), b"another")
        with pytest.raises(BackendError, match="did not answer"):
            backend.measure()
        robot.server = server
        assert backend.step(np.zeros(1)).sequence == 1


@pytest.mark.parametrize("real_time", [False, True])
@pytest.mark.parametrize("key", [b"", KEY])
def test_what_it_said_itself_is_no_answer(key: bytes, real_time: bool) -> None:
    """A request that somebody sends back ends nothing."""
    robot = KeyedRobot()
    robot.server = RobotServer(MockBackend(SPEC), key)
    robot.before = lambda datagram: [datagram]
    with UdpBackend(SPEC, robot.address, key=key, real_time=real_time) as backend:
        backend.measure()
        backend.reset()
        assert [backend.step(np.zeros(1)).sequence for _ in range(3)] == [1, 2, 3]


def test_another_key_is_silence() -> None:
    """A robot that has another key does not answer, and the message says what to look for."""
    robot = KeyedRobot()
    with UdpBackend(SPEC, robot.address, key=b"another", reset_timeout_seconds=0.2) as backend:
        for ask in (backend.reset, backend.measure):
            with pytest.raises(BackendError, match="same robot and the same key"):
                ask()
    assert robot.answers == []


def test_who_never_asked_anything_says_no_farewell() -> None:
    """Somebody else may be driving that robot."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as robot:
        robot.bind(("127.0.0.1", 0))
        robot.settimeout(0.2)
        UdpBackend(SPEC, f"127.0.0.1:{robot.getsockname()[1]}").close()
        with pytest.raises(TimeoutError):
            robot.recv(1000)
