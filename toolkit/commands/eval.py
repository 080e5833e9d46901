"""`gcl eval`: measure a policy by the true reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robots.spec import RobotSpec
    from toolkit.evaluate import Act, Evaluation


@click.command()
@click.argument("policy", type=click.Path(path_type=Path))
@click.option(
    "--episodes", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="Whole episodes to run."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Offset into the evaluation seeds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(policy: Path, episodes: int, seed: int, as_json: bool) -> None:
    """Measure a policy in dm_control's own environment.

    POLICY is a run folder, a checkpoint, or an exported bundle. Seeds are never those of training.

    \b
    Example:
      gcl eval runs/first -n 20
    """
    spec, act = load_act(policy)
    measured = measure(spec, act, episodes, seed, quiet=as_json)
    mean, std, returns = measured.mean, measured.std, measured.returns
    if as_json:
        click.echo(json.dumps({"policy": str(policy), "task": spec.task, "mean": mean, "std": std, "returns": returns}))
    else:
        click.echo(
            f"{spec.task}: return {mean:.1f} +- {std:.1f} over {episodes} episodes,"
            f" {min(returns):.1f} to {max(returns):.1f}"
        )


def measure(spec: RobotSpec, act: Act, episodes: int, seed: int = 0, quiet: bool = False) -> Evaluation:
    """`evaluate` with a progress bar.

    Args:
        spec: The robot.
        act: The policy.
        episodes: How many to run.
        seed: Offset into the evaluation seeds.
        quiet: No bar.

    Returns:
        The returns.
    """
    from rich.progress import Progress

    from toolkit.evaluate import evaluate

    with Progress(disable=quiet, transient=True) as progress:
        task = progress.add_task("measure", total=episodes)
        return evaluate(spec, act, episodes, seed, on_episode=lambda _: progress.advance(task))


def load_act(path: Path) -> tuple[RobotSpec, Act]:
    """A policy from a run folder, a checkpoint or a bundle.

    Args:
        path: Where it is.

    Returns:
        Its robot, and the function from observation (obs_dim,) to action (act_dim,).

    Raises:
        ToolkitError: Nothing usable there.
    """
    if (path / "bundle.json").is_file() or path.suffix == ".bundle":
        from export.runtime import load_bundle

        bundle, policy, _ = load_bundle(path)
        return bundle.spec, policy.act
    from toolkit.checkpoint import DeterministicPolicy, build_policy, load

    checkpoint = load(path)
    return checkpoint.spec, DeterministicPolicy(build_policy(checkpoint)).act
