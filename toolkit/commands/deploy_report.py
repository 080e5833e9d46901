"""What `gcl deploy` says: what it checked, and how a run went."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from export.bundle import Bundle
    from export.clock import LatencySummary
    from export.loop import LoopReport
    from export.runtime import OnnxPolicy


def tell_check(loaded: Bundle, policy: OnnxPolicy, inference: LatencySummary, as_json: bool) -> None:
    """What was checked before anything could move."""
    manifest = loaded.manifest
    facts = {
        "bundle": str(loaded.path), "robot": loaded.spec.name, "spec_sha256": manifest.spec_sha256,
        "control_dt": manifest.control_dt, "created_utc": manifest.created_utc, "provider": policy.provider,
        "parity_vectors": manifest.parity_vectors, "parity_tolerance": manifest.parity_tolerance,
        "inference": dataclasses.asdict(inference),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{loaded.path}: whole, for {loaded.spec.name} at {1 / manifest.control_dt:g} Hz; nothing was driven")
    click.echo(f"{manifest.parity_vectors} parity vectors agree within {manifest.parity_tolerance:g} on this machine")
    click.echo(f"one inference takes {'/'.join(_micros(inference))} us (p50/p99/p99.9/max, {policy.provider})")


def show_run(report: LoopReport, inference: LatencySummary, flight: Path | None) -> None:
    """How a run went, as two tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"ended by {report.ended_by} after {report.seconds:.2f} s", show_header=False)
    table.add_row("rate", f"{report.rate_hz:.2f} Hz of {report.target_hz:g} Hz")
    table.add_row("deadlines missed", f"{report.misses} of {report.ticks} ticks; {report.skipped} periods skipped")
    if report.stale_readings:
        table.add_row("repeated readings", str(report.stale_readings))
    reward = report.reward
    if reward is not None and reward.steps:
        table.add_row("learned reward a step", f"mean {reward.mean:.3g}; expected median {reward.demo_median:.3g}")
        table.add_row("below what is expected", f"{reward.below_fraction:.1%} of steps, {reward.warnings} warnings")
    for wish, answer in report.granted.items():
        table.add_row(wish, answer)
    for fault in report.faults:
        table.add_row("[red]fault[/red]", f"{fault.reason}: {fault.detail}")
    if not report.faults:
        table.add_row("faults", "none")
    if report.swaps:
        table.add_row("bundles swapped", str(report.swaps))
    if flight is not None:
        table.add_row("flight log", str(flight))
    latencies = Table("latency [us]", "p50", "p99", "p99.9", "max")
    for label, latency in (
        ("one inference alone", inference),
        ("reading to command", report.compute),
        ("whole tick", report.tick),
        ("woken after the deadline", report.wake),
    ):
        latencies.add_row(label, *_micros(latency))
    console = Console()
    console.print(table)
    console.print(latencies)
    if flight is not None:
        click.echo(f"keep what the robot did as data: gcl demos import {flight} --out flights.zarr")


def _micros(latency: LatencySummary) -> list[str]:
    return [f"{value:.0f}" for value in (latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us)]


def finite(data: Any) -> Any:
    """NaN and infinity are not JSON; None is."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
