from pathlib import Path

import numpy as np
import pytest

from demos.controller import Controller
from demos.operators import OperatorError, PolicyOperator
from robots import RobotSpec

OBSERVATION = np.arange(17, dtype=np.float32)

REMEMBERS = """
import numpy as np

class Counting:
    def __init__(self, spec):
        self.act_dim, self.calls = spec.act_dim, 0

    def reset(self):
        self.calls = 0

    def __call__(self, observation):
        self.calls += 1
        return np.full(self.act_dim, self.calls / 4 + observation[1])

make_act = Counting
"""


def written(tmp_path: Path, source: str) -> Path:
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    return tmp_path / "mine.py"


def test_acts_and_forgets(spec: RobotSpec, tmp_path: Path) -> None:
    """It sees the observation, knows the robot, and begins each episode anew."""
    operator = PolicyOperator(Controller(written(tmp_path, REMEMBERS), spec), "controller:mine.py")
    for seed in (0, 1):
        operator.reset(seed)
        assert [operator(OBSERVATION, t).tolist() for t in range(2)] == [[1.25] * spec.act_dim, [1.5] * spec.act_dim]


def test_what_modules_may_do(spec: RobotSpec, tmp_path: Path) -> None:
    """A dataclass with postponed annotations is looked up by its module, and a name like a library's hides none."""
    source = (
        "from __future__ import annotations\nimport dataclasses, json\n@dataclasses.dataclass\nclass Push:\n"
        "    size: float\n    def __call__(self, observation):\n        return json.loads(str([self.size] * 6))\n"
        "make_act = lambda spec: Push(0.5)"
    )
    (tmp_path / "json.py").write_text(source, encoding="utf-8")
    assert Controller(tmp_path / "json.py", spec)(OBSERVATION) == [0.5] * 6  # type: ignore[comparison-overlap]


def test_what_forgets_nothing_needs_no_reset(spec: RobotSpec, tmp_path: Path) -> None:
    """A plain function will do."""
    controller = Controller(written(tmp_path, "make_act = lambda spec: lambda observation: observation[:6]"), spec)
    controller.reset()
    assert controller(OBSERVATION).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", r"mine\.py: no make_act\(spec\)"),
        ("make_act = 3", r"mine\.py: no make_act\(spec\)"),
        ("make_act = lambda spec: 3", r"make_act\(spec\) gave 3; expected a function"),
        ("\nx = 1 +", r"mine\.py:2: SyntaxError"),
        ("import nothing_of_this_name", r"mine\.py:1: ModuleNotFoundError: .*nothing_of_this_name"),
        ("def make_act(spec):\n    return spec.no_such_field", r"mine\.py:2: AttributeError: .*no_such_field"),
    ],
)
def test_a_file_that_is_no_controller(spec: RobotSpec, tmp_path: Path, source: str, words: str) -> None:
    """The line says which file, which line of it, and what is wrong."""
    with pytest.raises(OperatorError, match=words):
        Controller(written(tmp_path, source), spec)


def test_lines_of_a_file_beside(spec: RobotSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named from where the user is, the file's lines are found too; those of another file are not taken for its own."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "\n\nmake_act = lambda spec: spec.no_such_field")
    with pytest.raises(OperatorError, match=r"^mine\.py:3: AttributeError"):
        Controller("mine.py", spec)
    written(tmp_path, "\nmake_act = lambda spec: compile('\\n\\n\\nx = 1 +', 'other.py', 'exec')")
    with pytest.raises(OperatorError, match=r"^mine\.py:2: SyntaxError"):
        Controller("mine.py", spec)


@pytest.mark.parametrize("name", ["absent.py", "mine.txt", "."])
def test_what_is_no_python_file(spec: RobotSpec, tmp_path: Path, name: str) -> None:
    """Refused, with what a controller is."""
    (tmp_path / "mine.txt").write_text("make_act = lambda spec: print")
    with pytest.raises(OperatorError, match="a controller is a Python file"):
        Controller(tmp_path / name, spec)


def test_a_mistake_while_acting(spec: RobotSpec, tmp_path: Path) -> None:
    """An exception in the middle of an episode is told by the line of the user's own file, wherever it was raised."""
    source = "import numpy as np\nact = lambda observation: np.zeros(3) + np.zeros(4)\nmake_act = lambda spec: act"
    with pytest.raises(OperatorError, match=r"mine\.py:2: ValueError: operands could not be broadcast"):
        Controller(written(tmp_path, source), spec)(OBSERVATION)
