"""`gcl record`: record demonstrations into a Zarr store."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robots.spec import ToolkitError
from toolkit.commands.recovery import tell_recovery
from toolkit.commands.seed import SEED

if TYPE_CHECKING:
    from demos.operators import Operator
    from demos.record import TaskEnvironment
    from demos.store import DemoStore
    from robots.backend import Backend
    from robots.spec import RobotSpec

    OpenStage = Callable[[int], AbstractContextManager[Backend | TaskEnvironment]]  # by the seed of the episode


_MOST_SECONDS = 86_400.0  # [s] of an episode, which is kept in memory


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Store, NAME.zarr; one there is added to.")
@click.option("--robot", help="Robot. Default: that of the store, or of the policy.")
@click.option(
    "--operator",
    type=click.Choice(["script", "random", "policy", "expert", "controller"]),
    default="random",
    show_default=True,
)
@click.option("--policy", type=click.Path(path_type=Path), help="Bundle, checkpoint or run that acts (policy, expert).")
@click.option(
    "--script", type=click.Path(path_type=Path), help="Actions: .npy, .csv or .yaml keyframes. Default: a wave."
)
@click.option(
    "--controller",
    type=click.Path(path_type=Path),
    help="Python file of your own whose make_act(spec) gives the function observation -> action.",
)
@click.option(
    "--noise", type=float, default=0.0, help="Standard deviation added to a policy's or controller's actions."
)
@click.option("--smoothness", type=float, help="Of random actions, from 0 to less than 1. Default: 0.9.")
@click.option(
    "--backend", type=click.Choice(["task", "sim", "mock", "udp"]), help="Default: task if the robot has one, else sim."
)
@click.option("--address", help="HOST:PORT of the robot, for --backend udp.")
@click.option("--allow-remote", is_flag=True, help="Let the address be on another machine; needs --key.")
@click.option("--key", type=click.Path(path_type=Path), help="File with 16 to 64 bytes that the robot's side has, too.")
@click.option("--episodes", "-n", type=click.IntRange(min=1), default=1, show_default=True, help="How many to add.")
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="First seed; those in the store are skipped.",
)
@click.option("--seconds", type=float, help="Time limit. Default: the robot's own; a task ends there in any case.")
@click.option("--real-time", is_flag=True, help="Keep the control period by the wall clock; always so with udp.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON an episode.")
def command(out: Path, robot: str | None, episodes: int, seed: int, as_json: bool, **options: Any) -> None:
    """Record demonstrations into a Zarr store.

    One line is printed for each episode once it is safely on the disk: from then on no crash loses it. Ctrl-C keeps
    what is recorded and ends the running episode as interrupted, which excludes it from learning.

    \b
    Examples:
      gcl record --robot cheetah --out first.zarr -n 3
      gcl record --operator expert --policy runs/expert --out my_demos.zarr -n 5
      gcl record --robot cheetah --backend mock --operator script --seconds 2 --out dry_run.zarr
      gcl record --robot jaco --operator controller --controller demos/controllers/jaco_reach.py --out reach.zarr
    """
    from demos.store import DemoStore

    spec, act = _robot(robot, out, options)
    kind = options["backend"] or ("task" if spec.task else "sim")
    steps = _max_steps(kind, spec, options["seconds"])
    operator = _operator(spec, act, steps, options)
    open_stage = _stage(kind, spec, options)
    source = {"task": f"sim:{spec.task}", "udp": "robot"}.get(kind, kind)
    with DemoStore.open(out, spec, mode="a") if out.exists() else DemoStore.create(out, spec, source) as store:
        tell_recovery(store)
        real_time = options["real_time"] or kind == "udp"
        seeds = _free_seeds(store, seed, episodes)
        interrupted = _record(store, operator, open_stage, seeds, steps, real_time, as_json)
    if interrupted:
        raise SystemExit(130)


def _record(
    store: DemoStore,
    operator: Operator,
    open_stage: OpenStage,
    seeds: list[int],
    max_steps: int,
    real_time: bool,
    as_json: bool,
) -> bool:
    """Records one episode a seed; returns whether somebody stopped it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from demos.record import record_episode
    from toolkit.stop_signals import stop_on_signals

    columns = (
        TextColumn("record"),
        BarColumn(),
        TextColumn("episode {task.fields[episode]} {task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    stop = threading.Event()
    with stop_on_signals(stop), Progress(*columns, disable=as_json or not sys.stdout.isatty()) as progress:
        bar = progress.add_task("record", total=len(seeds) * max_steps, episode=f"1/{len(seeds)}", shown="")
        for i, seed in enumerate(seeds):
            progress.update(bar, completed=i * max_steps, episode=f"{i + 1}/{len(seeds)}")

            def on_step(step: int) -> bool:
                progress.advance(bar)
                return not stop.is_set()

            try:
                with open_stage(seed) as backend:
                    journal = store.start_journal(seed, operator.name)
                    episode = record_episode(
                        backend, operator, store.spec,
                        seed=seed, max_steps=max_steps, real_time=real_time, journal=journal, on_step=on_step,
                    )  # fmt: skip
                index = store.append(episode)
            except ToolkitError as error:
                raise ToolkitError(f"{error}{_rescue(store)}") from error
            _announce(index, episode, as_json)
            if not math.isnan(episode.return_):
                progress.update(bar, shown=f"last return {episode.return_:.1f}")
            if stop.is_set():
                return True
    return False


def _announce(index: int, episode: Any, as_json: bool) -> None:
    """Says that an episode is on the disk, which is a promise."""
    excluded = episode.ended_by == "interrupted"
    if as_json:
        returned = None if math.isnan(episode.return_) else episode.return_
        row = {"episode": index, "length": episode.length, "return": returned, "seed": episode.seed}
        line = json.dumps(row | {"ended_by": episode.ended_by, "excluded": excluded, "sha256": episode.sha256.hex()})
    else:
        returned = "" if math.isnan(episode.return_) else f", return {episode.return_:.1f}"
        line = f"episode {index}: {episode.length} steps{returned}, seed {episode.seed}, {episode.ended_by}"
        line += ", excluded from learning" if excluded else ""
    print(line, flush=True)


def _rescue(store: DemoStore) -> str:
    """After a failure: saves what the journal of the running episode holds, and says so."""
    try:
        recovery = store.recover()
    except ToolkitError:
        return "; the running episode is in its journal, and the next `gcl record` brings it back"
    kept = ", ".join(map(str, recovery.restored))
    said = f"; what was recorded of it is episode {kept}" if kept else ""
    return said + "".join(f"; {line}" for line in recovery.set_aside)


def _robot(robot: str | None, out: Path, options: dict[str, Any]) -> tuple[RobotSpec, Any]:
    """The robot, and the policy's function if a policy is to act."""
    from demos.schema import read_attributes, stored_robot
    from robots.robot_yaml import load_robot
    from robots.spec import RobotSpecError

    spec = load_robot(robot) if robot is not None else None
    policy, acts = options["policy"], options["operator"] in ("policy", "expert")
    if acts != (policy is not None):
        needs = "needs --policy" if acts else "takes no --policy"
        raise click.UsageError(f"--operator {options['operator']} {needs}")
    if spec is None and out.exists():
        spec = stored_robot(out, read_attributes(out))
    if not acts:
        if spec is None:
            raise click.UsageError("--robot is needed for a new store")
        return spec, None
    from toolkit.commands.eval import load_act

    trained_on, act = load_act(policy)
    if spec is None:
        return trained_on, act
    if spec.sha256 != trained_on.sha256:
        from demos.schema import robot_differences

        raise RobotSpecError(
            f"{policy} is for another robot than {spec.name}: differs in {robot_differences(trained_on, spec)}"
        )
    if spec.directory is None and trained_on.directory is not None:
        from demos.schema import with_model_of

        spec = with_model_of(out, spec, trained_on)  # a store made where nobody knew
    # Not the policy's: what ends an episode, for one, is no part of a robot's identity and may differ
    return spec, act


def _max_steps(kind: str, spec: RobotSpec, seconds: float | None) -> int:
    """The time limit of an episode in steps."""
    if seconds is None:
        return max(1, round(spec.episode_seconds / spec.control_dt))
    if not 0.0 < seconds <= _MOST_SECONDS:
        raise click.UsageError(f"--seconds {seconds:g}; legal is more than 0 and at most {_MOST_SECONDS:g}, a day")
    steps = max(1, round(seconds / spec.control_dt))
    if kind == "task" and spec.task is not None and steps > spec.episode_steps:
        raise click.UsageError(
            f"--seconds {seconds:g}: an episode of {spec.task} ends after {spec.episode_seconds:g} s;"
            " --backend sim goes on for longer"
        )
    return steps


def _operator(spec: RobotSpec, act: Any, steps: int, options: dict[str, Any]) -> Operator:
    from demos.controller import Controller
    from demos.operators import PolicyOperator, RandomOperator, ScriptOperator, read_script, wave

    kind, script = options["operator"], options["script"]
    if script is not None and kind != "script":
        raise click.UsageError(f"--operator {kind} takes no --script")
    controller = options["controller"]
    if (kind == "controller") != (controller is not None):
        needs = "needs --controller" if controller is None else "takes no --controller"
        raise click.UsageError(f"--operator {kind} {needs}")
    if controller is not None:
        act = Controller(controller, spec)
    if options["noise"] and act is None:
        raise click.UsageError(f"--operator {kind} takes no --noise")
    smoothness = options["smoothness"]
    if smoothness is not None and kind != "random":
        raise click.UsageError(f"--operator {kind} takes no --smoothness")
    if act is not None:
        return PolicyOperator(act, f"{kind}:{(controller or options['policy']).name}", options["noise"])
    if kind == "random":
        return RandomOperator(spec) if smoothness is None else RandomOperator(spec, smoothness)
    if script is None:
        return ScriptOperator(wave(spec, steps), "script:wave")
    return ScriptOperator(read_script(script, spec), f"script:{script.name}")


def _stage(kind: str, spec: RobotSpec, options: dict[str, Any]) -> OpenStage:
    """What opens the robot or its stand-in for an episode. Simulators are made anew, so that a seed says it all."""
    if kind == "udp":
        return _udp_stage(spec, options)
    for name in ("address", "allow_remote", "key"):
        if options[name]:
            raise click.UsageError(f"--backend {kind} takes no --{name.replace('_', '-')}")
    if kind == "task":
        if spec.task is None:
            raise click.UsageError(f"{spec.name} has no task; use --backend sim")
        from robots.task import TaskEnv

        return lambda seed: contextlib.nullcontext(TaskEnv(spec, seed))
    if kind == "mock":
        from robots.mock import MockBackend

        return lambda seed: MockBackend(spec, seed)
    from robots.sim import MujocoBackend

    return lambda seed: MujocoBackend(spec, seed)


def _udp_stage(spec: RobotSpec, options: dict[str, Any]) -> OpenStage:
    """A robot at an address; what is wrong with that or with the key is told before a store is made."""
    from robots.address import is_loopback, parse_address
    from robots.udp import UdpBackend
    from toolkit.commands.deploy_choices import read_key

    address, remote, file = options["address"], options["allow_remote"], options["key"]
    if address is None:
        raise click.UsageError("--backend udp needs --address HOST:PORT")
    if remote and file is None:
        raise click.UsageError("--allow-remote needs --key FILE, which the robot's side has too: anyone could drive it")
    if not (remote or is_loopback(parse_address(address)[0])):
        raise click.UsageError(f"{address} is not on this machine; --allow-remote and --key FILE let it be on another")
    key = b"" if file is None else read_key(file)
    link = functools.partial(UdpBackend, spec, address, allow_remote=remote, key=key)
    link().close()  # whether there is a way to the host; nothing is sent
    return lambda seed: link(seed=seed)


def _free_seeds(store: DemoStore, first: int, count: int) -> list[int]:
    """Seeds from `first` on that the store has no episode of: the same one twice teaches nothing."""
    used = set(store.column("seed").tolist())
    seeds: list[int] = []
    while len(seeds) < count:
        if first not in used:
            seeds.append(first)
        first += 1
    return seeds
