"""`gcl deploy`: run a bundle on a robot, in real time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from export.black_box import BlackBox
    from export.bundle import Bundle
    from export.clock import LatencySummary
    from export.hot_swap import Successor
    from export.loop import LoopOptions, LoopReport
    from export.runtime import OnnxPolicy, OnnxReward
    from robots.backend import Backend
    from robots.spec import RobotSpec
    from toolkit.commands.robot_link import LinkOptions

_BENCH_CALLS = 1000


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", default="sim", show_default=True, help="What to drive: sim, mock, udp.")
@click.option("--hardware", type=click.Path(path_type=Path), help="How this very robot is wired (docs/hardware.md).")
@click.option("--address", metavar="HOST:PORT", help="Where the robot listens, for --backend udp.")
@click.option("--allow-remote", is_flag=True, help="Let addresses be on other machines; needs --key.")
@click.option("--key", type=click.Path(path_type=Path), help="File with 16 to 64 bytes that the robot's side has, too.")
@click.option("--robot", help="Name or robot.yaml the bundle must be for; its safety section and model files are used.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.0, min_open=True), default=10.0, show_default=True, help="How long [s]."
)
@click.option("--on-fault", type=click.Choice(["hold", "damp"]), help="After a fault. Default: as robot.yaml says.")
@click.option(
    "--monitor", type=click.Choice(["warn", "fault", "off"]),
    help="When the learned reward stays below the demos'. Default: as robot.yaml says.",
)  # fmt: skip
@click.option("--estop", metavar="HOST:PORT", help="Listen here for `gcl estop`; its silence stops the robot.")
@click.option("--web", metavar="[HOST:]PORT", help="Serve a page to watch on, with a stop button, and /metrics.")
@click.option("--attended", is_flag=True, help="Stop the robot when nobody has the page open any more.")
@click.option("--hot-swap", is_flag=True, help="Go over to a new bundle when one is exported to the same place.")
@click.option("--realtime", is_flag=True, help="Ask for SCHED_FIFO and locked memory; refusals are reported.")
@click.option("--cpu", type=click.IntRange(min=0), help="Run on this core only.")
@click.option("--spin", type=click.IntRange(min=0), default=0, help="Poll this long before each deadline [us].")
@click.option(
    "--log", type=click.Path(path_type=Path), help="Flight log to write. After a fault one is always written."
)
@click.option("--seed", type=int, default=0, show_default=True, help="How the mock's or simulator's episode begins.")
@click.option("--check", is_flag=True, help="Check everything and measure inference; open no robot.")
@click.option("--dry-run", is_flag=True, help="Read the robot's sensors and do all but send the commands.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundle: Path, **options: Any) -> None:
    """Run a bundle on a robot, in real time.

    BUNDLE is what `gcl export` wrote. Every byte of it is checked and its parity vectors are replayed on this machine
    first. The robot is owned by a guardian, a process of its own, which holds or damps it should this one be killed or
    stuck. `sim` drives a simulated robot, `udp` one whose guardian runs elsewhere. Ctrl-C stops softly. Exit code 1
    after a fault.

    \b
    Examples:
      gcl deploy first.bundle --backend sim --seconds 10 --web 8080
      gcl deploy first.bundle --backend udp --address 127.0.0.1:9870 --log flight.npz
    """
    from export.runtime import load_bundle
    from toolkit.commands.deploy_report import finite, show_run, tell_check
    from toolkit.commands.robot_link import open_link

    loaded, policy, reward = load_bundle(bundle)
    spec = _robot(loaded.spec, options)
    inference = _bench(loaded, policy)
    if options["check"]:
        tell_check(loaded, policy, inference, options["as_json"])
        return
    started = time.strftime("%Y%m%d-%H%M%S")
    with contextlib.ExitStack() as stack:
        link = _link_options(spec, options, started)
        # The robot is let go of first and the observer last: a slow disk must not look like a controller that is stuck.
        box, observer = _watched(loaded, spec, options, started, stack)
        backend = _dry(stack.enter_context(open_link(spec, link)), options)
        if not options["as_json"]:
            what = f"driving {spec.name}" if not options["dry_run"] else f"reading {spec.name}, sending nothing,"
            at = f"; {observer.url}" if observer.url else ""
            click.echo(f"{what} ({options['backend']}) at {1 / spec.control_dt:g} Hz for {options['seconds']:g} s{at}")
        report = _run(loaded, policy, reward, backend, _loop_options(loaded, spec, box, options, stack), options)
    flight = observer.flights[-1] if observer.flights else None
    if options["as_json"]:
        facts = {
            "bundle": str(bundle), "robot": spec.name, "backend": options["backend"],
            "provider": policy.provider, "inference": dataclasses.asdict(inference), "flight": flight,
        }  # fmt: skip
        click.echo(json.dumps(finite({**facts, **dataclasses.asdict(report)}), default=str))
    else:
        show_run(report, inference, flight)
    for error in observer.errors:
        click.echo(f"gcl: {error}", err=True)
    if report.faults or observer.errors:
        sys.exit(1)


def _run(
    loaded: Bundle, policy: OnnxPolicy, reward: OnnxReward, backend: Backend, how: LoopOptions, options: dict[str, Any]
) -> LoopReport:
    from export.loop import run
    from export.safety import SafetyLayer

    spec = backend.spec
    safety = SafetyLayer(spec)
    for channel in safety.limits.unwatched:
        click.echo(f"gcl: {channel} has a limit but is not measured, so nothing watches it", err=True)
    successor = _successor(loaded, policy, reward, spec, options)
    return run(
        backend, policy, spec, seconds=options["seconds"], reward=reward, safety=safety, monitor=successor.monitor,
        options=how,
    )  # fmt: skip


def _robot(spec: RobotSpec, options: dict[str, Any]) -> RobotSpec:
    """The bundle's robot, with the directory of its model files, and as careful as robot.yaml and the options say."""
    from robots.robot_yaml import load_robot, robot_names
    from robots.spec import RobotSpecError

    if options["robot"] is not None:
        wanted = load_robot(options["robot"])
        if wanted.sha256 != spec.sha256:
            ours, theirs = f"{spec.name} ({spec.sha256[:12]})", f"{wanted.name} ({wanted.sha256[:12]})"
            raise RobotSpecError(
                f"the bundle is for {ours}, --robot {options['robot']} is {theirs}: export again for this robot"
            )
        spec = dataclasses.replace(spec, directory=wanted.directory, safety=wanted.safety)
    elif spec.name in robot_names() and load_robot(spec.name).sha256 == spec.sha256:
        spec = dataclasses.replace(spec, directory=load_robot(spec.name).directory)
    safety = spec.safety
    if options["on_fault"] is not None:
        safety = dataclasses.replace(safety, on_fault=options["on_fault"])
    if options["monitor"] in ("warn", "fault"):
        safety = dataclasses.replace(safety, monitor=dataclasses.replace(safety.monitor, response=options["monitor"]))
    return dataclasses.replace(spec, safety=safety)


def _link_options(spec: RobotSpec, options: dict[str, Any], started: str) -> LinkOptions:
    from toolkit.commands.robot_link import LinkOptions

    return LinkOptions(
        backend=options["backend"],
        address=options["address"],
        allow_remote=options["allow_remote"],
        key=_key(options),
        hardware=options["hardware"],
        directory=spec.directory,
        seed=options["seed"],
        events=Path("runs") / "flight" / f"{spec.name}-{started}.guardian.jsonl",
        realtime=options["realtime"],
    )


def _dry(backend: Backend, options: dict[str, Any]) -> Backend:
    from robots.dry_run import DryRun

    return DryRun(backend) if options["dry_run"] else backend


def _watched(
    loaded: Bundle, spec: RobotSpec, options: dict[str, Any], started: str, stack: contextlib.ExitStack
) -> tuple[BlackBox, Any]:
    """The black box, and the observer who has it too."""
    from export.black_box import BlackBox
    from robots.spec import ToolkitError
    from toolkit.commands.observer_link import observed

    if options["attended"] and options["web"] is None:
        raise ToolkitError("--attended needs --web: it is the page that somebody attends")
    quantile = loaded.manifest.reward_quantiles.get(spec.safety.monitor.quantile)
    box = BlackBox.create(spec, about={"bundle": str(loaded.path), "reward_threshold": quantile})
    stack.callback(box.close)
    log = options["log"] or Path("runs") / "flight" / f"{spec.name}-{started}.npz"
    observer = stack.enter_context(
        observed(box, log, keep=options["log"] is not None, web=options["web"], allow_remote=options["allow_remote"])
    )
    return box, observer


def _loop_options(
    loaded: Bundle, spec: RobotSpec, box: BlackBox, options: dict[str, Any], stack: contextlib.ExitStack
) -> LoopOptions:
    from export.estop import UdpEStop
    from export.hot_swap import HotSwap
    from export.loop import LoopOptions
    from export.real_time import RealTimeOptions

    real_time = RealTimeOptions(fifo_priority=50, lock_memory=True) if options["realtime"] else RealTimeOptions()
    estop = swap = None
    if options["estop"] is not None:
        estop = UdpEStop(options["estop"], _key(options), allow_remote=options["allow_remote"])
        stack.callback(estop.close)
    if options["hot_swap"]:
        swap = HotSwap(loaded.path, lambda path: _next_bundle(path, spec, options))
        stack.callback(swap.close)
    return LoopOptions(
        spin_ns=1000 * options["spin"],
        box=box,
        estop=estop,
        attended=options["attended"],
        swap=swap,
        real_time=dataclasses.replace(real_time, cpu=options["cpu"]),
    )


def _next_bundle(path: Path, spec: RobotSpec, options: dict[str, Any]) -> Successor:
    """What takes over: checked as the first was, and for the same robot."""
    from export.runtime import load_bundle
    from robots.spec import RobotSpecError

    loaded, policy, reward = load_bundle(path)
    if loaded.spec.sha256 != spec.sha256:
        raise RobotSpecError(f"{path}: the new bundle is for {loaded.spec.name}, {spec.name} goes on with the old one")
    return _successor(loaded, policy, reward, spec, options)


def _successor(
    loaded: Bundle, policy: OnnxPolicy, reward: OnnxReward, spec: RobotSpec, options: dict[str, Any]
) -> Successor:
    from export.hot_swap import Successor
    from export.monitor import RewardMonitor

    if options["monitor"] == "off":
        return Successor(policy, None, None)
    monitor = RewardMonitor(loaded.manifest.reward_quantiles, spec.control_dt, spec.safety.monitor)
    return Successor(policy, reward, monitor)


def _key(options: dict[str, Any]) -> bytes:
    from robots.spec import ToolkitError

    if options["key"] is None:
        if options["estop"] is not None:
            raise ToolkitError("--estop needs --key FILE, which `gcl estop` has too: anyone could say that all is well")
        return b""
    try:
        return options["key"].read_bytes()
    except OSError as error:
        raise ToolkitError(f"{options['key']}: cannot be read: {error.strerror or error}") from error


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
