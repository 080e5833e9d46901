"""The black box keeps whole rows in order, whoever writes and dies meanwhile, and takes nothing damaged for a box."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from controller_process import start_controller, write_row
from hypothesis import given, settings
from hypothesis import strategies as st

from export.black_box import BlackBox, BlackBoxError, State, StopRequest
from export.black_box_layout import Word
from export.clock import LatencyHistogram
from export.flight_snapshot import FlightSnapshot
from export.safety import Fault
from robots.backend import SensorReading
from robots.spec import RobotSpec

ROWS = 40


@pytest.fixture
def box(arm: RobotSpec) -> Iterator[BlackBox]:
    """A box of 40 rows."""
    made = BlackBox.create(arm, seconds=ROWS * arm.control_dt, about={"bundle": "arm.bundle", "reward_threshold": -1.5})
    yield made
    made.close()


def check_rows(snapshot: FlightSnapshot) -> None:
    """Every row is all of one number, and the numbers count up by one."""
    numbers = np.arange(snapshot.first, snapshot.first + len(snapshot))
    for array in (snapshot.values, snapshot.observation, snapshot.wanted, snapshot.command):
        np.testing.assert_array_equal(array, np.broadcast_to(numbers[:, None], array.shape))
    for array in (snapshot.reward, snapshot.sequence, snapshot.lateness_ns, snapshot.flags):
        np.testing.assert_array_equal(array, numbers)
    np.testing.assert_array_equal(snapshot.tick_ns, 1000 * numbers)
    np.testing.assert_array_equal(snapshot.begin_ns, snapshot.timestamp_ns)
    assert (np.diff(snapshot.begin_ns) > 0).all()


@pytest.mark.parametrize(("ticks", "first"), [(0, 0), (7, 0), (39, 0), (40, 1), (97, 58)])
def test_the_newest_rows_in_order(box: BlackBox, ticks: int, first: int) -> None:
    """Few rows are all kept; of more, the newest but one ring's worth, oldest first, in every column."""
    for k in range(ticks):
        write_row(box, k)
    snapshot = box.snapshot()
    assert (snapshot.first, len(snapshot)) == (first, ticks - first)
    check_rows(snapshot)


def test_a_part_of_the_ring(box: BlackBox, arm: RobotSpec) -> None:
    """The newest seconds only, or only what came after a row already known."""
    for k in range(97):
        write_row(box, k)
    assert (box.snapshot(seconds=10 * arm.control_dt).first, len(box.snapshot(seconds=10 * arm.control_dt))) == (87, 10)
    assert (box.snapshot(after=90).first, len(box.snapshot(after=90))) == (91, 6)
    assert len(box.snapshot(after=96)) == 0 and len(box.snapshot(after=1000)) == 0
    check_rows(box.snapshot(after=90))


def test_a_snapshot_is_a_copy(box: BlackBox) -> None:
    """What is recorded afterwards does not change it."""
    write_row(box, 0)
    before = box.snapshot()
    for k in range(1, 90):
        write_row(box, k)
    assert len(before) == 1 and before.command.max() == 0.0 and before.tick_ns.max() == 0


@pytest.mark.parametrize("hz", [0, 1000])
def test_no_row_is_torn_while_another_process_writes(box: BlackBox, hz: int) -> None:
    """Copies taken while the controller wraps around the ring hold whole, consecutive rows, and time goes forward."""
    controller, last, got = start_controller(box, hz), -1, 0
    try:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            snapshot = box.snapshot()
            check_rows(snapshot)
            assert snapshot.first >= last
            last, got = snapshot.first, got + len(snapshot)
    finally:
        controller.kill()
        controller.wait()
        assert controller.stdout is not None
        controller.stdout.close()
    assert last > 10 * ROWS and got > 10 * ROWS


def test_what_a_killed_controller_wrote_is_still_there(box: BlackBox) -> None:
    """After kill -9 the ring holds the rows until the end, and the words say that it did not end itself."""
    controller = start_controller(box, 1000)
    while box.status().ticks < 2 * ROWS:
        time.sleep(0.01)
    controller.kill()
    assert controller.wait() == -9 and controller.stdout is not None
    controller.stdout.close()
    snapshot, status = box.snapshot(), box.status()
    assert len(snapshot) >= ROWS - 2
    check_rows(snapshot)
    assert status.state is State.RUNNING and status.heartbeat_ns >= snapshot.begin_ns[-1]
    assert status.ticks - (snapshot.first + len(snapshot) - 1) in (0, 1)


def test_the_words_of_both_sides(box: BlackBox) -> None:
    """What one side writes the other reads; a stop request only grows; the first fault is kept, cut to its room."""
    other = BlackBox.attach(os.dup(box.fd))
    fresh = other.status()
    assert (fresh.state, fresh.fault, fresh.stop_request) == (State.NOT_ARMED, None, StopRequest.NONE)
    assert np.isnan(fresh.reward_window_mean) and fresh.controller_pid == os.getpid()
    box.beat(11, 12, 13, 14, 15, 0.25, -3.5)
    box.set_state(State.SOFT_START)
    box.latch_fault("stale_reading", "ä" * 300, 77)
    box.latch_fault("second", "a consequence", 78)
    status = other.status()
    assert (status.heartbeat_ns, status.ticks, status.misses, status.skipped) == (11, 12, 13, 14)
    assert (status.stale_readings, status.blend, status.reward_window_mean) == (15, 0.25, -3.5)
    assert status.state is State.SOFT_START and status.state.text == "soft start"
    assert status.fault == Fault("stale_reading", "ä" * 256, 77) == other.snapshot().fault
    other.request_stop(StopRequest.EMERGENCY)
    other.request_stop(StopRequest.SOFT)
    other.request_save()
    other.observer_alive(5)
    other.operator_alive(6)
    assert (box.stop_request, box.observer_heartbeat_ns, box.operator_heartbeat_ns) == (2, 5, 6)
    assert box.status().save_request == 1
    other.close()


def test_all_that_is_needed_is_inside(box: BlackBox, arm: RobotSpec) -> None:
    """Another process learns robot, facts and clock from the descriptor alone."""
    other = BlackBox.attach(os.dup(box.fd))
    assert other.spec == arm and other.rows == ROWS
    snapshot = other.snapshot()
    assert snapshot.about == {"bundle": "arm.bundle", "reward_threshold": -1.5}
    now = time.time_ns() - time.monotonic_ns()
    assert abs(snapshot.unix_minus_monotonic_ns - now) < 60e9
    other.close()


def test_histograms_are_shared(box: BlackBox) -> None:
    """What the controller counts another process sees, quantiles and greatest included, as if it had counted itself."""
    mine, shared = LatencyHistogram(), box.histogram("tick")
    for duration in (0, 1500, 1500, 80_000, 250_000_123):
        mine.add(duration)
        shared.add(duration)
    other = BlackBox.attach(os.dup(box.fd))
    assert other.latency("tick").summary() == mine.summary()
    assert other.latency("wake").count == 0
    other.close()


def test_a_wrong_reading_does_not_stop_the_recorder(box: BlackBox, arm: RobotSpec) -> None:
    """Values of a wrong shape are kept as NaN, and numbers too great for the row cost only themselves."""
    command = np.zeros(arm.act_dim)
    for reading in (SensorReading(np.zeros(1), 5, 9), SensorReading(np.ones(len(arm.channels)), 1 << 70, 1 << 64)):
        box.record(reading, np.zeros(arm.obs_dim), command, command, 0.5, 1, 2, 3)
    snapshot = box.snapshot()
    assert np.isnan(snapshot.values[0]).all() and (snapshot.values[1] == 1.0).all()
    assert snapshot.sequence.tolist() == [9, -1] and snapshot.timestamp_ns.tolist() == [5, 0]
    assert snapshot.reward.tolist() == [0.5, 0.5]


def test_recording_keeps_no_memory(box: BlackBox, arm: RobotSpec) -> None:
    """Ten thousand ticks leave no more allocated than one hundred."""
    reading = SensorReading(np.zeros(len(arm.channels)), 1, 1)
    observation, command, histogram = np.zeros(arm.obs_dim), np.zeros(arm.act_dim), box.histogram("tick")

    def ticks(count: int) -> int:
        for k in range(count):
            box.beat(k, k, 0, 0, 0, 1.0)
            box.record(reading, observation, command, command, 0.0, k, k, 0)
            histogram.add(k)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = ticks(100)
        assert ticks(10_000) - before < 2000
    finally:
        tracemalloc.stop()


def test_nothing_is_left_in_the_file_system(arm: RobotSpec, tmp_path: Path) -> None:
    """A box has no name anywhere, memory for temporary files included, while it is open and afterwards."""
    code = (
        "import os, sys\nfrom export.black_box import BlackBox\nfrom robots import load_robot\n"
        "box = BlackBox.create(load_robot('cartpole'), 1.0)\n"
        "print(os.readlink(f'/proc/self/fd/{box.fd}'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    shared = set(os.listdir("/dev/shm"))
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == -9 and process.stdout.strip().endswith("(deleted)")
    assert list(tmp_path.iterdir()) == [] and not set(os.listdir("/dev/shm")) - shared


def test_a_box_that_cannot_be_is_refused(arm: RobotSpec) -> None:
    """No time, far too much of it, facts that are no JSON: one line each."""
    with pytest.raises(BlackBoxError, match="positive"):
        BlackBox.create(arm, seconds=0.0)
    with pytest.raises(BlackBoxError, match=r"legal are 1 to|keep fewer seconds"):
        BlackBox.create(arm, seconds=1e6)
    with pytest.raises(BlackBoxError, match="JSON"):
        BlackBox.create(arm, about={"x": object()})


def test_what_is_no_box_is_refused(tmp_path: Path) -> None:
    """A closed descriptor, a pipe, an empty and a foreign file are refused in one line."""
    (tmp_path / "empty").touch()
    (tmp_path / "foreign").write_bytes(os.urandom(9000))
    reader, writer = os.pipe()
    descriptors = [os.open(tmp_path / name, os.O_RDWR) for name in ("empty", "foreign")]
    for fd in (reader, *descriptors):
        with pytest.raises(BlackBoxError):
            BlackBox.attach(fd)
        os.close(fd)
    os.close(writer)
    with pytest.raises(BlackBoxError):
        BlackBox.attach(reader)


@settings(max_examples=150, deadline=None)
@given(
    damage=st.lists(
        st.one_of(
            st.tuples(st.just("word"), st.sampled_from(list(Word)), st.integers(-(2**63), 2**63 - 1)),
            st.tuples(st.just("byte"), st.integers(0, 4096 + 3000), st.integers(0, 255)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_damage_is_refused_or_harmless(arm: RobotSpec, damage: list[tuple[str, int, int]]) -> None:
    """Whatever stands in header and description, a box is refused with its own error, or can be read without any."""
    box = BlackBox.create(arm, seconds=5 * arm.control_dt)
    for k in range(7):
        write_row(box, k)
    box.latch_fault("reason", "detail", 1)
    for kind, place, value in damage:
        if kind == "word":
            box.words[place] = value
        else:
            os.pwrite(box.fd, bytes([value]), place)
    try:
        other = BlackBox.attach(os.dup(box.fd))
    except BlackBoxError:
        return
    finally:
        box.close()
    assert other.snapshot() is not None and other.status() is not None
    assert len(other.snapshot(seconds=0.02)) <= other.rows
    other.close()
