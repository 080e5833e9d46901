"""`gcl eval`: measure a policy by the true reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit.commands.seed import SEED

if TYPE_CHECKING:
    from robots.spec import RobotSpec
    from toolkit.evaluate import Act, Evaluation

_EPISODES = 20
_GRADED_EPISODES = 3  # of each policy of the family


@click.command()
@click.argument("policy", type=click.Path(path_type=Path))
@click.option(
    "--episodes",
    "-n",
    type=click.IntRange(min=1),
    help=f"Whole episodes to run. Default: {_EPISODES}; with --graded {_GRADED_EPISODES} of each policy.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Offset into the evaluation seeds.")
@click.option(
    "--graded",
    type=click.IntRange(min=2),
    metavar="K",
    help="Correlate learned with true return over K policies, from this one down to useless; 12 is a good number.",
)
@click.option(
    "--also", type=click.Path(path_type=Path), multiple=True, help="With --graded: the policy of another run too."
)
@click.option(
    "--against", metavar="BUNDLE", type=click.Path(path_type=Path),
    help="Compare the run with a bundle exported from it: actions, rewards, metadata, and both returns.",
)  # fmt: skip
@click.option(
    "--demos", type=click.Path(path_type=Path),
    help="With --against: the store whose observations are compared. Default: what the run was trained on.",
)  # fmt: skip
@click.option("--robot", help="Measure it on this robot, a changed one, in place of its own: name or path.")
@click.option("--variant", type=click.Choice(["float16", "int8"]), help="A smaller copy of a bundle's policy.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    policy: Path,
    episodes: int | None,
    seed: int,
    graded: int | None,
    also: tuple[Path, ...],
    against: Path | None,
    demos: Path | None,
    robot: str | None,
    variant: str | None,
    as_json: bool,
) -> None:
    """Measure a policy, or its learned reward, in dm_control's own environment.

    POLICY is a run folder, a checkpoint, or an exported bundle. Seeds are never those of training. --graded needs a run
    or a checkpoint, trains nothing, and draws correlation.png beside it. --against exits with 1 if the two differ.

    \b
    Examples:
      gcl eval runs/first -n 20
      gcl eval runs/first --graded 12
      gcl eval runs/first --against first.bundle
      gcl eval runs/first --robot walker-weak
    """
    if graded is not None and (against, demos, robot, variant) != (None,) * 4:
        raise click.UsageError("--graded goes with none of --against, --demos, --robot and --variant")
    if graded is not None:
        _show_correlation(policy, graded, also, (episodes or _GRADED_EPISODES, seed), as_json)
        return
    if also:
        raise click.UsageError("--also goes with --graded")
    episodes = episodes or _EPISODES
    if against is not None:
        if robot is not None:
            raise click.UsageError("--against compares on the robot of both; leave --robot out")
        from toolkit.commands.eval_against import show_agreement

        show_agreement(policy, against, demos, (episodes, seed), variant, as_json)
        return
    if demos is not None:
        raise click.UsageError("--demos goes with --against")
    spec, act = load_act(policy, variant)
    if robot is not None:
        from robots.robot_yaml import load_robot

        changed = load_robot(robot)
        spec.require_same_names(changed, f"{policy}: a policy")
        spec = changed
    measured = measure(spec, act, episodes, seed, quiet=as_json)
    mean, std, returns = measured.mean, measured.std, measured.returns
    if as_json:
        facts = {"policy": str(policy), "robot": spec.name, "task": spec.task}
        click.echo(json.dumps(facts | {"mean": mean, "std": std, "returns": returns}))
    else:
        click.echo(
            f"{spec.name}, {spec.task}: return {mean:.1f} +- {std:.1f} over {episodes} episodes,"
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


def _show_correlation(path: Path, count: int, also: tuple[Path, ...], sample: tuple[int, int], as_json: bool) -> None:
    from rich.progress import Progress

    from toolkit.checkpoint import DeterministicPolicy, build_policy, build_reward, load, require_reward
    from toolkit.correlation import Graded, correlate, graded_family, plot_correlation
    from toolkit.evaluate import EvaluationError

    checkpoint = load(path)
    require_reward(path, checkpoint)
    spec, (episodes, seed) = checkpoint.spec, sample
    family = graded_family(spec, DeterministicPolicy(build_policy(checkpoint)).act, count, seed)
    for other in also:
        other_spec, act = load_act(other)
        if (other_spec.obs_dim, other_spec.act_dim, other_spec.task) != (spec.obs_dim, spec.act_dim, spec.task):
            raise EvaluationError(f"--also {other}: a policy for {other_spec.name}; expected one for {spec.name}")
        family.append(Graded(other.name, 0.0, act))
    with Progress(disable=as_json, transient=True) as progress:
        task = progress.add_task("correlate", total=len(family) * episodes)
        found = correlate(spec, family, build_reward(checkpoint), episodes, seed, lambda: progress.advance(task))
    folder = path if path.is_dir() else path.parent
    picture = plot_correlation(folder / "correlation.png", found)
    if as_json:
        click.echo(json.dumps({"policy": str(path), "task": spec.task, "picture": str(picture)} | found.to_dict()))
    else:
        click.echo(
            f"{spec.task}: learned and true return over {len(found.episodes)} episodes of {len(family)} policies:"
            f" Pearson {found.pearson:.3f}, Spearman {found.spearman:.3f}"
        )
        click.echo(f"picture: {picture}")


def load_act(path: Path, variant: str | None = None) -> tuple[RobotSpec, Act]:
    """A policy from a run folder, a checkpoint or a bundle.

    Args:
        path: Where it is.
        variant: Of a bundle, a smaller copy of the policy.

    Returns:
        Its robot, and the function from observation (obs_dim,) to action (act_dim,).

    Raises:
        ToolkitError: Nothing usable there.
    """
    if (path / "bundle.json").is_file() or path.suffix == ".bundle":
        from export.runtime import load_bundle

        bundle, policy, _ = load_bundle(path, variant=variant)
        return bundle.spec, policy
    if variant is not None:
        raise click.UsageError(f"--variant is of a bundle; {path} is none")
    from toolkit.checkpoint import DeterministicPolicy, build_policy, load

    checkpoint = load(path)
    return checkpoint.spec, DeterministicPolicy(build_policy(checkpoint)).act
