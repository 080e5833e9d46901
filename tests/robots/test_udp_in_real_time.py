"""UdpBackend in real time: what comes late, twice, or not at all costs the loop a reading and no deadline."""

import contextlib
import dataclasses
import errno
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import robots.udp
from robots import BackendError, load_robot
from robots.datagram import CLOSE, COMMAND, READING, REFUSAL, Message, decode, encode, spec_mark
from robots.processors import available_cpus
from robots.spec import RobotSpec
from robots.udp import UdpBackend

SPEC = load_robot("cartpole")


def test_a_step_that_starts_late_does_not_end_late() -> None:
    """In real time a step ends by the time it was given, with the newest reading; the next one sees what came late."""
    robot = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    robot.bind(("127.0.0.1", 0))
    robot.settimeout(10.0)
    slow = dataclasses.replace(SPEC, control_dt=5.0)  # so that only the time given can end the waiting
    mark, values = spec_mark(slow), np.zeros(1 + len(slow.channels))
    with UdpBackend(slow, f"127.0.0.1:{robot.getsockname()[1]}", real_time=True) as backend:

        def answer(sequence: int) -> None:
            datagram, peer = robot.recvfrom(65535)
            request = decode(datagram, mark)
            assert request is not None
            values[0] = sequence
            robot.sendto(encode(Message(READING, request.request, values), mark), peer)

        thread = threading.Thread(target=answer, args=(0,))
        thread.start()
        assert backend.reset().sequence == 0
        thread.join()
        started = time.monotonic_ns()
        backend.answer_by_ns = started + 20_000_000
        assert backend.step(np.zeros(1)).sequence == 0  # nobody answers in time
        assert time.monotonic_ns() - started < 2_000_000_000
        answer(1)  # late
        backend.answer_by_ns = time.monotonic_ns() - 10**9  # long past: a look is taken all the same
        assert backend.step(np.zeros(1)).sequence == 1
    robot.close()


def test_in_real_time_a_robot_answers_while_the_loop_does_other_things() -> None:
    """Sending waits for nothing; receiving later takes what came, which counts as old as its request."""
    slow = dataclasses.replace(SPEC, control_dt=0.2)  # beside which a busy machine's pauses are short
    with driven(slow) as (backend, answer):
        before = time.monotonic_ns()
        backend.send(np.zeros(1))
        sent = time.monotonic_ns()
        answer(1, 1)
        time.sleep(2 * slow.control_dt)
        reading = backend.receive()
        assert reading.sequence == 1 and before <= reading.timestamp_ns <= sent
        with pytest.raises(BackendError, match="before send"):
            backend.receive()  # told of once
        backend.send(np.zeros(1))
        time.sleep(slow.control_dt)
        late = time.perf_counter()
        assert backend.receive().sequence == 1  # lost, and not waited for any more
        assert time.perf_counter() - late < 0.8 * slow.control_dt
        backend.send(np.zeros(1))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: (time.sleep(0.2 * slow.control_dt), answer(3, 2)))
            assert backend.receive().sequence == 2  # asked for soon after, it is waited for


def test_doubled_answers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the loop is, what came is taken, or readings would grow older; noise has an end."""
    with driven(SPEC) as (backend, answer):
        for step in range(1, 41):
            backend.send(np.zeros(1))
            for _ in range(6):
                answer(step - 1, step - 1)
            answer(step, step)
            backend.answer_by_ns = time.monotonic_ns() - 10**9
            assert backend.receive().sequence == step
        taken: list[bytes | None] = []
        take = backend._take
        monkeypatch.setattr(backend, "_take", lambda sock: taken.append(take(sock)) or taken[-1])
        monkeypatch.setattr(robots.udp, "_LEAST_WAIT_NS", 0)
        for _ in range(100):
            answer(2**31, 0)  # to a request that was never made
        backend.send(np.zeros(1))
        assert backend.receive().sequence == 40 and len(taken) == robots.udp._MOST_TAKEN


@contextlib.contextmanager
def driven(spec: RobotSpec) -> Iterator[tuple[UdpBackend, Callable[[int, int], None]]]:
    """A backend in real time after its reset, and what sends it a reading: how many requests ahead, which sequence."""
    mark = spec_mark(spec)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as robot, ThreadPoolExecutor(1) as pool:
        robot.bind(("127.0.0.1", 0))
        robot.settimeout(10.0)
        with UdpBackend(spec, f"127.0.0.1:{robot.getsockname()[1]}", real_time=True) as backend:
            asked = pool.submit(backend.reset)
            datagram, peer = robot.recvfrom(65535)
            reset = decode(datagram, mark)
            assert reset is not None

            def answer(ahead: int, sequence: int) -> None:
                values = np.zeros(1 + len(spec.channels))
                values[0] = sequence
                robot.sendto(encode(Message(READING, reset.request + ahead, values), mark), peer)

            answer(0, 0)
            asked.result()
            yield backend, answer


class Robot:
    """A robot that answers as it is told to, and all that it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int, float]] = []  # kind, request, first number of the payload
        self.deaf = 0  # to so many commands, which count as lost
        self.refuses = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        mark, sequence = spec_mark(SPEC), 0
        while (datagram := self.socket.recvfrom(65535))[0]:
            message = decode(datagram[0], mark)
            assert message is not None
            if message.kind == COMMAND and self.deaf:
                self.deaf -= 1
                continue
            self.heard.append(
                (message.kind, message.request, float(message.payload[0]) if message.payload.size else 0.0)
            )
            sequence += 1
            values = np.full(1 + len(SPEC.channels), float(sequence))
            refused = self.refuses and message.kind == COMMAND
            answer = (
                Message(REFUSAL, message.request, np.full(4, 33.0))
                if refused
                else Message(READING, message.request, values)
            )
            self.socket.sendto(encode(answer, mark), datagram[1])

    def backend(self) -> UdpBackend:
        return UdpBackend(SPEC, f"127.0.0.1:{self.socket.getsockname()[1]}", real_time=True)

    def heard_of(self, kind: int) -> list[tuple[int, float]]:
        return [(request, number) for heard, request, number in self.heard if heard == kind]


@pytest.fixture
def robot() -> Iterator[Robot]:
    made = Robot()
    yield made
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", made.socket.getsockname())
    made.thread.join(10.0)
    made.socket.close()


@pytest.mark.parametrize("lost", [0, 1, 3, 4])
def test_the_last_command_comes_before_the_farewell(robot: Robot, lost: int) -> None:
    """It is what leaves the robot at rest: lost on the way, it is sent again, and not waited for without end."""
    with robot.backend() as backend:
        backend.reset()
        backend.step(np.ones(1))
        robot.deaf = lost
        backend.send(np.zeros(1))
    wait_for(lambda: len(robot.heard_of(CLOSE)) == 3)
    commands = robot.heard_of(COMMAND)
    assert commands == [(2, 1.0), (3, 0.0)][: 1 if lost == 4 else 2]
    assert robot.heard_of(CLOSE) == [(4, 0.0)] * 3 and robot.heard[-3:] == [(CLOSE, 4, 0.0)] * 3


def test_who_fails_while_it_drives_says_no_farewell(robot: Robot) -> None:
    """An exception, or a robot that cannot be reached, is no end in order: the robot's own side is to notice."""
    with pytest.raises(RuntimeError), robot.backend() as backend:
        backend.reset()
        backend.step(np.ones(1))
        raise RuntimeError("of the policy")
    with robot.backend() as backend:
        backend.reset()
        real = backend._open_socket()
        backend._socket = NoBuffer(socket.AF_INET, socket.SOCK_DGRAM)
        with pytest.raises(BackendError, match="No buffer space"):
            backend.step(np.ones(1))
        backend._socket.close()
        backend._socket = real
    time.sleep(0.1)
    assert robot.heard_of(CLOSE) == []


class NoBuffer(socket.socket):
    """What a full network card looks like."""

    def send(self, *_: object) -> int:
        raise OSError(errno.ENOBUFS, "No buffer space available")


def test_who_has_not_begun_or_has_begun_anew_says_farewell(robot: Robot) -> None:
    """After an exception before the first reset or after a refusal nobody drives, and what was lost before is over."""
    with pytest.raises(RuntimeError), robot.backend() as backend:
        backend.measure()
        raise RuntimeError("of the caller")
    wait_for(lambda: len(robot.heard_of(CLOSE)) == 3)
    with robot.backend() as backend:
        backend.reset()
        backend._gone(OSError(errno.ENOBUFS, "for a moment"))
        backend.reset()
    wait_for(lambda: len(robot.heard_of(CLOSE)) == 6)
    robot.refuses = True
    with pytest.raises(BackendError, match="refused: !!!!"), robot.backend() as backend:
        backend.reset()
        backend.step(np.ones(1))
    wait_for(lambda: len(robot.heard_of(CLOSE)) == 9)
    assert len(robot.heard_of(COMMAND)) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    """What a thread will have done soon."""
    deadline = time.monotonic() + 10.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


def test_a_lost_answer_costs_the_time_waited_and_not_a_whole_millisecond() -> None:
    """At 2 kHz a step nobody answers takes what a bare wait for as long takes, where Python's time-outs take 1 ms."""
    quick = dataclasses.replace(SPEC, control_dt=0.0005)
    steps, waits = [], []
    with driven(quick) as (backend, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        for _ in range(200):
            started = time.perf_counter()
            backend.step(np.zeros(1))
            steps.append(time.perf_counter() - started)
            started = time.perf_counter()
            select.select([silent], [], [], 0.8 * quick.control_dt)
            waits.append(time.perf_counter() - started)
    assert np.median(steps) < 1.8 * np.median(waits)  # rounded up it was 2.4


def test_an_answer_that_comes_soon_is_taken_without_sleeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sleeps has to be woken; what is there within a quarter of the period, at most 0.5 ms, is found awake."""
    with driven(SPEC) as (backend, answer):
        assert backend._awake_ns == (500_000 if available_cpus() > 1 else 0)
        backend._awake_ns = 10**9  # however busy this machine is
        answer(1, 1)
        monkeypatch.setattr(select, "select", None)
        assert backend.step(np.zeros(1)).sequence == 1
