"""`gcl eval`: measure a policy by the true reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from robots.spec import RobotSpec
    from toolkit.evaluate import Act


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
    from rich.progress import track

    from toolkit.evaluate import evaluate

    spec, act = load_act(policy)
    returns: list[float] = []
    for i in track(range(episodes), "evaluate", disable=as_json, transient=True):
        returns += evaluate(spec, act, 1, seed + i).returns
    mean = sum(returns) / len(returns)
    std = (sum((r - mean) ** 2 for r in returns) / len(returns)) ** 0.5
    if as_json:
        click.echo(json.dumps({"policy": str(policy), "task": spec.task, "mean": mean, "std": std, "returns": returns}))
    else:
        click.echo(
            f"{spec.task}: return {mean:.1f} +- {std:.1f} over {episodes} episodes,"
            f" {min(returns):.1f} to {max(returns):.1f}"
        )


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
