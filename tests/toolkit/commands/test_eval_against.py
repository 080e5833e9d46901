"""`gcl eval RUN --against BUNDLE` and the other new ways to measure a bundle."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from untrained_run import saved

from export.to_onnx import write_bundle
from toolkit.cli import main
from toolkit.export_parts import load_for_export


def gcl(*words: str | Path | int) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its bundle inside."""
    folder = tmp_path_factory.mktemp("against") / "run"
    saved(folder, 0)
    write_bundle(folder / "x.bundle", load_for_export(folder), variants={"float16": 0.5})
    return folder


def test_agreement_is_exit_code_0(run: Path) -> None:
    """A table for people, JSON for programs; both returns and their difference."""
    result = gcl("eval", run, "--against", run / "x.bundle", "-n", 1)
    assert result.exit_code == 0 and "they agree" in result.output, result.output
    for word in ("recorded observations", "bit for bit", "return in dm_control, ONNX", "difference of the mean return"):
        assert word in result.output
    report = json.loads(gcl("eval", run, "--against", run / "x.bundle", "-n", 1, "--json").stdout)
    assert report["agrees"] is True and report["observations"] == 100 and report["demos"] is None


def test_disagreement_is_exit_code_1(run: Path, tmp_path: Path) -> None:
    """A script can tell, and the table says what differs."""
    saved(tmp_path / "other", 1)
    result = gcl("eval", tmp_path / "other", "--against", run / "x.bundle", "-n", 1)
    assert result.exit_code == 1 and "they do NOT agree" in result.output


def test_a_variant_is_measured(run: Path) -> None:
    """A smaller copy has a return of its own."""
    result = gcl("eval", run / "x.bundle", "--variant", "float16", "-n", 1, "--json")
    assert result.exit_code == 0, result.output
    compared = gcl("eval", run, "--against", run / "x.bundle", "--variant", "float16", "-n", 1, "--json")
    report = json.loads(compared.stdout)
    assert report["onnx_returns"]["returns"] == json.loads(result.stdout)["returns"] and report["max_abs_policy"] > 1e-5


def test_options_that_do_not_go_together(run: Path) -> None:
    """A wrong use is one line and exit code 2."""
    for words, why in (
        ((run, "--demos", run), "goes with --against"),
        ((run, "--variant", "int8"), "is of a bundle"),
        ((run, "--graded", 2, "--against", run), "--graded goes with none"),
        ((run / "x.bundle", "--variant", "int8", "-n", 1), "has no variant"),
    ):
        result = gcl("eval", *words)
        assert result.exit_code == 2 and why in result.stderr
