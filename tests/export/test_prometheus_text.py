"""What Prometheus is told parses by its own parser, and says what the box says."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from controller_process import ROOT, write_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from export.black_box import BlackBox, State
from export.flight_writer import FlightWriter
from export.live_feed import LiveFeed
from export.prometheus_text import metrics_text
from robots.spec import RobotSpec

Samples = dict[tuple[str, frozenset], float]


@pytest.fixture
def box(arm: RobotSpec) -> Iterator[BlackBox]:
    made = BlackBox.create(arm, seconds=1.0, about={"reward_threshold": 0.5, "bundle": 'a "quoted"\\path\n.bundle'})
    yield made
    made.close()


def scraped(box: BlackBox, path: Path, lost: str | None = None, now_ns: int = 10**9) -> Samples:
    """Every sample, by name and labels."""
    feed = LiveFeed(box, FlightWriter(path / "x.npz"))
    feed.poll(box.status(), lost, [], now_ns)
    families = list(text_string_to_metric_families(metrics_text(box, feed, now_ns)))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_the_numbers_are_the_box_s(box: BlackBox, tmp_path: Path) -> None:
    """Counters, gauges, state and labels come through the parser as they were."""
    box.set_state(State.RUNNING)
    for k in range(11):
        write_row(box, k, now_ns=k * 5_000_000)
    samples = scraped(box, tmp_path)
    for name in ("gcl_ticks_total", "gcl_deadline_misses_total", "gcl_stale_readings_total"):
        assert value(samples, name) == 10
    assert value(samples, "gcl_rate_hz") == pytest.approx(200.0) and value(samples, "gcl_reward") == 10.0
    assert value(samples, "gcl_reward_window_mean") == 10.0 and value(samples, "gcl_reward_threshold") == 0.5
    assert value(samples, "gcl_heartbeat_age_seconds") == pytest.approx(0.95)
    assert value(samples, "gcl_state", state="running") == 1 and value(samples, "gcl_state", state="fault") == 0
    info = next(dict(labels) for name, labels in samples if name == "gcl_build_info")
    assert info["bundle"] == 'a "quoted"\\path\n.bundle' and info["spec_sha256"] == box.spec.sha256
    assert not [name for name, _ in samples if name == "gcl_fault"]


def test_a_histogram_of_prometheus_agrees_with_counting(box: BlackBox, tmp_path: Path) -> None:
    """Buckets are cumulative and count exactly what is below their edge; sum and count are those of all ticks."""
    rng = np.random.default_rng(1)
    durations = (rng.lognormal(12, 2.5, 3000)).astype(np.int64)
    histogram = box.histogram("tick")
    for duration in durations.tolist():
        histogram.add(duration)
    samples = scraped(box, tmp_path)
    for edge in ("1e-05", "0.0005", "0.1"):
        below = int((durations // 1000 < float(edge) * 1e6 - 0.5).sum())
        assert value(samples, "gcl_tick_seconds_bucket", le=edge) == below > 0
    assert value(samples, "gcl_tick_seconds_bucket", le="+Inf") == value(samples, "gcl_tick_seconds_count") == 3000
    inside = durations[durations < 100_000_000]
    longest = (len(durations) - len(inside)) * durations.max()
    assert value(samples, "gcl_tick_seconds_sum") == pytest.approx((inside.sum() + longest) / 1e9, abs=3000e-6)


def test_faults_have_reasons(box: BlackBox, tmp_path: Path) -> None:
    """A latched fault and a lost controller are samples with their reason; before the first tick ages are NaN."""
    box.latch_fault("stale_reading", "300 ms", 5)
    samples = scraped(box, tmp_path, lost="controller_lost: it went away")
    assert value(samples, "gcl_fault", reason="stale_reading") == 1
    assert value(samples, "gcl_fault", reason="controller_lost") == 1
    assert math.isnan(value(samples, "gcl_heartbeat_age_seconds")) and math.isnan(value(samples, "gcl_rate_hz"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(reason=st.text(max_size=16), mean=st.floats())
def test_any_reason_and_number_parses(arm: RobotSpec, tmp_path: Path, reason: str, mean: float) -> None:
    """Whatever the fault's name and the reward's mean, the text parses and gives them back."""
    box = BlackBox.create(arm, seconds=0.1)
    box.beat(1, 0, 0, 0, 0, 1.0, mean)
    box.latch_fault(reason, "", 5)
    fault = box.status().fault
    samples = scraped(box, tmp_path)
    box.close()
    assert fault is not None and value(samples, "gcl_fault", reason=fault.reason) == 1
    np.testing.assert_equal(value(samples, "gcl_reward_window_mean"), mean)


def test_the_page_about_watching_names_what_there_is(box: BlackBox, tmp_path: Path) -> None:
    """Every metric that docs/watching.md tells of is exposed."""
    box.latch_fault("stale_reading", "", 5)
    names = {name for name, _ in scraped(box, tmp_path)}
    told = set(re.findall(r"\bgcl_\w+", (ROOT / "docs" / "watching.md").read_text()))
    assert len(told) > 15
    assert {name for name in told if name not in names and f"{name}_bucket" not in names} == set()
