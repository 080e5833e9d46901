"""`gcl deploy`: run a bundle on a robot, in real time."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from export.bundle import Bundle
    from export.clock import LatencySummary
    from export.loop import LoopReport
    from export.runtime import OnnxPolicy
    from robots.backend import Backend
    from robots.spec import RobotSpec

_BENCH_CALLS = 1000
_START_SECONDS = 60.0  # [s] a simulator may take to compile its model on a slow machine


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--backend", type=click.Choice(["mock", "sim", "udp"]), default="sim", show_default=True, help="What to drive."
)
@click.option("--address", metavar="HOST:PORT", help="Where the robot listens, for --backend udp.")
@click.option("--allow-remote", is_flag=True, help="Let --address be another machine; datagrams are not protected.")
@click.option("--robot", help="Name or robot.yaml the bundle must be for; with sim, also where its model files lie.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.0, min_open=True), default=10.0, show_default=True, help="How long [s]."
)
@click.option(
    "--on-fault", type=click.Choice(["hold", "damp"]), default="hold", show_default=True, help="After a fault."
)
@click.option(
    "--monitor", type=click.Choice(["warn", "fault", "off"]), default="warn", show_default=True,
    help="When the learned reward stays below the demos'.",
)  # fmt: skip
@click.option("--realtime", is_flag=True, help="Ask for SCHED_FIFO and locked memory; refusals are reported.")
@click.option("--cpu", type=click.IntRange(min=0), help="Run on this core only.")
@click.option("--spin", type=click.IntRange(min=0), default=0, help="Poll this long before each deadline [us].")
@click.option(
    "--log", type=click.Path(path_type=Path), help="Flight log to write. After a fault one is always written."
)
@click.option("--seed", type=int, default=0, show_default=True, help="How the mock's or simulator's episode begins.")
@click.option("--dry-run", is_flag=True, help="Check everything and measure inference; drive nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundle: Path, **options: Any) -> None:
    """Run a bundle on a robot, in real time.

    BUNDLE is what `gcl export` wrote. Every byte of it is checked and its parity vectors are replayed on this machine
    first. `sim` starts a simulated robot as a process of its own and drives it over UDP, as `udp` drives a real one.
    Ctrl-C stops softly. Exit code 1 after a fault.

    \b
    Examples:
      gcl deploy first.bundle --backend sim --seconds 10
      gcl deploy first.bundle --backend udp --address 127.0.0.1:9870 --log flight.npz
    """
    from export.runtime import load_bundle

    loaded, policy, reward = load_bundle(bundle)
    directory = _check_robot(loaded.spec, options["robot"])
    inference = _bench(loaded, policy)
    if options["dry_run"]:
        _tell_dry_run(loaded, policy, inference, options["as_json"])
        return
    with _backend(loaded.spec, directory, options) as backend:
        if not options["as_json"]:
            spec = loaded.spec
            click.echo(
                f"driving {spec.name} ({options['backend']}) at {1 / spec.control_dt:g} Hz for {options['seconds']:g} s"
            )
        report = _run(loaded, policy, reward, backend, options)
    if options["as_json"]:
        facts = {
            "bundle": str(bundle), "robot": loaded.spec.name, "backend": options["backend"],
            "provider": policy.provider, "inference": dataclasses.asdict(inference),
        }  # fmt: skip
        click.echo(json.dumps(_finite({**facts, **dataclasses.asdict(report)}), default=str))
    else:
        _show(report, inference)
    if report.log_error is not None:
        click.echo(f"gcl: {report.log_error}", err=True)
    if report.faults or report.log_error:
        sys.exit(1)


def _run(loaded: Bundle, policy: OnnxPolicy, reward: Any, backend: Backend, options: dict[str, Any]) -> LoopReport:
    from export.loop import LoopOptions, run
    from export.monitor import RewardMonitor
    from export.real_time import RealTimeOptions
    from export.safety import SafetyLayer

    spec = loaded.spec
    safety = SafetyLayer(spec, dataclasses.replace(spec.safety, on_fault=options["on_fault"]))
    for channel in safety.limits.unwatched:
        click.echo(f"gcl: {channel} has a limit but is not measured, so nothing watches it", err=True)
    monitor = None
    if options["monitor"] != "off":
        config = dataclasses.replace(spec.safety.monitor, response=options["monitor"])
        monitor = RewardMonitor(loaded.manifest.reward_quantiles, spec.control_dt, config)
    real_time = RealTimeOptions(fifo_priority=50, lock_memory=True) if options["realtime"] else RealTimeOptions()
    loop_options = LoopOptions(
        spin_ns=1000 * options["spin"],
        log_path=options["log"],
        fault_log_path=Path("runs") / "flight" / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}.npz",
        real_time=dataclasses.replace(real_time, cpu=options["cpu"]),
    )
    return run(
        backend,
        policy,
        spec,
        seconds=options["seconds"],
        reward=reward,
        safety=safety,
        monitor=monitor,
        options=loop_options,
    )


def _check_robot(spec: RobotSpec, robot: str | None) -> Path | None:
    """Refuses a bundle made for another robot; says where the robot's model files lie, if anyone knows."""
    from robots.robot_yaml import load_robot, robot_names
    from robots.spec import RobotSpecError

    if robot is None:
        shipped = load_robot(spec.name) if spec.name in robot_names() else None
        return shipped.directory if shipped is not None and shipped.sha256 == spec.sha256 else None
    wanted = load_robot(robot)
    if wanted.sha256 != spec.sha256:
        ours, theirs = f"{spec.name} ({spec.sha256[:12]})", f"{wanted.name} ({wanted.sha256[:12]})"
        raise RobotSpecError(f"the bundle is for {ours}, --robot {robot} is {theirs}: export again for this robot")
    return wanted.directory


def _bench(loaded: Bundle, policy: OnnxPolicy) -> LatencySummary:
    """How long one inference takes here; a machine that is too slow is refused before anything moves."""
    from export.clock import LatencyHistogram
    from export.runtime import ParityError

    histogram, observations = LatencyHistogram(), loaded.parity.observation
    for i in range(_BENCH_CALLS):
        before = time.monotonic_ns()
        policy.act(observations[i % len(observations)])
        histogram.add(time.monotonic_ns() - before)
    summary = histogram.summary()
    period_us = 1e6 * loaded.spec.control_dt
    if summary.p99_us > 0.5 * period_us:
        raise ParityError(
            f"one inference takes {summary.p99_us:.0f} us (p99) here, allowed is half a period, {period_us / 2:.0f} us"
        )
    return summary


@contextlib.contextmanager
def _backend(spec: RobotSpec, directory: Path | None, options: dict[str, Any]) -> Iterator[Backend]:
    from robots.backend import BackendError
    from robots.udp import UdpBackend

    kind, address = options["backend"], options["address"]
    if (kind == "udp") != (address is not None):
        raise BackendError(
            "--address HOST:PORT is needed for --backend udp" if kind == "udp" else "--address is for --backend udp"
        )
    if kind == "mock":
        from robots.mock import MockBackend

        with MockBackend(spec, options["seed"]) as backend:
            yield backend
    elif kind == "udp":
        with UdpBackend(spec, address, allow_remote=options["allow_remote"]) as backend:
            yield backend
    else:
        with (
            _simulator(spec, directory, options["seed"]) as where,
            UdpBackend(spec, where) as backend,
        ):
            yield backend


@contextlib.contextmanager
def _simulator(spec: RobotSpec, directory: Path | None, seed: int) -> Iterator[str]:
    """A simulated robot as a process of its own; yields its address. It ends when its standard input closes."""
    from robots.backend import BackendError

    if importlib.util.find_spec("mujoco") is None:
        raise ModuleNotFoundError("mujoco is not installed", name="mujoco")
    if directory is None and ":" not in spec.mjcf:
        raise BackendError(
            f"the model file {spec.mjcf} of {spec.name} is not in the bundle: tell where with --robot robot.yaml"
        )
    with tempfile.TemporaryDirectory(prefix="gcl-deploy-") as folder:
        description, errors = Path(folder) / "robot.json", Path(folder) / "stderr.txt"
        description.write_text(json.dumps(spec.to_dict()), encoding="utf-8")
        arguments = ["--robot", str(description), "--directory", str(directory or folder), "--seed", str(seed)]
        with open(errors, "wb") as stderr:
            # Its own session: Ctrl-C is for the controller, which still needs the robot while it stops softly.
            process = subprocess.Popen(
                [sys.executable, "-m", "robots.simulator", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        try:
            yield _address(process, errors)
        finally:
            process.communicate()
            if process.returncode != 0:
                click.echo(
                    f"gcl: the simulator ended with exit code {process.returncode}: {_last_line(errors)}", err=True
                )


def _address(process: subprocess.Popen[bytes], errors: Path) -> str:
    """HOST:PORT, once the simulator is ready."""
    import selectors

    from robots.backend import BackendError

    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_START_SECONDS) else b""
    try:
        ready = json.loads(line)
        return f"{ready['host']}:{ready['port']}"
    except (ValueError, KeyError, TypeError) as error:
        process.kill()
        process.wait()
        raise BackendError(f"the simulator did not start: {_last_line(errors) or f'it said {line!r}'}") from error


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _tell_dry_run(loaded: Bundle, policy: OnnxPolicy, inference: LatencySummary, as_json: bool) -> None:
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


def _show(report: LoopReport, inference: LatencySummary) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"ended by {report.ended_by} after {report.seconds:.2f} s", show_header=False)
    table.add_row("rate", f"{report.rate_hz:.2f} Hz of {report.target_hz:g} Hz")
    table.add_row("deadlines missed", f"{report.misses} of {report.ticks} ticks; {report.skipped} periods skipped")
    if report.stale_readings:
        table.add_row("repeated readings", str(report.stale_readings))
    reward = report.reward
    if reward is not None and reward.steps:
        table.add_row("learned reward a step", f"mean {reward.mean:.3g}; the demos' median is {reward.demo_median:.3g}")
        table.add_row("below the demos'", f"{reward.below_fraction:.1%} of steps, {reward.warnings} warnings")
    for wish, answer in report.granted.items():
        table.add_row(wish, answer)
    for fault in report.faults:
        table.add_row("[red]fault[/red]", f"{fault.reason}: {fault.detail}")
    if not report.faults:
        table.add_row("faults", "none")
    if report.log_path is not None:
        table.add_row("flight log", str(report.log_path))
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


def _micros(latency: LatencySummary) -> list[str]:
    return [f"{value:.0f}" for value in (latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us)]


def _finite(data: Any) -> Any:
    """NaN and infinity are not JSON; None is."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
