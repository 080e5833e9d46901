"""`gcl bench`: what this machine does, as ratios within one run wherever there is something to compare with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from toolkit.commands import bench_learning, bench_loop, bench_rival
from toolkit.commands.bench_fuzz import fuzz
from toolkit.commands.bench_sim import sim
from toolkit.commands.bench_start import start


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Measure simulation, training and inference on this machine.

    Without a subcommand, measures simulation and training of the cheetah.

    \b
    Examples:
      gcl bench
      gcl bench sim --robots cheetah,walker,humanoid
      gcl bench inference runs/first/cheetah.bundle
      gcl bench start first.bundle
      gcl bench fuzz --driver socket
      gcl bench tick --robot walker
      gcl bench loop --hz 500 --minutes 10
      gcl bench learning --list
      gcl bench rival
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(sim)
        ctx.invoke(train)


command.add_command(bench_learning.command)
command.add_command(sim)
command.add_command(bench_rival.rival)
command.add_command(bench_loop.tick)
command.add_command(start)
command.add_command(fuzz)
command.add_command(bench_loop.loop)


@command.command()
@click.option("--robot", default="cheetah", show_default=True, help="A robot that demos ship for.")
@click.option("--iterations", type=click.IntRange(min=2), default=10, show_default=True, help="How many to time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def train(robot: str, iterations: int, as_json: bool) -> None:
    """GAN-GCL training end to end, with the share of each phase.

    \b
    Example:
      gcl bench train --iterations 20
    """
    from demos.store import DemoStore
    from toolkit.commands.quickstart import shipped_demos
    from toolkit.config import TrainConfig, with_settings
    from toolkit.trainer import Trainer

    store = DemoStore.open(shipped_demos(robot))
    config = with_settings(TrainConfig(), ["policy.warm_start=0", "ppo.head_start=0"])
    trainer = Trainer(store.spec, config, store.episodes()[:5])
    trainer.iterate()  # allocations and thread pools of the first one would be counted otherwise
    seconds = {"simulate": 0.0, "reward": 0.0, "policy": 0.0}
    started = time.process_time()
    for _ in range(iterations):
        metrics = trainer.iterate()
        for phase in seconds:
            seconds[phase] += metrics[f"time/{phase}"]
    total = sum(seconds.values())
    busy = (time.process_time() - started) / total / trainer.config.threads
    result = {
        "robot": robot,
        "steps_per_s": iterations * trainer.steps_per_iteration / total,
        "share": {phase: value / total for phase, value in seconds.items()},
        "busy": busy,
        "threads": trainer.config.threads,
    }
    if as_json:
        click.echo(json.dumps(result))
    else:
        shares = ", ".join(f"{phase} {share:.0%}" for phase, share in result["share"].items())
        click.echo(
            f"{robot}: {result['steps_per_s']:,.0f} control steps/s of training ({shares}); "
            f"{result['threads']} threads {busy:.0%} busy"
        )


@command.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--calls", type=click.IntRange(min=100), default=20_000, show_default=True, help="How many to time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inference(bundle: Path, calls: int, as_json: bool) -> None:
    """The exported policy and reward, one observation at a time on one thread.

    \b
    Example:
      gcl bench inference runs/first/cheetah.bundle
    """
    import numpy as np

    from export.clock import LatencyHistogram
    from export.runtime import load_bundle

    loaded, policy, reward = load_bundle(bundle)
    observation = np.zeros(loaded.spec.obs_dim)
    action = policy.act(observation).copy()
    work = {"policy": lambda: policy.act(observation), "reward": lambda: reward.score(observation, action)}
    result: dict[str, Any] = {"provider": policy.provider}
    for name, call in work.items():
        histogram = LatencyHistogram()
        for _ in range(calls):
            started = time.perf_counter_ns()
            call()
            histogram.add(time.perf_counter_ns() - started)
        summary = histogram.summary()
        result[name] = {"p50_us": summary.p50_us, "p99_us": summary.p99_us, "p999_us": summary.p999_us}
    if as_json:
        click.echo(json.dumps(result))
        return
    for name in work:
        numbers = " / ".join(f"{result[name][key]:.0f}" for key in ("p50_us", "p99_us", "p999_us"))
        click.echo(f"{name}: p50 / p99 / p99.9 {numbers} us ({result['provider']})")
