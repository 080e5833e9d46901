"""`gcl export`: reward and policy as an ONNX bundle."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from export.to_onnx import BundleReport


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="Run folder or checkpoint file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Bundle to write. Default: <robot>.bundle in the run folder."
)
@click.option("--check", is_flag=True, help="Also run onnx's own checker and reference evaluator over it.")
@click.option(
    "--variant", "variants", type=click.Choice(["float16", "int8"]), multiple=True,
    help="Add a smaller copy of the policy, its error measured; repeatable.",
)  # fmt: skip
@click.option(
    "--variant-tolerance", type=click.FloatRange(min=0.0, min_open=True), metavar="X",
    help="Greatest error of an action that a variant may have. Default: 0.005 for float16, 0.05 for int8.",
)  # fmt: skip
@click.option("--sign", "key", type=click.Path(path_type=Path), help="Sign with this private key of `gcl keys new`.")
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    checkpoint: Path,
    out: Path | None,
    check: bool,
    variants: tuple[str, ...],
    variant_tolerance: float | None,
    key: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write reward and policy as an ONNX bundle.

    ONNX Runtime's numbers are compared with torch's on real demo observations, random ones and zeros; above 1e-5 there
    is no bundle. The robot repeats the comparison on its own processor before it moves.

    \b
    Examples:
      gcl export --checkpoint runs/first --out first.bundle --check
      gcl export --checkpoint runs/first --out first.bundle --sign release.key
    """
    from export.bundle import refuse_foreign
    from robots.spec import ToolkitError
    from toolkit.export_parts import load_for_export

    if variant_tolerance is not None and not variants:
        raise click.UsageError("--variant-tolerance goes with --variant")
    signing_key = _signing_key(key)
    parts = load_for_export(checkpoint)
    path = out or (checkpoint if checkpoint.is_dir() else checkpoint.parent) / f"{parts.spec.name}.bundle"
    refuse_foreign(path)
    if os.path.lexists(path) and not force:
        raise ToolkitError(f"{path}: a bundle is already there; give --force to replace it, or another --out")
    from export.reference_check import check_bundle
    from export.to_onnx import write_bundle

    report = write_bundle(path, parts, variants=dict.fromkeys(variants, variant_tolerance), key=signing_key)
    reference = check_bundle(path) if check else None
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(report), "reference": reference}, default=str))
    else:
        _show(report, reference, str(parts.settings.get("objective")))
        where = "" if parts.spec.directory is None else f" --robot {os.path.relpath(parts.spec.directory)}"
        click.echo(f"try it: gcl deploy {report.path} --backend sim{where} --seconds 10")


def _signing_key(path: Path | None) -> Ed25519PrivateKey | None:
    """Read before the work: a mistyped path should not cost an export."""
    if path is None:
        return None
    from export.signature import read_private_key

    return read_private_key(path)


def _show(report: BundleReport, reference: dict[str, float] | None, objective: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from toolkit.config import WITHOUT_REWARD

    table = Table(title=str(report.path), show_header=False)
    for name, size in report.sizes.items():
        table.add_row(name, f"{size:,} bytes")
    table.add_row("parity vectors", str(report.parity_vectors))
    table.add_row("ONNX Runtime against torch, policy", f"{report.max_abs_policy:.1e}, allowed {report.tolerance:g}")
    table.add_row("ONNX Runtime against torch, reward", f"{report.max_abs_reward:.1e}")
    for role, error in (reference or {}).items():
        table.add_row(f"onnx's reference evaluator against torch, {role}", f"{error:.1e}")
    for name, record in report.variants.items():
        table.add_row(
            f"{name} against torch, policy",
            f"{record.max_abs:.1e} (p99 {record.p99:.1e}), allowed {record.tolerance:g}",
        )
    table.add_row("signed by key", "nobody" if report.key_id is None else report.key_id[:12])
    median = f"{report.reward_quantiles['0.5']:.3g}"
    if objective in WITHOUT_REWARD:
        median = f"0 everywhere: objective {objective!r} learns none, so the robot's reward monitor says nothing"
    whose = "its own (simulated)" if objective == "reward" else "demos'"
    table.add_row(f"{whose} reward per step, median", median)
    Console().print(table)
