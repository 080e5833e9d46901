"""docs/bundle.md is kept true: its lone-policy example runs, and what it names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from export.manifest import FILE_NAMES, VARIANTS, variant_file
from export.metadata import CONTRACT_KEY, policy_metadata
from robots.spec import RobotSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")


def test_the_example_drives_a_lone_policy(pristine: Path, tmp_path: Path, arm: RobotSpec) -> None:
    """Run beside a policy.onnx, with nothing of this toolkit, it prints a command within limits for each drive."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "policy.onnx").write_bytes((pristine / "policy.onnx").read_bytes())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in process.stdout.splitlines()]
    assert [name for name, _, _ in lines] == list(arm.action_names)
    assert all(term.lower <= float(line[1]) <= term.upper for term, line in zip(arm.action, lines, strict=True))


@pytest.mark.parametrize("name", [*FILE_NAMES, *map(variant_file, VARIANTS), CONTRACT_KEY])
def test_every_file_is_explained(name: str) -> None:
    """What can lie in a bundle is on the page."""
    assert f"`{name}`" in PAGE


def test_every_metadata_key_is_explained(arm: RobotSpec) -> None:
    """What a lone file says of itself is on the page."""
    assert [key for key in policy_metadata(arm, {}) if f"`{key}`" not in PAGE] == []
