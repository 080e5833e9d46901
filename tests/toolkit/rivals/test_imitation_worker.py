"""The worker lives in the rival's environment: it may import nothing of ours, and nothing of ours may import it."""

import ast
import sys
from pathlib import Path

import numpy as np

from toolkit.rivals.comparison import COLUMNS

ROOT = Path(__file__).resolve().parents[3]
WORKER = ROOT / "toolkit" / "rivals" / "imitation_worker.py"
ITS_PACKAGES = {"dm_control", "gymnasium", "imitation", "mujoco", "numpy", "stable_baselines3", "torch"}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_worker_imports_only_what_its_environment_has() -> None:
    """The standard library and the packages in REQUIREMENTS."""
    tops = {name.split(".")[0] for name in imported(WORKER)}
    assert tops - set(sys.stdlib_module_names) == ITS_PACKAGES


def test_nothing_of_ours_imports_the_worker_or_the_rival() -> None:
    """Nothing of theirs is a dependency of ours."""
    for package in ("robots", "demos", "toolkit", "export"):
        for path in (ROOT / package).rglob("*.py"):
            if path != WORKER:
                found = {n for n in imported(path) if "imitation_worker" in n or n.split(".")[0] == "imitation"}
                assert not found, f"{path} imports {found}"


def test_worker_speaks_our_columns_and_transforms() -> None:
    """What it cannot import from us it repeats: the CSV's columns and the observation's transforms."""
    from robots.observation import _UFUNC

    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse(WORKER.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert tuple(ast.literal_eval(assigned["COLUMNS"])) == COLUMNS
    assert eval(ast.unparse(assigned["_UFUNC"]), {"np": np}) == _UFUNC
