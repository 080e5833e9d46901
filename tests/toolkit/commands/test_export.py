"""`gcl export`: a bundle from a run, and one line for each mistake."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import toolkit.export_parts
from export.runtime import load_bundle
from export.signature import read_public_key
from robots.robot_yaml import load_robot
from toolkit.cli import main


class Sum(torch.nn.Module):
    """The plainest reward: minus the size of the action, plus a little of the observation."""

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return observation.mean(-1) - action.square().sum(-1)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run folder whose checkpoint gives small networks; reading real checkpoints is tested where they are written."""
    spec, rng = load_robot("cartpole"), np.random.default_rng(0)
    parts = SimpleNamespace(
        policy_module=torch.nn.Sequential(torch.nn.Linear(spec.obs_dim, spec.act_dim), torch.nn.Hardtanh()),
        reward_module=Sum(),
        spec=spec,
        settings={"seed": 1},
        demos={"chain_sha256": "00", "n_episodes": 1, "spec_sha256": spec.sha256},
        sample_observations=rng.normal(size=(80, spec.obs_dim)).astype(np.float32),
        sample_actions=rng.uniform(-1, 1, (80, spec.act_dim)).astype(np.float32),
    )
    monkeypatch.setattr(toolkit.export_parts, "load_for_export", lambda path: parts)
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def gcl(*words: str | Path | float) -> Result:
    """Runs `gcl` in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])


def test_a_run_becomes_a_bundle(run: Path) -> None:
    """The bundle lies in the run folder under the robot's name, loads, and `--check` agrees with a second evaluator."""
    result = gcl("export", "--checkpoint", run, "--check", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert Path(report["path"]) == run / "cartpole.bundle"
    assert report["max_abs_policy"] <= 1e-5 and report["reference"]["policy"] <= 1e-5
    assert load_bundle(run / "cartpole.bundle")[0].spec.name == "cartpole"


def test_an_old_bundle_is_replaced_only_when_forced(run: Path, tmp_path: Path) -> None:
    """Without --force the old bundle stays, byte for byte; with it, it is replaced; other folders never are."""
    out = tmp_path / "x.bundle"
    assert gcl("export", "--checkpoint", run, "--out", out).exit_code == 0
    before = (out / "bundle.json").read_bytes()
    result = gcl("export", "--checkpoint", run, "--out", out)
    assert result.exit_code == 2 and "--force" in result.stderr and result.stderr.count("\n") == 1
    assert (out / "bundle.json").read_bytes() == before
    result = gcl("export", "--checkpoint", run, "--out", out, "--force")
    assert result.exit_code == 0 and "gcl deploy" in result.stdout and "policy.onnx" in result.stdout
    (run / "notes.txt").write_text("mine")
    result = gcl("export", "--checkpoint", run, "--out", run, "--force")
    assert result.exit_code == 2 and "not a bundle" in result.stderr and (run / "notes.txt").exists()


def test_signed_and_with_variants(run: Path, tmp_path: Path) -> None:
    """One command writes a bundle that a robot with the public key takes, with a smaller policy and its error."""
    assert gcl("keys", "new", tmp_path / "mine").exit_code == 0
    words = (
        "export",
        "--checkpoint",
        run,
        "--variant",
        "int8",
        "--variant",
        "float16",
        "--sign",
        tmp_path / "mine.key",
    )
    result = gcl(*words, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    trusted = [read_public_key(tmp_path / "mine.pub")]
    assert report["key_id"] == trusted[0].key_id and 0 < report["variants"]["int8"]["max_abs"] <= 0.05
    bundle, *_ = load_bundle(run / "cartpole.bundle", trusted, variant="int8")
    assert set(bundle.variants) == {"float16", "int8"}
    result = gcl(*words, "--force")
    assert "signed by key" in result.stdout and "int8 against torch" in result.stdout


def test_variants_and_keys_that_will_not_do(run: Path, tmp_path: Path) -> None:
    """Too far off, a tolerance for nothing, and a key that is not there: one line, exit code 2, no bundle."""
    words = ("export", "--checkpoint", run)
    for more, why in (
        (("--variant", "int8", "--variant-tolerance", 1e-9), "--variant-tolerance"),
        (("--variant-tolerance", 1), "goes with --variant"),
        (("--sign", tmp_path / "none.key"), "cannot be read"),
    ):
        result = gcl(*words, *more)
        assert result.exit_code == 2 and why in result.stderr
    assert not (run / "cartpole.bundle").exists()


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped path is one line and exit code 2."""
    result = gcl("export", "--checkpoint", tmp_path / "none", "--out", tmp_path / "x.bundle")
    assert result.exit_code == 2 and result.stderr.startswith("gcl: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "x.bundle").exists()
