"""`gcl eval RUN --against BUNDLE`: does what was exported do what was trained?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from toolkit.bundle_agreement import Agreement


def show_agreement(
    run: Path, bundle: Path, demos: Path | None, sample: tuple[int, int], variant: str | None, as_json: bool
) -> None:
    """Compares, prints, and ends the process with exit code 1 if they disagree.

    Args:
        run: Run folder or checkpoint.
        bundle: The bundle's folder.
        demos: A demo store; None for the one the run was trained on, if it is still there.
        sample: Episodes of each policy, and the offset into the evaluation seeds.
        variant: A smaller copy of the policy.
        as_json: JSON instead of a table.

    Raises:
        ToolkitError: Run, bundle or demos cannot be read or do not belong together.
    """
    from rich.progress import Progress

    from toolkit.bundle_agreement import compare
    from toolkit.checkpoint import load

    checkpoint = load(run)
    if demos is None:
        trained_on = Path(checkpoint.demos.get("path", ""))
        demos = trained_on if (trained_on / "zarr.json").is_file() else None
    with Progress(disable=as_json, transient=True) as progress:
        task = progress.add_task("compare", total=2 * sample[0])
        found = compare(checkpoint, bundle, demos, sample, variant, lambda _: progress.advance(task))
    if as_json:
        facts = {"run": str(run), "bundle": str(bundle), "variant": variant, "demos": demos and str(demos)}
        click.echo(json.dumps(facts | {"task": checkpoint.spec.task} | found.to_dict()))
    else:
        _show(found, "the checkpoint's sample" if demos is None else str(demos))
    if not found.agrees:
        sys.exit(1)


def _show(found: Agreement, source: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from toolkit.bundle_agreement import MAX_RETURN_DIFFERENCE

    table = Table(title="torch against ONNX Runtime", show_header=False)
    table.add_row("recorded observations", f"{found.observations:,} of {source}")
    for name, worst, allowed in (
        ("action", found.max_abs_policy, found.policy_tolerance),
        ("reward", found.max_abs_reward, found.reward_tolerance),
    ):
        table.add_row(f"greatest difference of {name}", f"{worst:.1e}, allowed {allowed:g}")
    differences = ", ".join(found.metadata_differences)
    table.add_row("the robot, bit for bit", f"differs: {differences}" if differences else "equal")
    for name, returns in (("torch", found.torch_returns), ("ONNX", found.onnx_returns)):
        table.add_row(
            f"return in dm_control, {name}",
            f"{returns.mean:.2f} +- {returns.std:.2f} over {len(returns.returns)} episodes",
        )
    table.add_row(
        "difference of the mean return",
        f"{found.return_difference:.3%} +- {found.standard_error:.3%} (standard error), allowed below 1 %",
    )
    Console().print(table)
    click.echo("they agree" if found.agrees else "they do NOT agree")
    if found.max_abs_policy <= found.policy_tolerance and found.standard_error > MAX_RETURN_DIFFERENCE:
        click.echo("the returns differ from episode to episode by more than that: this policy amplifies the last bit")
