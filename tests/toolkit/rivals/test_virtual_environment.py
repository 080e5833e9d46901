"""The rival's environment: pinned, made once, and refused when it was made of something else."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from toolkit.rivals import virtual_environment
from toolkit.rivals.shared_world import RivalError
from toolkit.rivals.virtual_environment import REQUIREMENTS, rival_python


def test_what_decides_the_outcome_is_pinned() -> None:
    """The rival itself and what its numbers depend on have one version each."""
    pins = {name: version for name, equals, version in (r.partition("==") for r in REQUIREMENTS) if equals}
    assert pins["imitation"] == "1.0.1"
    assert {"stable-baselines3", "gymnasium", "torch", "numpy", "mujoco", "dm-control"} <= set(pins)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run; each succeeds."""
    seen: list[list[str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append(words)
        Path(words[3] if "venv" in words else ".").mkdir(parents=True, exist_ok=True)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(virtual_environment.subprocess, "run", run)
    return seen


def test_made_once(tmp_path: Path, calls: list[list[str]]) -> None:
    """The first call makes the environment and installs every requirement; the second finds it."""
    folder = tmp_path / "imitation"
    assert rival_python(folder) == rival_python(folder) == folder / "bin" / "python"
    assert len(calls) == 2
    assert calls[1][:4] == [str(folder / "bin" / "python"), "-m", "pip", "install"]
    assert set(REQUIREMENTS) <= set(calls[1])


def test_other_requirements_are_refused(tmp_path: Path, calls: list[list[str]]) -> None:
    """An environment of last month's pins would give numbers of something else."""
    rival_python(tmp_path / "imitation")
    (tmp_path / "imitation" / "requirements.txt").write_text("imitation==0.4.0\n")
    with pytest.raises(RivalError, match="other requirements"):
        rival_python(tmp_path / "imitation")


def test_a_failed_installation_says_why_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's last words are shown, and no mark says that the environment is complete."""

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "No matching distribution")

    monkeypatch.setattr(virtual_environment.subprocess, "run", run)
    with pytest.raises(RivalError, match="No matching distribution"):
        rival_python(tmp_path)
    assert not (tmp_path / "requirements.txt").exists()
