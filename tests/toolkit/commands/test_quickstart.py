"""The whole pipeline in one command, on shipped demos, with hardly any training."""

import json
from pathlib import Path

from click.testing import CliRunner

from export.runtime import load_bundle
from toolkit.cli import main


def test_every_stage_runs_and_leaves_its_artefacts(tmp_path: Path):
    """Train, export, deploy in another process, measure, draw: the figures are there, and so is what they speak of."""
    out = tmp_path / "run"
    arguments = ["quickstart", "--out", str(out), "--steps", "8192", "--count", "2", "--seconds", "1", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.strip().splitlines()[-1])
    assert figures["return"]["expert"]["mean"] > 500.0 > figures["return"]["random"]["mean"]
    assert figures["parity"]["policy"] <= 1e-5 and figures["parity"]["reward"] <= 1e-5
    assert figures["deploy"]["ticks"] >= 100
    assert (out / "curve.png").stat().st_size > 1000
    bundle, _, _ = load_bundle(out / "cheetah.bundle")
    assert bundle.spec.name == "cheetah"
    assert bundle.manifest.demos["used"] == 2
