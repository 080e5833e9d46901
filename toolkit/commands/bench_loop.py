"""`gcl bench tick` and `gcl bench loop`: what a control step costs, and whether the loop keeps time."""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from export.control_step import ControlStep
    from export.loop import LoopReport
    from export.runtime import OnnxPolicy
    from robots.spec import RobotSpec

_BLOCK = 10_000  # calls timed in a row, of one kind and then the other


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--robot", default="walker", show_default=True, help="Whose sizes an untrained one has.")
@click.option("--ticks", type=click.IntRange(min=20_000), default=1_000_000, show_default=True, help="How many in all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def tick(bundle: Path | None, robot: str, ticks: int, as_json: bool) -> None:
    """A whole control step beside the bare network of the same file, in turns, on one thread; and its heap.

    Without a BUNDLE, an untrained 2 x 256 policy for the robot. A step is: reading checked, observation assembled,
    inference, action to command, every limit.

    \b
    Example:
      gcl bench tick --robot walker
    """
    from export.runtime import load_bundle
    from robots.command import CommandMap

    with tempfile.TemporaryDirectory(prefix="gcl-bench-") as folder:
        loaded, policy, _ = load_bundle(bundle or _untrained(robot, None, Path(folder)))
    spec = loaded.spec
    step, readings = _armed_step(spec, policy), _Readings(spec)
    bare, whole, others = _in_turns(policy, step, readings, max(ticks // (20 * _BLOCK), 1))
    growth = _heap_growth(step, readings, ticks)
    result = {
        "robot": spec.name, "obs_dim": spec.obs_dim, "act_dim": CommandMap(spec).scale.size,
        "bare_us": bare, "tick_us": whole, "ratio": {key: whole[key] / bare[key] for key in bare},
        "ticks": ticks, **growth, **others,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{spec.name}, {spec.obs_dim} observed, {result['act_dim']} actions, one thread")
    for key in bare:
        click.echo(
            f"{key:>6}: step {whole[key]:6.1f} us, bare network {bare[key]:6.1f} us, {result['ratio'][key]:.2f}x"
        )
    click.echo(
        f"{ticks:,} ticks: heap grew by {growth['blocks']} blocks, {growth['resident_kb']} kB resident (of which the "
        f"garbage collector found {growth['garbage']} objects)"
    )


@click.command()
@click.option("--robot", default="jaco", show_default=True, help="A robot whose physics step divides the period.")
@click.option("--hz", type=click.FloatRange(min=1.0), default=500.0, show_default=True, help="Rate of the loop.")
@click.option(
    "--minutes", type=click.FloatRange(min=0.01), default=10.0, show_default=True, help="How long to drive it."
)
@click.option("--realtime", is_flag=True, help="Ask for SCHED_FIFO, locked memory and a core that is awake, for both.")
@click.option("--cpu", type=click.IntRange(min=0), help="With --realtime: which core; default: the last.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def loop(robot: str, hz: float, minutes: float, realtime: bool, cpu: int | None, as_json: bool) -> None:
    """The control loop against a simulated robot in another process, beside a loop that only keeps time.

    Both run at once: whatever the machine does to one it does to the other. Without --realtime the bare loop asks the
    system for nothing, and the control loop for what any user may have. Exit code 1 if the control loop missed more
    deadlines than the bare one and 0.01 % of its ticks.

    \b
    Example:
      gcl bench loop --hz 500 --minutes 10 --realtime
    """
    if cpu is not None and not realtime:
        raise click.UsageError("--cpu goes with --realtime: without, the bare loop asks for nothing")
    chosen = {"realtime": realtime, "cpu": cpu, "spin": None}
    wishes = (["--realtime"] if realtime else []) + (["--cpu", str(cpu)] if cpu is not None else [])
    with tempfile.TemporaryDirectory(prefix="gcl-bench-") as folder:
        bundle = _untrained(robot, 1.0 / hz, Path(folder))
        bare = subprocess.Popen(
            [sys.executable, "-m", "export.bare_loop", "--hz", str(hz), "--seconds", str(60.0 * minutes), *wishes],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        report = _drive(bundle, 60.0 * minutes, chosen, Path(folder))
        alone = json.loads(bare.communicate()[0])
    allowed = alone["misses"] / alone["ticks"] + 1e-4
    share = report.misses / report.ticks
    result = {"loop": dataclasses.asdict(report), "bare": alone, "miss_share": share, "allowed_share": allowed}
    if as_json:
        click.echo(json.dumps(result, default=str))
    else:
        click.echo(
            f"{robot} at {report.rate_hz:.2f} Hz of {hz:g} Hz for {report.seconds:.0f} s; faults: {report.faults}"
        )
        for label, misses, ticks, skipped, wake in (
            ("control loop", report.misses, report.ticks, report.skipped, dataclasses.asdict(report.wake)),
            ("bare loop", alone["misses"], alone["ticks"], alone["skipped"], alone["wake"]),
        ):
            click.echo(
                f"{label:>12}: {misses} of {ticks:,} deadlines missed ({misses / ticks:.4%}), {skipped} periods "
                f"skipped; woken late by "
                f"{wake['p50_us']:.0f} / {wake['p99_us']:.0f} / {wake['p999_us']:.0f} / {wake['max_us']:.0f} us "
                "(p50/p99/p99.9/max)"
            )
        click.echo(f"whole tick: p50 {report.tick.p50_us:.0f} us, p99.9 {report.tick.p999_us:.0f} us")
    if share > allowed or report.faults:
        sys.exit(1)


def _untrained(robot: str, control_dt: float | None, folder: Path) -> Path:
    """A bundle with an untrained 2 x 256 policy that moves little, for timing only."""
    import numpy as np
    import torch

    from export.to_onnx import write_bundle
    from robots.robot_yaml import load_robot

    spec = load_robot(robot)
    if control_dt is not None:
        spec = dataclasses.replace(spec, control_dt=control_dt)
    torch.manual_seed(0)

    class Reward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _network(spec.obs_dim + spec.act_dim, 1)

        def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return self.net(torch.cat([observation, action], dim=-1)).squeeze(-1)

    rng = np.random.default_rng(0)
    parts: Any = SimpleNamespace(
        policy_module=torch.nn.Sequential(_network(spec.obs_dim, spec.act_dim), _Small()), reward_module=Reward(),
        spec=spec, settings={}, demos={}, sample_observations=rng.normal(size=(100, spec.obs_dim)),
        sample_actions=rng.uniform(-1, 1, (100, spec.act_dim)),
    )  # fmt: skip
    path = folder / f"{spec.name}.bundle"
    write_bundle(path, parts)
    return path


def _network(inputs: int, outputs: int) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Linear(inputs, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, outputs)
    )  # fmt: skip


def _Small() -> Any:  # noqa: N802 - a module, made where torch is known
    import torch

    class Small(torch.nn.Module):
        def forward(self, action: torch.Tensor) -> torch.Tensor:
            return (0.05 * action).clamp(-1, 1)

    return Small()


class _Readings:
    """Fresh readings without end, of small values that move."""

    def __init__(self, spec: RobotSpec) -> None:
        import numpy as np

        self._values = np.random.default_rng(0).normal(0.0, 0.05, (256, len(spec.channels)))
        self._count = 0

    def next(self) -> Any:
        from robots.backend import SensorReading

        self._count += 1
        return SensorReading(self._values[self._count % 256], time.monotonic_ns(), self._count)


def _armed_step(spec: RobotSpec, policy: OnnxPolicy) -> ControlStep:
    """A step whose soft start is over; its limits on measured values are off, since the readings are made up."""
    from export.control_step import ControlStep
    from export.safety import SafetyLayer

    free = dataclasses.replace(spec, joint_limits=())
    safety = SafetyLayer(free, dataclasses.replace(spec.safety, soft_start_seconds=0.0, stale_seconds=60.0, watch=()))
    safety.arm(_Readings(spec).next(), time.monotonic_ns())
    return ControlStep(free, policy, safety, None, None)


def _in_turns(
    policy: OnnxPolicy, step: ControlStep, readings: _Readings, rounds: int
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """Quantiles [us] of the bare network and of the whole step."""
    import numpy as np

    now = time.perf_counter_ns
    bare, whole = np.empty((rounds, _BLOCK)), np.empty((rounds, _BLOCK))
    gc.collect()
    gc.freeze()
    gc.disable()
    for r in range(rounds):
        for i in range(_BLOCK):
            started = now()
            policy.run()
            bare[r, i] = now() - started
        for i in range(_BLOCK):
            reading = readings.next()
            started = now()
            step.command(reading, reading.timestamp_ns)
            whole[r, i] = now() - started
    gc.enable()
    gc.unfreeze()
    return _quantiles(bare), _quantiles(whole), {"calls_each": rounds * _BLOCK}


def _quantiles(nanoseconds: np.ndarray) -> dict[str, float]:
    import numpy as np

    p50, p99, p999 = np.quantile(nanoseconds, (0.5, 0.99, 0.999)) / 1e3
    return {"p50": float(p50), "p99": float(p99), "p99.9": float(p999)}


def _heap_growth(step: ControlStep, readings: _Readings, ticks: int) -> dict[str, int]:
    """What ticks leave behind, after as many before: steps, rows in the black box, counts in the histograms."""
    from export.black_box import BlackBox

    box = BlackBox.create(step.spec, seconds=10.0)
    compute = box.histogram("compute")

    def run(count: int) -> None:
        for k in range(count):
            reading = readings.next()
            begin = time.monotonic_ns()
            box.beat(begin, k, 0, 0, 0, 1.0, step.window_mean)
            command = step.command(reading, begin)
            ready = time.monotonic_ns()
            box.record(reading, step.observation, step.wanted, command, step.reward_value, ready - begin, 0, step.flags)
            compute.add(ready - begin)

    run(ticks)  # what is allocated once and kept, somewhere in the first million, is no growth
    gc.collect()
    gc.disable()
    blocks, resident = sys.getallocatedblocks(), _resident_kb()
    run(ticks)
    grown = {"blocks": sys.getallocatedblocks() - blocks, "resident_kb": _resident_kb() - resident}
    gc.enable()
    return {**grown, "garbage": gc.collect()}


def _resident_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4


def _drive(bundle: Path, seconds: float, chosen: dict[str, Any], folder: Path) -> LoopReport:
    """What `gcl deploy` does with these options of its own, without saying anything."""
    import contextlib

    from export.black_box import BlackBox
    from export.loop import LoopOptions, run
    from export.monitor import RewardMonitor
    from export.runtime import load_bundle
    from export.safety import SafetyLayer
    from toolkit.commands.deploy_choices import real_time, spin_ns
    from toolkit.commands.observer_link import observed
    from toolkit.commands.robot_link import LinkOptions, open_link

    loaded, policy, reward = load_bundle(bundle)
    spec = loaded.spec
    options, events = real_time(chosen), folder / "events.jsonl"
    link = LinkOptions("sim", None, False, b"", None, None, None, 0, events, chosen["realtime"], options.cpu)
    with contextlib.ExitStack() as stack:
        box = BlackBox.create(spec)
        stack.callback(box.close)
        stack.enter_context(observed(box, folder / "flight.npz")).ready()
        backend = stack.enter_context(open_link(spec, link))
        monitor = RewardMonitor(loaded.manifest.reward_quantiles, spec.control_dt)
        return run(
            backend, policy, spec, seconds=seconds, reward=reward, safety=SafetyLayer(spec), monitor=monitor,
            options=LoopOptions(spin_ns(spec, chosen), box=box, real_time=options),
        )  # fmt: skip
