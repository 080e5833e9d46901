"""The run as Prometheus reads it: text exposition format 0.0.4."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable

import numpy as np

from export.black_box import BlackBox, State
from export.clock import LatencyHistogram
from export.flight_snapshot import Status
from export.live_feed import LiveFeed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# [us] upper edges: from a bare inference to a period of 100 ms
EDGES_US = np.array([10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000])

Labels = dict[str, str]


def metrics_text(box: BlackBox, feed: LiveFeed, now_ns: int) -> str:
    """All metrics as they are now.

    Args:
        box: Of the run.
        feed: Knows the rate, the reward and whether the controller is lost.
        now_ns: [ns] monotonic clock.

    Returns:
        The text, ending in a line feed.
    """
    status = box.status()
    lines = [*_counters(status), *_gauges(box, feed, status, now_ns), *_states(box, status, feed)]
    for name, meaning in (
        ("compute", "From a reading in hand to the command ready."),
        ("tick", "From the begin of a tick to its end."),
        ("wake", "From a deadline to being awake."),
    ):
        lines += _histogram(f"gcl_{name}_seconds", meaning, box.latency(name))
    return "\n".join(lines) + "\n"


def _counters(status: Status) -> list[str]:
    return [
        *_metric("gcl_ticks_total", "counter", "Ticks that began.", status.ticks),
        *_metric("gcl_deadline_misses_total", "counter", "Ticks that ended after their deadline.", status.misses),
        *_metric("gcl_skipped_periods_total", "counter", "Periods in which no tick began.", status.skipped),
        *_metric("gcl_stale_readings_total", "counter", "Readings that repeated one before.", status.stale_readings),
    ]


def _gauges(box: BlackBox, feed: LiveFeed, status: Status, now_ns: int) -> list[str]:
    age = (now_ns - status.heartbeat_ns) / 1e9 if status.heartbeat_ns else math.nan
    threshold = box.about.get("reward_threshold")
    threshold = float(threshold) if isinstance(threshold, (int, float)) else math.nan
    return [
        *_metric("gcl_rate_hz", "gauge", "Ticks a second, over the last second.", feed.rate_hz),
        *_metric("gcl_target_rate_hz", "gauge", "Ticks a second the robot asks for.", 1.0 / box.spec.control_dt),
        *_metric("gcl_heartbeat_age_seconds", "gauge", "Since the last tick began.", age),
        *_metric("gcl_blend", "gauge", "Share of the policy in the command.", status.blend),
        *_metric("gcl_reward", "gauge", "Learned reward of the last step.", feed.reward),
        *_metric("gcl_reward_window_mean", "gauge", "Its mean over the monitor's window.", status.reward_window_mean),
        *_metric("gcl_reward_threshold", "gauge", "Quantile of the demos' reward it is held against.", threshold),
        *_metric("gcl_stop_request", "gauge", "0 none, 1 soft stop, 2 emergency stop.", int(status.stop_request)),
    ]


def _states(box: BlackBox, status: Status, feed: LiveFeed) -> list[str]:
    faults = []
    if status.fault is not None:
        faults.append(({"reason": status.fault.reason}, 1.0))
    if feed.lost is not None:
        faults.append(({"reason": "controller_lost"}, 1.0))
    states = [({"state": state.text}, float(state is status.state)) for state in State]
    facts = {
        "version": importlib.metadata.version("gcl-toolkit"),
        "robot": box.spec.name,
        "spec_sha256": box.spec.sha256,
        "bundle": str(box.about.get("bundle", "")),
    }
    return [
        *_samples("gcl_fault", "gauge", "A fault that is latched, by its reason.", faults),
        *_samples("gcl_state", "gauge", "What the controller is doing.", states),
        *_samples("gcl_build_info", "gauge", "What is running.", [(facts, 1.0)]),
    ]


def _histogram(name: str, meaning: str, latency: LatencyHistogram) -> list[str]:
    edges, counts = latency.counts_below(EDGES_US)
    # Durations are kept in whole microseconds: "below 10" in the bins is "at most 10" to anyone who measures seconds.
    buckets = [(f"{edge / 1e6:g}", int(count)) for edge, count in zip(edges, counts, strict=True)]
    total = latency.count
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{edge}"}} {count}' for edge, count in [*buckets, ("+Inf", total)]]
    return [*lines, f"{name}_sum {latency.sum_us / 1e6!r}", f"{name}_count {total}"]


def _metric(name: str, kind: str, meaning: str, value: float) -> list[str]:
    return _samples(name, kind, meaning, [({}, value)])


def _samples(name: str, kind: str, meaning: str, samples: Iterable[tuple[Labels, float]]) -> list[str]:
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {_text(value)}" if inside else f"{name} {_text(value)}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _text(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value)
