"""`gcl keys`: from a new key to a bundle that a robot trusts, and one line for each mistake."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export.signature import SIGNATURE_NAME
from toolkit import cli

OLD = Path(__file__).parents[2] / "export" / "format-1.bundle"  # any bundle will do


def gcl(*words: str | Path) -> Result:
    """Runs `gcl` in this process."""
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle to sign."""
    return Path(shutil.copytree(OLD, tmp_path / "arm.bundle"))


def test_new_sign_check(bundle: Path, tmp_path: Path) -> None:
    """The whole way, and again in JSON; the same key id all along."""
    made = gcl("keys", "new", tmp_path / "mine", "--json")
    key_id = json.loads(made.stdout)["key_id"]
    assert made.exit_code == 0 and len(key_id) == 64
    signed = gcl("keys", "sign", bundle, "--key", tmp_path / "mine.key")
    assert signed.exit_code == 0 and key_id[:12] in signed.stdout and (bundle / SIGNATURE_NAME).is_file()
    checked = gcl("keys", "check", bundle, "--trusted", tmp_path / "mine.pub")
    assert checked.exit_code == 0 and "whole, for arm" in checked.stdout and key_id[:12] in checked.stdout
    again = gcl("keys", "check", bundle, "--trusted", tmp_path / "mine.pub", "--json")
    assert json.loads(again.stdout)["key_id"] == key_id


def test_mistakes_are_one_line(bundle: Path, tmp_path: Path) -> None:
    """A key that is there, an unsigned bundle, and the wrong half of a key: exit code 2 and why."""
    assert gcl("keys", "new", tmp_path / "mine").exit_code == 0
    for words, why in (
        (("new", tmp_path / "mine"), "never overwritten"),
        (("check", bundle, "--trusted", tmp_path / "mine.pub"), "unsigned"),
        (("sign", bundle, "--key", tmp_path / "mine.pub"), "cannot sign"),
        (("sign", tmp_path, "--key", tmp_path / "mine.key"), "not a bundle"),
    ):
        result = gcl("keys", *words)
        assert result.exit_code == 2 and why in result.stderr and result.stderr.count("\n") == 1


def test_without_the_extra_it_says_which(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cryptography is not installed, the message names the extra that brings it."""
    import builtins

    real = builtins.__import__

    def absent(name: str, *rest: object, **more: object) -> object:
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError("not installed", name="cryptography")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    result = gcl("keys", "new", tmp_path / "mine")
    assert result.exit_code == 2 and "gcl-toolkit[sign]" in result.stderr
