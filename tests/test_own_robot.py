"""A robot of one's own, from its two files to a bundle, with nothing told twice."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from test_readme import blocks

from toolkit.cli import main

TINY = ["--set", "threads=1", "--set", "ppo.num_envs=8", "--set", "ppo.horizon=16", "--set", "policy.warm_start=5",
        "--set", "policy.hidden=[8]", "--set", "reward.hidden=[8]", "--set", "reward.batch_steps=512",
        "--eval-every", "0", "--steps", "256"]  # fmt: skip


def gcl(*words: str) -> str:
    """What a command printed; it must have worked."""
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_from_two_files_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's robot: store and run know the way to its model, and what to type next is said with it."""
    monkeypatch.chdir(tmp_path)
    Path("arm").mkdir()
    Path("arm/arm.xml").write_text(blocks("xml")[0], encoding="utf-8")
    Path("arm/robot.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    gcl("record", "--robot", "arm/robot.yaml", "--operator", "random", "-n", "2", "--out", "demos/arm.zarr")
    gcl("train", "--demos", "demos/arm.zarr", "--out", "runs/arm", *TINY)
    monkeypatch.chdir(tmp_path / "runs")
    assert "verdict.json" in gcl("verdict", "arm", "--demos", "../demos/arm.zarr")
    said = gcl("export", "--checkpoint", "arm", "--out", "arm.bundle")
    assert "gcl deploy arm.bundle --backend sim --robot ../arm --seconds 10" in said.replace("\n", " ")
    gcl("train", "--reward", "arm", "--robot", "../arm", "--out", "again", *TINY)
    assert "--robot ../arm" in gcl("export", "--checkpoint", "again")
