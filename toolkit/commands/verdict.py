"""`gcl verdict`: judge a run by its demos alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from demos.store_reader import StoreReader
    from toolkit.checkpoint import Checkpoint
    from toolkit.verdict import Verdict

_COLOURS = {"converged": "green", "not converged": "yellow", "collapsed": "red", "inconclusive": "cyan"}


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--demos", type=click.Path(path_type=Path), help="Store to judge by. Default: the one that the run learned from."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, demos: Path | None, as_json: bool) -> None:
    """Judge a run without a true reward: converged, not converged, collapsed, or inconclusive.

    The trained policy acts in the simulator anew and is compared with the demos: how far are its states and actions
    from theirs, those that the reward looks at, and can the discriminator tell them apart? `gcl train` does the same at
    its end. Writes verdict.json into the run folder. Demos in another store than the run's own all count as held out,
    and of one that has grown since, named with --demos, those that are new.

    \b
    Examples:
      gcl verdict runs/first
      gcl verdict runs/first --demos more_demos.zarr
    """
    from toolkit.verdict import write_verdict

    found, judged_by = _judge(run, demos)
    path = write_verdict(run if run.is_dir() else run.parent, found, judged_by)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        show_verdict(found)
        click.echo(f"written: {path}")


def _judge(path: Path, demos: Path | None) -> tuple[Verdict, dict[str, Any]]:
    """The verdict on a checkpoint, and which episodes of which store it rests on."""
    import copy

    from demos.segments import SegmentSampler
    from toolkit.checkpoint import load
    from toolkit.config import FROM_DEMOS
    from toolkit.metrics import read_metrics
    from toolkit.trainer import Trainer
    from toolkit.verdict import VerdictError, judge

    checkpoint = load(path)
    if checkpoint.config.objective == "offline":
        raise VerdictError(f"{path}: learned offline, where no policy tried what its reward says; there is no verdict")
    if checkpoint.config.objective not in FROM_DEMOS:
        raise VerdictError(f"{path}: learned from no demos, so there is nothing to compare with; measure it: gcl eval")
    store, chosen, own = _chosen(checkpoint, demos)
    episodes = store.select(chosen)
    trainer = Trainer(checkpoint.spec, checkpoint.config, episodes)
    start = copy.deepcopy(trainer.policy)
    trainer.load_state_dict(checkpoint.state["trainer"])
    if not own:
        trainer.held_out_demos = SegmentSampler(
            episodes, trainer.config.reward.segment, past_end=trainer.reward.absorbing is not None
        )
    folder = path if path.is_dir() else path.parent
    metrics = [row for row in read_metrics(folder / "metrics.csv") if row["iteration"] <= trainer.iteration]
    judged_by = {"path": str(store.path), **store.identity(), "episodes": chosen, "learned_from": own}
    return judge(trainer, episodes, start, metrics), judged_by


def _chosen(checkpoint: Checkpoint, demos: Path | None) -> tuple[StoreReader, list[int], bool]:
    """A store, which of its episodes to judge by, and whether the run learned from these."""
    from demos.durable import StoreError
    from demos.store import DemoStore
    from toolkit.verdict import VerdictError, learned_episodes

    learned = checkpoint.demos
    try:
        store = DemoStore.open(demos or Path(learned["path"]), checkpoint.spec)
    except StoreError as error:
        if demos is not None:
            raise
        raise VerdictError(
            f"{error}. The run learned from it; if it lies elsewhere now, say where with --demos"
        ) from error
    count, others, digests = learned["n_episodes"], store.learned(), store.digests()
    if not store.begins_with(count, learned["chain_sha256"]):
        if demos is None:
            raise VerdictError(
                f"{learned['path']}: no longer the demos this run learned from; name a store with --demos to judge by"
                " it all the same"
            )
        seen = _learned_digests(checkpoint)
        new = [i for i in others if digests[i] not in seen]
        return (store, new, False) if new else (store, others, True)
    # Whatever is excluded by now, it learned from these
    known = learned_episodes(learned)
    seen = {digests[i] for i in known}
    new = [i for i in others if i >= count and digests[i] not in seen]
    # Asked for by name, a store that has grown since judges by what the run has never seen
    return (store, new, False) if demos is not None and new else (store, known, True)


def _learned_digests(checkpoint: Checkpoint) -> set[bytes]:
    """Digests of the episodes that a run learned from; none where its store is not there any more."""
    from robots.spec import ToolkitError

    try:
        store, episodes, _ = _chosen(checkpoint, None)
    except ToolkitError:
        return set()
    digests = store.digests()
    return {digests[i] for i in episodes}


def show_verdict(verdict: Verdict) -> None:
    """Prints the figures as a short table, then the word in colour and why.

    Args:
        verdict: What to print.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title="judged by the demos alone", show_header=False)
    gap = verdict.likelihood_gap
    kept = "held-out demos" if verdict.held_out else "demos it learned from"
    for label, value in (
        ("distance to the demos", f"{verdict.energy_distance:.3g}"),
        (
            "  of a demo / the start / random",
            f"{verdict.energy_distance_of_demos:.3g} / {verdict.energy_distance_of_start:.3g}"
            f" / {verdict.energy_distance_of_random:.3g}",
        ),
        (f"discriminator AUC, {kept}", "-" if verdict.held_out_auc is None else f"{verdict.held_out_auc:.3f}"),
        ("likelihood gap", "actions of the demos unknown" if gap is None else f"{gap:+.2f} nats/step"),
        ("variety, of the demos'", f"{verdict.variety:.2f}"),
        ("action noise", f"{verdict.action_std:.2f}"),
        ("effective sample size", "-" if verdict.ess is None else f"{verdict.ess:.1%}"),
        ("log Z drift, last quarter", "-" if verdict.log_z_drift is None else f"{verdict.log_z_drift:.2f}"),
    ):
        table.add_row(label, value)
    Console().print(table)
    click.echo(f"{click.style(verdict.word, fg=_COLOURS[verdict.word], bold=True)}: {verdict.reasons[0]}")
    for reason in verdict.reasons[1:]:
        click.echo(f"  {reason}")
