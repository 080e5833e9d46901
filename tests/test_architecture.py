"""The house rules: imports point one way, the robot's side stays light, and the learner never sees the true reward."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("robots", "demos", "toolkit", "export")

ALLOWED = {
    "robots": {"robots"},
    "demos": {"demos", "robots"},
    "export": {"export", "robots"},
    "toolkit": {"toolkit", "robots", "demos", "export"},
}
SIMULATORS = {"mujoco", "dm_control", "dm_env"}
LEARNING = {"torch", "onnx", "onnxscript"}
HEAVY = {"torch", "mujoco", "dm_control", "zarr"}  # what the robot must do without
# What needs a simulator or torch; every other file of robots/ and export/ runs on the robot
OFF_ROBOT = {
    f"robots/{name}.py"
    for name in (
        "batch",
        "channels",
        "endless_joints",
        "model",
        "model_source",
        "randomize",
        "reset",
        "sensing",
        "sim",
        "stretch",
        "task",
        "tool_pose",
    )
} | {f"export/{name}.py" for name in ("parity_samples", "reference_check", "to_onnx", "to_variants")}
# What an extra brings; where the extra is not installed, its drivers are not imported
EXTRAS = {"cyclonedds": {f"robots/{name}.py" for name in ("ros2_inbox", "ros2_messages", "ros2_node")}}
# Who may know the true reward: what measures or films a policy, and the verbs, which hand it to the making of experts
SEES_TRUE_REWARD = (
    "robots/task.py",
    "toolkit/correlation.py",
    "toolkit/evaluate.py",
    "toolkit/video.py",
    "toolkit/rivals/shared_world.py",  # its probe, by which a rival's world is checked
    "toolkit/commands/",
)
LEARNER = tuple(f"demos/{name}.py" for name in ("agreement", "idle", "quality", "segments")) + tuple(
    f"toolkit/{name}.py"
    for name in (
        "background",
        "clipped_entropy",
        "critic",
        "evidence",
        "expert_segments",
        "frozen_reward",
        "given_reward",
        "held_out",
        "judgement",
        "losses",
        "maxent",
        "memory",
        "networks",
        "normalizer",
        "offline",
        "overlap",
        "policy_mixture",
        "ppo",
        "replay",
        "reward_learner",
        "rollout",
        "sac",
        "scored_segments",
        "segment_reward",
        "strictest_reward",
        "trail",
        "trainer",
        "verdict",
        "warm_start",
        "whole_segments",
    )
)
TRUE_REWARDS = {"rewards", "return_"}  # the fields of an Episode that hold them

FILE_LINES = 350
FUNCTION_LINES = 60
PARAMETERS = 8
FORBIDDEN_WORDS = {"utils", "util", "common", "misc", "helpers", "helper", "base", "manager", "factory"}
THIRD_PARTY = {"torch", "mujoco", "dm_control", "zarr", "onnx", "onnxruntime", "numpy", "click", "rich", "yaml"}


def source_files() -> list[str]:
    """Every file of the four packages, as a path from the root."""
    return sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def robot_side() -> list[str]:
    """Every file that runs on the robot."""
    return [file for file in source_files() if file.startswith(("robots/", "export/")) and file not in OFF_ROBOT]


@cache
def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), filename=file)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that is imported, inside functions too.

    `from a import b` gives both "a" and "a.b", since b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def wrong_arrows(file: str, tree: ast.AST) -> list[str]:
    """Imports that the table in DESIGN does not allow to this file."""
    package = file.split("/")[0]
    faults = []
    for line, name in imports(tree):
        top = name.split(".")[0]
        if name.startswith("."):
            faults.append(f"{file}:{line}: relative import {name!r}; write the absolute name")
        elif top in PACKAGES and top not in ALLOWED[package]:
            faults.append(f"{file}:{line}: {package} may not import {name}; allowed are {sorted(ALLOWED[package])}")
        elif top == "tests":
            faults.append(f"{file}:{line}: nothing imports tests")
        elif package == "demos" and top in LEARNING:
            faults.append(f"{file}:{line}: demos may not import {name}: it records on machines without it")
        elif package == "export" and file not in OFF_ROBOT and top in LEARNING | SIMULATORS | {"zarr"}:
            faults.append(f"{file}:{line}: export may not import {name}: only {sorted(OFF_ROBOT)} run off the robot")
        elif package == "robots" and top in LEARNING | {"zarr"}:
            faults.append(f"{file}:{line}: robots may not import {name}: a robot neither learns nor records")
    return faults


def weight_faults(file: str, tree: ast.AST) -> list[str]:
    """Files and functions that have grown past the limits, and names that say nothing."""
    faults = []
    lines = (ROOT / file).read_text(encoding="utf-8").count("\n") if (ROOT / file).exists() else 0
    if lines > FILE_LINES:
        faults.append(f"{file}: {lines} lines; at most {FILE_LINES}: which second idea does it hold?")
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                faults.append(f"{file}:{node.lineno}: {node.name} has {length} lines; at most {FUNCTION_LINES}")
            if not _is_click_command(node):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([arg for arg in given if arg.arg not in ("self", "cls")])
                if count > PARAMETERS:
                    faults.append(f"{file}:{node.lineno}: {node.name} takes {count} parameters; at most {PARAMETERS}")
    words = set(Path(file).stem.split("_"))
    if words & FORBIDDEN_WORDS:
        faults.append(f"{file}: a name with {sorted(words & FORBIDDEN_WORDS)} does not say what is inside")
    if Path(file).stem in (THIRD_PARTY | set(sys.stdlib_module_names)) - {"__init__", "__main__"}:
        faults.append(f"{file}: the name of a module that everybody knows as something else")
    return faults


def _is_click_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    # A verb's parameters are its options: as many as the user may set, and nobody calls it by position.
    names = (ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list)
    return any(name.endswith((".command", ".group")) for name in names)


def reward_peeks(file: str, tree: ast.AST) -> list[str]:
    """Places where the true reward could reach what learns."""
    allowed = any(file == entry or (entry.endswith("/") and file.startswith(entry)) for entry in SEES_TRUE_REWARD)
    faults = []
    for line, name in imports(tree):
        if not allowed and (name == "robots.task" or name.startswith("robots.task.")):
            faults.append(f"{file}:{line}: imports {name}; the true reward is only for {', '.join(SEES_TRUE_REWARD)}")
        if file in LEARNER and name.startswith(("toolkit.correlation", "toolkit.evaluate", "toolkit.video")):
            faults.append(f"{file}:{line}: the learner imports {name}, which knows the true reward")
    if file in LEARNER:
        for node in ast.walk(tree):
            if (isinstance(node, ast.Attribute) and node.attr in TRUE_REWARDS) or (
                isinstance(node, ast.Constant) and node.value in TRUE_REWARDS
            ):
                faults.append(f"{file}:{node.lineno}: reads an episode's true rewards, which are for reports only")
    return faults


@pytest.mark.parametrize("file", source_files())
def test_imports_point_one_way(file: str) -> None:
    """Each file imports only what its folder may, at the top or inside a function."""
    assert wrong_arrows(file, parsed(file)) == []


@pytest.mark.parametrize("file", robot_side())
def test_robot_side_file_imports_nothing_heavy(file: str) -> None:
    """A file that runs on the robot names no learning, simulator or store package."""
    heavy = [f"{file}:{line}: {name}" for line, name in imports(parsed(file)) if name.split(".")[0] in HEAVY]
    assert heavy == []


def test_robot_side_brings_nothing_heavy_along() -> None:
    """Importing all of the robot's side in a fresh interpreter loads none of torch, mujoco, dm_control, zarr."""
    absent = {file for name, files in EXTRAS.items() if importlib.util.find_spec(name) is None for file in files}
    files = [file for file in robot_side() if file not in absent]
    modules = [file.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for file in files]
    code = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        f"    found = sorted({HEAVY!r} & set(sys.modules))\n"
        "    assert not found, f'{module} brings {found}'\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_this_checkout(package: str) -> None:
    """The name imports this checkout's folder, not a namesake installed beside it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / package / "__init__.py"


@pytest.mark.parametrize("file", source_files())
def test_size_and_names(file: str) -> None:
    """A file holds one idea under a name that says which, and no function outgrows a screen."""
    assert weight_faults(file, parsed(file)) == []


@pytest.mark.parametrize("file", source_files())
def test_learner_never_sees_the_true_reward(file: str) -> None:
    """The task's reward reaches evaluation and the making of experts, and nothing that learns from demonstrations."""
    assert reward_peeks(file, parsed(file)) == []


def test_named_files_exist() -> None:
    """The lists above name real files, so that a renamed one does not slip out of a check."""
    named = [*OFF_ROBOT, *LEARNER, *SEES_TRUE_REWARD, *(file for files in EXTRAS.values() for file in files)]
    assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize(
    ("file", "source", "word"),
    [
        ("robots/x.py", "def f():\n    import demos.store", "may not import demos.store"),
        ("demos/x.py", "from toolkit import losses", "may not import toolkit"),
        ("export/x.py", "from . import bundle", "relative"),
        ("export/x.py", "import importlib\nimportlib.import_module('torch')", "may not import torch"),
        ("toolkit/x.py", "from tests import conftest", "nothing imports tests"),
    ],
)
def test_a_wrong_import_is_seen(file: str, source: str, word: str) -> None:
    """Each kind of wrong arrow is reported, so a clean tree means something."""
    assert any(word in fault for fault in wrong_arrows(file, ast.parse(source)))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("toolkit/trainer.py", "from robots.task import TaskReward"),
        ("toolkit/trainer.py", "from robots import task"),
        ("toolkit/ppo.py", "def f(episode):\n    return episode.rewards"),
        ("toolkit/held_out.py", "def f(episode):\n    return episode.return_"),
        ("toolkit/losses.py", "def f(episode):\n    return getattr(episode, 'rewards')"),
        ("toolkit/rollout.py", "def f():\n    from toolkit.evaluate import evaluate"),
    ],
)
def test_a_peek_at_the_reward_is_seen(file: str, source: str) -> None:
    """Each way to the true reward is reported, so a clean learner means something."""
    assert reward_peeks(file, ast.parse(source)) != []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("robots/sensor_utils.py", ""),
        ("toolkit/logging.py", ""),
        ("toolkit/x.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES),
        ("toolkit/x.py", f"def f({', '.join(f'a{i}' for i in range(PARAMETERS + 1))}): ..."),
    ],
)
def test_an_overgrown_or_nameless_file_is_seen(file: str, source: str) -> None:
    """Each limit is reported when it is passed."""
    assert weight_faults(file, ast.parse(source)) != []
