"""The clock keeps its phase on a fake time line, and the histogram its counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.clock import LatencyHistogram, PeriodicClock

PERIOD = 10_000


class FakeTime:
    """A time line that only work, sleep and looking at it move forward."""

    def __init__(self, overshoot: int = 0) -> None:
        self.time, self.overshoot, self.slept = 12_345, overshoot, []

    def now(self) -> int:
        self.time += 1
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += round(seconds * 1e9) + self.overshoot


def test_deadlines_do_not_drift() -> None:
    """A thousand ticks of uneven work and late wake-ups end on the grid of the first: errors do not add up."""
    fake = FakeTime(overshoot=37)
    clock = PeriodicClock(PERIOD, now=fake.now, sleep=fake.sleep)
    start = clock.start()
    for k in range(1000):
        fake.time += (k * 997) % 9000
        assert clock.wait() == 0
        assert 0 <= fake.time - (start + (k + 1) * PERIOD) < 50
    assert clock.misses == clock.skipped == 0 and clock.ticks == 1000


def test_a_short_miss_is_made_up_at_once() -> None:
    """A tick a little late is a miss; the next begins without sleep, and its own deadline is still on the grid."""
    fake = FakeTime()
    clock = PeriodicClock(PERIOD, now=fake.now, sleep=fake.sleep)
    start = clock.start()
    fake.time = start + PERIOD + 500
    assert clock.wait() == 0 and fake.slept == [] and clock.misses == clock.miss_streak == 1
    assert clock.deadline_ns == start + 2 * PERIOD
    assert clock.wait() == 0 and clock.miss_streak == 0 and clock.misses == 1
    assert start + 2 * PERIOD <= fake.time < start + 2 * PERIOD + 10


def test_a_long_stall_skips_whole_periods_and_keeps_phase() -> None:
    """After 3.4 periods, two whole ones are skipped and counted, and nothing fires back to back."""
    fake = FakeTime()
    clock = PeriodicClock(PERIOD, now=fake.now, sleep=fake.sleep)
    start = clock.start()
    fake.time = start + 34_000
    assert clock.wait() == 2 and clock.misses == 1 and clock.skipped == 2 and clock.ticks == 3
    assert clock.lateness_ns == pytest.approx(4000, abs=5)
    clock.wait()
    assert start + 4 * PERIOD <= fake.time < start + 4 * PERIOD + 10


@pytest.mark.parametrize(("stall", "skipped", "lateness"), [(18_500, 1, 1), (35_900, 2, 5900), (36_100, 3, 1)])
def test_a_tick_that_could_not_end_in_time_is_not_begun(stall: int, skipped: int, lateness: int) -> None:
    """With too little left of the period that a miss ended in it is skipped, and the next tick begins on the grid."""
    fake = FakeTime()
    clock = PeriodicClock(PERIOD, 0, 2000, fake.now, fake.sleep)
    start = clock.start()
    fake.time = start + stall
    assert clock.wait() == skipped and clock.misses == clock.miss_streak == 1
    assert clock.skipped == skipped and clock.ticks == clock.lost_streak == 1 + skipped
    assert clock.lateness_ns == pytest.approx(lateness, abs=5) and fake.time - start == pytest.approx(
        (1 + skipped) * PERIOD + lateness, abs=5
    )
    clock.wait()
    assert clock.misses == 1 and clock.ticks == 2 + skipped
    assert clock.miss_streak == clock.lost_streak == 0


@pytest.mark.parametrize(("took", "skipped"), [(1900, 0), (2400, 0), (2600, 1)])
def test_a_late_tick_is_expected_to_take_what_the_last_one_took(took: int, skipped: int) -> None:
    """Woken 15 us late, it ended after its deadline, too: the next begins if that long is left, or the least there is.

    With 2 us as the least, after 1.9 of work 3.1 are left, after 2.4 there are 2.6, after 2.6 only 2.4.
    """
    fake = FakeTime(15_000)
    clock = PeriodicClock(PERIOD, 0, 2000, fake.now, fake.sleep)
    start = clock.start()
    clock.wait()
    fake.time = start + 25_000 + took
    assert clock.wait() == skipped and clock.misses == 1
    assert clock.start() == fake.time and clock.ticks == clock.lateness_ns == 0


def test_no_more_than_a_period_is_waited_for_the_next_tick() -> None:
    """However long the last one took: the next whole period is enough for any tick there is."""
    fake = FakeTime()
    clock = PeriodicClock(PERIOD, 0, 8000, fake.now, fake.sleep)
    start = clock.start()
    fake.time = start + 25_000
    assert clock.wait() == 2 and fake.time - start == pytest.approx(3 * PERIOD, abs=5)


@given(
    st.lists(st.integers(0, 5 * PERIOD), min_size=1, max_size=50),
    st.integers(0, PERIOD), st.integers(0, PERIOD), st.integers(0, 300),
)  # fmt: skip
def test_phase_and_counts_hold_for_any_work(work: list[int], spin: int, least: int, overshoot: int) -> None:
    """However long ticks take: waking is never early, every period is run or skipped, the phase never moves."""
    fake = FakeTime(overshoot)
    clock = PeriodicClock(PERIOD, spin, least, fake.now, fake.sleep)
    start = clock.start()
    for duration in work:
        fake.time += duration
        skipped, before = clock.wait(), clock.deadline_ns - PERIOD
        assert (before - start) % PERIOD == 0 and fake.time >= before and skipped >= 0
        assert fake.time - before <= PERIOD + overshoot + spin + 2
    assert clock.ticks == len(work) + clock.skipped
    assert clock.misses <= len(work)


def test_spin_shortens_the_sleep() -> None:
    """With a spin margin it sleeps less and polls the rest."""
    fake = FakeTime()
    clock = PeriodicClock(PERIOD, 4000, 0, fake.now, fake.sleep)
    start = clock.start()
    clock.wait()
    assert fake.slept[0] == pytest.approx(6e-6, abs=1e-8) and fake.time == start + PERIOD


@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=200))
def test_histogram_agrees_with_sorting(durations: list[int]) -> None:
    """Quantiles equal those of the sorted durations to the bin width, the maximum exactly; overflow is not lost."""
    histogram = LatencyHistogram(bins=200)
    for duration in durations:
        histogram.add(duration)
    summary = histogram.summary()
    ordered = np.sort(durations) / 1000
    assert summary.count == len(durations) and summary.max_us == ordered[-1]
    for probability, found in ((0.5, summary.p50_us), (0.99, summary.p99_us), (0.999, summary.p999_us)):
        exact = ordered[int(np.ceil(probability * len(ordered))) - 1]
        assert exact <= found + 1e-9
        if exact < 200:
            assert found <= exact + 1.0


@given(st.lists(st.integers(0, 300_000), max_size=40))
def test_counts_below_are_those_of_counting(durations: list[int]) -> None:
    """At any edge, also beyond the longest duration and where durations are longer than the last bin."""
    histogram = LatencyHistogram(bins=200)
    for duration in durations:
        histogram.add(duration)
    edges, counts = histogram.counts_below(np.arange(0, 300, 7))
    assert edges.tolist() == list(range(7, 201, 7))
    assert counts.tolist() == [sum(duration < 1000 * edge for duration in durations) for edge in edges]


def test_empty_histogram_says_so() -> None:
    """No durations give NaN, not zero."""
    assert np.isnan(LatencyHistogram().summary().p50_us)


def test_histogram_in_memory_of_others() -> None:
    """Counting in given cells leaves everything in them: another histogram of them goes on where this one is."""
    cells = np.zeros(52, dtype=np.int64)
    first = LatencyHistogram(cells=cells)
    for duration in (0, 999, 1000, 49_999, 50_000, 7_000_000):
        first.add(duration)
    second = LatencyHistogram(cells=cells)
    assert second.summary() == first.summary() and second.count == 6
    second.add(9_000_000)
    assert cells[-1] == 9_000_000 and cells[:-1].sum() == 7 and cells[50] == 3


def test_coarser_counts_and_sum() -> None:
    """Counts below edges are exact, edges beyond the bins are left out, and the sum is right to half a bin each."""
    histogram = LatencyHistogram(bins=100)
    durations = [500, 1500, 1999, 60_000, 99_999, 250_000]
    for duration in durations:
        histogram.add(duration)
    edges, counts = histogram.counts_below(np.array([0, 1, 2, 100, 101]))
    assert edges.tolist() == [1, 2, 100] and counts.tolist() == [1, 3, 5]
    assert histogram.sum_us == pytest.approx(sum(durations) / 1000, abs=0.5 * len(durations))
