"""UdpBackend in real time: what comes late, twice, or not at all costs the loop a reading and no deadline."""

import contextlib
import dataclasses
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
from robots.datagram import READING, Message, decode, encode, spec_mark
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
