"""Time in the control loop: absolute deadlines in integer nanoseconds, and a histogram of how long things took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class PeriodicClock:
    """Wakes at t0 + k * period. After a miss the phase is kept: whole periods are skipped, never shifted.

    What is left of the period that a miss ended in is used if a tick could end in it. Else that one is skipped and
    the next tick is in time; begun at once, it would be late in its turn. How long a tick takes is not known: what the
    last one took is a hint while a machine is slow, and none after a single long pause, so it counts up to a bound.
    """

    def __init__(
        self,
        period_ns: int,
        spin_ns: int = 0,
        least_ns: int = 0,
        now: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Makes a clock; `start` sets it going.

        Args:
            period_ns: [ns] one control period.
            spin_ns: [ns] before a deadline from which it polls instead of sleeping: less jitter for more CPU.
            least_ns: [ns] that must be left of a period for a late tick to begin in it; up to twice as much if the last
                tick took that long.
            now: Monotonic clock [ns].
            sleep: Sleeps [s].
        """
        self.now = now
        self.period_ns = period_ns
        self.ticks = 0  # grid index of the running tick, skipped ones counted
        self.misses = 0  # ticks that ended after their deadline
        self.miss_streak = 0  # of these, in a row until now
        self.lost_streak = 0  # periods of that streak, skipped ones counted
        self.skipped = 0  # whole periods in which no tick began
        self.lateness_ns = 0  # [ns] of the last wake-up, after its deadline
        self._spin_ns, self._least_ns = spin_ns, least_ns
        self._sleep = sleep
        self._start_ns = 0

    @property
    def deadline_ns(self) -> int:
        """[ns] end of the running tick, which is the start of the next."""
        return self._start_ns + (self.ticks + 1) * self.period_ns

    def start(self) -> int:
        """Sets t0 to now.

        Returns:
            [ns] t0.
        """
        self._start_ns = self.now()
        self.ticks = self.lateness_ns = 0
        return self._start_ns

    def wait(self) -> int:
        """Ends the running tick: sleeps until its deadline, or counts a miss and goes on as soon as that makes sense.

        Returns:
            Whole periods that were skipped; 0 in time, and 0 for a miss that leaves enough of the next period.
        """
        deadline = self.deadline_ns
        late, skipped = self.now() - deadline, 0
        if late > 0:
            self.misses += 1
            self.miss_streak += 1
            took = self.period_ns - self.lateness_ns + late
            least = max(self._least_ns, min(took, 2 * self._least_ns, self.period_ns))
            skipped = (late + least) // self.period_ns
            self.skipped += skipped
            self.lost_streak += 1 + skipped
            self.ticks += skipped
            deadline += skipped * self.period_ns
            late -= skipped * self.period_ns
            if late >= 0:
                self.lateness_ns = late
                self.ticks += 1
                return skipped
        else:
            self.miss_streak = self.lost_streak = 0
        if -late > self._spin_ns:
            self._sleep((-late - self._spin_ns) * 1e-9)
        after = self.now()
        while after < deadline:  # polls through the spin, and through a sleep that woke a little early
            after = self.now()
        self.lateness_ns = after - deadline
        self.ticks += 1
        return skipped


@dataclass(frozen=True)
class LatencySummary:
    """Quantiles of a latency, each exact to 1 us upward."""

    count: int
    p50_us: float  # [us]
    p99_us: float  # [us]
    p999_us: float  # [us]
    max_us: float  # [us]


class LatencyHistogram:
    """Counts durations in bins of 1 us; its size is fixed, however long the robot runs."""

    def __init__(self, bins: int = 100_000, cells: np.ndarray | None = None) -> None:
        """Makes an empty histogram, or goes on with one that lies somewhere.

        Args:
            bins: Number of bins of 1 us; longer durations share one more, and the greatest is kept exactly.
            cells: (bins + 2,) int64 to count in, such as shared memory: the bins, the one more, the greatest [ns].
        """
        self._cells = np.zeros(bins + 2, dtype=np.int64) if cells is None else cells
        self._counts = self._cells[:-1]
        self._max_ns = int(self._cells[-1])
        self.count = int(self._counts.sum())

    def add(self, duration_ns: int) -> None:
        """Counts one duration.

        Args:
            duration_ns: [ns]; a negative one counts as 0.
        """
        self.count += 1
        self._counts[min(max(duration_ns, 0) // 1000, len(self._counts) - 1)] += 1
        if duration_ns > self._max_ns:
            self._max_ns = duration_ns
            self._cells[-1] = duration_ns

    def quantile_us(self, probability: float) -> float:
        """The duration that a share of all did not exceed.

        Args:
            probability: In (0, 1].

        Returns:
            [us] upper edge of the bin, at most the greatest duration; NaN when empty.
        """
        return self._quantiles_us((probability,))[0]

    def counts_below(self, edges_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many durations were shorter than each of some edges: what a histogram of any coarseness is made of.

        Args:
            edges_us: (n,) int [us], increasing; those beyond the bins are left out.

        Returns:
            The edges (m,) [us], and (m,) int64 how many durations were below each.
        """
        edges = edges_us[(edges_us > 0) & (edges_us < len(self._counts))]
        cumulative = self._cumulative()
        return edges, cumulative[np.minimum(edges, len(cumulative)) - 1]

    @property
    def sum_us(self) -> float:
        """[us] of all durations, each taken from the middle of its bin; the longest from the greatest."""
        middles = np.arange(len(self._counts)) + 0.5
        middles[-1] = self._max_ns / 1000
        return float(self._counts @ middles)

    def _cumulative(self) -> np.ndarray:
        """How many durations fell into each bin and those before it, up to the greatest: the rest is empty and long."""
        return np.cumsum(self._counts[: self._max_ns // 1000 + 1])

    def summary(self) -> LatencySummary:
        """The usual quantiles."""
        p50, p99, p999 = self._quantiles_us((0.5, 0.99, 0.999))
        return LatencySummary(self.count, p50, p99, p999, self._max_ns / 1000)

    def _quantiles_us(self, probabilities: tuple[float, ...]) -> list[float]:
        if self.count == 0:
            return [float("nan")] * len(probabilities)
        ranks = [max(1, int(np.ceil(probability * self.count))) for probability in probabilities]
        found = np.searchsorted(self._cumulative(), ranks)
        edges = np.where(found == len(self._counts) - 1, self._max_ns / 1000, found + 1.0)
        return np.minimum(edges, self._max_ns / 1000).tolist()
