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
    from export.estop import UdpEStop
    from export.hot_swap import Successor
    from export.loop import LoopOptions, LoopReport
    from export.runtime import OnnxPolicy, OnnxReward
    from robots.backend import Backend
    from robots.spec import RobotSpec
    from toolkit.commands.robot_link import LinkOptions

_BENCH_CALLS = 1000
_FOR_EVER = 1e9  # [s] 30 years
_BUTTON_SECONDS = 30.0  # [s] for which the emergency stop is waited for before the robot is told anything


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--backend", type=click.Choice(["sim", "mock", "udp", "serial", "ros2", "lerobot"]),
    help="What to drive. Default: the driver that --hardware names, else sim.",
)  # fmt: skip
@click.option("--hardware", type=click.Path(path_type=Path), help="How this very robot is wired (docs/hardware.md).")
@click.option(
    "--driver-python", type=click.Path(path_type=Path), help="Python that runs the driver, such as LeRobot's."
)
@click.option(
    "--trusted", multiple=True, type=click.Path(path_type=Path), help="Public key the bundle must be signed by."
)
@click.option("--variant", type=click.Choice(["float16", "int8"]), help="Run a smaller copy of the policy.")
@click.option("--address", metavar="HOST:PORT", help="Where the robot listens, for --backend udp.")
@click.option("--allow-remote", is_flag=True, help="Let addresses be on other machines; needs --key.")
@click.option("--key", type=click.Path(path_type=Path), help="File with 16 to 64 bytes that the robot's side has, too.")
@click.option("--robot", help="Name or robot.yaml the bundle must be for; its safety section and model files are used.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.0, min_open=True), default=10.0, show_default=True, help="How long [s]."
)
@click.option("--until-stopped", is_flag=True, help="No time limit: run until somebody or a fault stops it.")
@click.option("--on-fault", type=click.Choice(["hold", "damp"]), help="After a fault. Default: as robot.yaml says.")
@click.option(
    "--monitor", type=click.Choice(["warn", "fault", "off"]),
    help="When the learned reward stays below the demos'. Default: as robot.yaml says.",
)  # fmt: skip
@click.option("--estop", metavar="HOST:PORT", help="Listen here for `gcl estop`; its silence stops the robot.")
@click.option("--web", metavar="[HOST:]PORT", help="Serve a page to watch on, with a stop button, and /metrics.")
@click.option("--name", multiple=True, help="Another name by which browsers know this machine, for --web.")
@click.option("--ghost", is_flag=True, help="Beside the page, the robot in 3D and a ghost of what it is told.")
@click.option("--attended", is_flag=True, help="Stop the robot when nobody has the page open any more.")
@click.option("--hot-swap", is_flag=True, help="Go over to a new bundle when one is exported to the same place.")
@click.option("--realtime", is_flag=True, help="Ask for SCHED_FIFO, locked memory, and a core that does not sleep.")
@click.option("--cpu", type=click.IntRange(min=0), help="Run on this core only; with --realtime by default the last.")
@click.option(
    "--spin", type=click.IntRange(min=0), help="Poll this long before each deadline [us]. Default: 0, in real time 250."
)
@click.option(
    "--log", type=click.Path(path_type=Path), help="Flight log to write. After a fault one is always written."
)
@click.option("--seed", type=int, default=0, show_default=True, help="How the mock's or simulator's episode begins.")
@click.option("--wiring", is_flag=True, help="Show every sensor live and move nothing, while you move the joints.")
@click.option("--check", is_flag=True, help="Check everything and measure inference; open no robot.")
@click.option("--dry-run", is_flag=True, help="Read the robot's sensors and do all but send the commands.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundle: Path, **options: Any) -> None:
    """Run a bundle on a robot, in real time.

    BUNDLE is what `gcl export` wrote. Every byte of it is checked and its parity vectors are replayed on this machine
    first. The robot is owned by a guardian, a process of its own, which holds or damps it should this one be killed or
    stuck. `sim` drives a simulated robot, `udp` one whose guardian runs elsewhere. Ctrl-C stops softly. Exit code 1
    after a fault, and where the guardian failed.

    \b
    Examples:
      gcl deploy first.bundle --backend sim --seconds 10 --web 8080
      gcl deploy first.bundle --hardware my_arm.yaml --wiring
      gcl deploy first.bundle --hardware my_arm.yaml --trusted alice.pub --web 8080
    """
    from export.runtime import load_bundle
    from toolkit.commands.deploy_choices import backend_name, link_options, robot_of, trusted_keys
    from toolkit.commands.deploy_report import finite, show_run, tell_check
    from toolkit.commands.robot_link import open_link

    loaded, policy, reward = load_bundle(bundle, trusted_keys(options), options["variant"])
    spec = robot_of(loaded.spec, options)
    options["backend"] = backend_name(spec, options)
    if options["until_stopped"]:
        options["seconds"] = _FOR_EVER
    inference = _bench(loaded, policy)
    if options["check"]:
        tell_check(loaded, policy, inference, options["as_json"])
        return
    started = time.strftime("%Y%m%d-%H%M%S")
    link = link_options(spec, options, started)
    if options["wiring"]:
        sys.exit(_show_wiring(spec, link, options["as_json"]))
    _tell_unmeasured(spec, options)
    lost: list[str] = []
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as robot:
        # The robot is let go of first and the observer last: a slow disk must not look like a controller that is stuck.
        box, observer = _watched(loaded, spec, options, started, stack)
        backend = _dry(robot.enter_context(open_link(spec, link, lost)), options)
        url = observer.ready()
        loop = _loop_options(loaded, spec, box, options, stack)
        if not options["as_json"]:
            what = f"driving {spec.name}" if not options["dry_run"] else f"reading {spec.name}, sending nothing,"
            at = f"; {url}" if url else ""
            how_long = "until stopped" if options["until_stopped"] else f"for {options['seconds']:g} s"
            click.echo(f"{what} ({options['backend']}) at {1 / spec.control_dt:g} Hz {how_long}{at}")
        report = _run(loaded, policy, reward, backend, loop, options)
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
    if report.faults or observer.errors or lost:
        sys.exit(1)


def _run(
    loaded: Bundle, policy: OnnxPolicy, reward: OnnxReward, backend: Backend, how: LoopOptions, options: dict[str, Any]
) -> LoopReport:
    from export.loop import run
    from export.safety import SafetyLayer

    spec = backend.spec
    safety = SafetyLayer(spec)
    successor = _successor(loaded, policy, reward, spec, options)
    return run(
        backend, policy, spec, seconds=options["seconds"], reward=reward, safety=safety, monitor=successor.monitor,
        options=how,
    )  # fmt: skip


def _tell_unmeasured(spec: RobotSpec, options: dict[str, Any]) -> None:
    """Says what nothing measures; on a robot, a drive that would have to begin from anywhere is refused."""
    from export.safety_limits import SafetyError, SafetyLimits
    from robots.open_backend import SIMULATED

    limits = SafetyLimits.from_spec(spec)
    for channel in limits.unwatched:
        click.echo(f"gcl: {channel} has a limit but is not measured, so nothing watches it", err=True)
    try:
        limits.check_measured()
    except SafetyError as error:
        if options["backend"] not in SIMULATED and not options["dry_run"]:
            raise
        click.echo(f"gcl: on a robot this is refused: {error}", err=True)


def _show_wiring(spec: RobotSpec, link: LinkOptions, as_json: bool) -> int:
    from robots.hardware_yaml import read_hardware
    from toolkit.commands.robot_link import open_link
    from toolkit.commands.wiring import show_wiring

    hardware = None if link.hardware is None else read_hardware(link.hardware, spec)
    lost: list[str] = []
    with open_link(spec, link, lost) as backend:
        status = show_wiring(backend, spec, hardware, None, as_json)
    return 1 if lost else status


def _dry(backend: Backend, options: dict[str, Any]) -> Backend:
    from robots.dry_run import DryRun

    return DryRun(backend) if options["dry_run"] else backend


def _watched(
    loaded: Bundle, spec: RobotSpec, options: dict[str, Any], started: str, stack: contextlib.ExitStack
) -> tuple[BlackBox, Any]:
    """The black box, and the observer who has it too."""
    from export.black_box import BlackBox
    from robots.spec import ToolkitError
    from toolkit.commands.observer_link import ghosted, observed

    for option in ("attended", "ghost", "name"):
        if options[option] and options["web"] is None:
            raise ToolkitError(f"--{option} needs --web: it is about the page")
    quantile = loaded.manifest.reward_quantiles.get(spec.safety.monitor.quantile)
    box = BlackBox.create(spec, about={"bundle": str(loaded.path), "reward_threshold": quantile})
    stack.callback(box.close)
    log = options["log"] or Path("runs") / "flight" / f"{spec.name}-{started}.npz"
    observer = stack.enter_context(
        observed(
            box, log, keep=options["log"] is not None, web=options["web"], names=options["name"],
            allow_remote=options["allow_remote"],
        )
    )  # fmt: skip
    if options["ghost"]:
        stack.enter_context(ghosted(box, spec.directory, options["web"], options["allow_remote"]))
    return box, observer


def _awaited_estop(options: dict[str, Any], stack: contextlib.ExitStack) -> UdpEStop | None:
    """The emergency stop, once it says that all is well: before the robot is told anything."""
    from export.estop import UdpEStop
    from toolkit.commands.deploy_choices import shared_key

    if options["estop"] is None:
        return None
    estop = UdpEStop(options["estop"], shared_key(options), allow_remote=options["allow_remote"])
    stack.callback(estop.close)
    if not options["as_json"]:
        click.echo(f"waiting for the emergency stop on {options['estop']}")
    estop.wait(_BUTTON_SECONDS)
    return estop


def _loop_options(
    loaded: Bundle, spec: RobotSpec, box: BlackBox, options: dict[str, Any], stack: contextlib.ExitStack
) -> LoopOptions:
    from export.hot_swap import HotSwap
    from export.loop import LoopOptions
    from toolkit.commands.deploy_choices import real_time, spin_ns

    swap = None
    if options["hot_swap"]:
        swap = HotSwap(loaded.path, lambda path: _next_bundle(path, spec, options))
        stack.callback(swap.close)
    return LoopOptions(
        spin_ns=spin_ns(spec, options),
        box=box,
        measure_first=options["hardware"] is not None,
        estop=_awaited_estop(options, stack),
        attended=options["attended"],
        swap=swap,
        real_time=real_time(options),
    )


def _next_bundle(path: Path, spec: RobotSpec, options: dict[str, Any]) -> Successor:
    """What takes over: checked as the first was, and for the same robot; why not is told at once."""
    from export.runtime import load_bundle
    from robots.spec import RobotSpecError, ToolkitError
    from toolkit.commands.deploy_choices import trusted_keys

    try:
        loaded, policy, reward = load_bundle(path, trusted_keys(options), options["variant"])
        if loaded.spec.sha256 != spec.sha256:
            raise RobotSpecError(f"{path}: it is for {loaded.spec.name}")
    except ToolkitError as error:
        click.echo(f"gcl: {spec.name} goes on with the old bundle: {error}", err=True)
        raise
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
