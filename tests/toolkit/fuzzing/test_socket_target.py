"""Both ends of the socket driver under hostile datagrams; and code broken on purpose is found out."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots import load_robot
from robots.datagram import Message, decode
from robots.server import RobotServer
from robots.session import RobotSessions
from robots.udp import UdpBackend
from toolkit.fuzzing import socket_target
from toolkit.fuzzing.datagram_oracle import REFUSAL, ViolationError
from toolkit.fuzzing.socket_target import ControllerTarget, ServerTarget

SPEC = load_robot("cheetah")
keys = st.sampled_from((b"", b"a key"))


@settings(max_examples=30)
@given(st.integers(0, 2**32), keys)
def test_robots_end(seed: int, key: bytes) -> None:
    """No datagram moves the robot that must not, none raises, and the driver's own commands still arrive."""
    target = ServerTarget(SPEC, seed, key)
    thrown, legal = target.some(400)
    assert thrown == 400 and 100 < legal < 380
    assert target.counts["commands that reached the robot"] > 5


@settings(max_examples=15)
@given(st.integers(0, 2**32), keys, st.booleans())
def test_controllers_end(seed: int, key: bytes, real_time: bool) -> None:
    """No datagram becomes a reading that is none, none raises, and right answers are still read."""
    target = ControllerTarget(SPEC, seed, key, real_time)
    thrown, _ = target.some(600)
    assert thrown >= 600 and target.counts["readings"] > 0


def test_same_seed_same_packets() -> None:
    """A violation can be had again from its seed."""
    one, other = ServerTarget(SPEC, 3, b""), ServerTarget(SPEC, 3, b"")
    assert [one.one() for _ in range(500)] == [other.one() for _ in range(500)]
    assert one.counts == other.counts


def found_out(target: Callable[[], ServerTarget | ControllerTarget], word: str) -> None:
    with pytest.raises(ViolationError, match=word):
        target().some(20_000)


def test_a_reader_that_forgets_the_seal_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were damage not seen, the fuzzer would say so."""
    monkeypatch.setattr("hmac.compare_digest", lambda *_: True)
    found_out(lambda: ServerTarget(SPEC, 0, b""), "decode says")


def test_a_robot_that_takes_anything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a command with a NaN let through, the fuzzer would say so."""
    monkeypatch.setattr("robots.mock.check_command", lambda *_: None)
    found_out(lambda: ServerTarget(SPEC, 0, b""), "malformed command|raised")


def test_a_server_that_obeys_twice_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a request obeyed again when it comes again, the fuzzer would say so."""
    answer = RobotServer.answer

    def forgetful(self: RobotServer, datagram: bytes, peer: tuple[str, int]) -> bytes | None:
        self._last = None
        return answer(self, datagram, peer)

    monkeypatch.setattr(RobotServer, "answer", forgetful)
    found_out(lambda: ServerTarget(SPEC, 0, b""), "obeyed after|answered after")


def test_a_server_that_obeys_anybody_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a stranger obeyed, the fuzzer would say so."""
    answer = RobotServer.answer

    def trusting(self: RobotServer, datagram: bytes, peer: tuple[str, int]) -> bytes | None:
        return answer(self, datagram, self.driver or peer)

    monkeypatch.setattr(RobotServer, "answer", trusting)
    found_out(lambda: ServerTarget(SPEC, 0, b""), "moved the robot|answered|took the robot")


def test_a_server_that_takes_the_key_for_a_sessions_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were what is sealed with the key itself obeyed, which may be a recording, the fuzzer would say so."""
    monkeypatch.setattr(RobotSessions, "following", lambda self, now: self._key)
    found_out(lambda: ServerTarget(SPEC, 0, b"a key"), "malformed datagram had an effect")


def test_a_controller_that_takes_what_it_said_itself_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were any kind of message an answer, the fuzzer would say so: a request that is sent back would end the run."""
    monkeypatch.setattr("robots.udp._ANSWERS", range(9))
    found_out(lambda: ControllerTarget(SPEC, 0, b"", True), "without an answer")


def test_a_controller_that_believes_any_answer_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an answer to another request read, the fuzzer would say so."""

    def any_answer(self: UdpBackend, sock: object, deadline: float, key: bytes) -> Message | None:
        while True:
            came = self._wait(sock, 1.0)  # pyright: ignore[reportArgumentType]
            answer = decode(came, self._mark, key) if came else None
            if answer is not None:
                return answer

    monkeypatch.setattr(UdpBackend, "_await", any_answer)
    found_out(lambda: ControllerTarget(SPEC, 0, b"", False), "nobody sent|without an answer")


def test_a_refusal_can_be_printed() -> None:
    """The reason that a robot gives for a refusal is text, whatever numbers it was made of."""
    target = ControllerTarget(SPEC, 0, b"", False)
    good = target._mutator.good
    target._answer = lambda request: good(REFUSAL, request, [float(0xD800)])
    target._mutator.spoil = lambda good: good
    target.batch()


def test_decode_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that reads a number differently is found out, and one that raises is too."""
    monkeypatch.setattr(socket_target, "decode", lambda *_: 1 / 0)
    found_out(lambda: ServerTarget(SPEC, 0, b""), "decode raised")
