from pathlib import Path

import numpy as np
import pytest

from demos.operators import OperatorError, PolicyOperator, RandomOperator, ScriptOperator, read_script, wave
from robots import RobotSpec

NOTHING = np.zeros(17, np.float32)


def run(operator: RandomOperator | PolicyOperator, seed: int, steps: int) -> np.ndarray:
    operator.reset(seed)
    return np.stack([operator(NOTHING, step) for step in range(steps)])


def test_random_is_decided_by_its_seed(spec: RobotSpec) -> None:
    """The same seed gives the same actions, another seed others, all within [-1, 1]."""
    operator = RandomOperator(spec)
    first, again, other = run(operator, 1, 50), run(operator, 1, 50), run(operator, 2, 50)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (50, spec.act_dim) and np.abs(first).max() <= 1.0


def test_smoothness_is_the_correlation_of_neighbours(spec: RobotSpec) -> None:
    """Without clipping, neighbouring actions would correlate by exactly the smoothness; with it, nearly so."""
    for smoothness in (0.0, 0.9):
        actions = run(RandomOperator(spec, smoothness), 0, 4000)
        correlation = np.corrcoef(actions[:-1].ravel(), actions[1:].ravel())[0, 1]
        assert abs(correlation - smoothness) < 0.05
    with pytest.raises(OperatorError, match="smoothness 1"):
        RandomOperator(spec, 1.0)


def test_script_plays_and_holds() -> None:
    """A script is played row by row, and its last row held."""
    operator = ScriptOperator(np.array([[0.1], [0.2]]))
    assert [operator(NOTHING, step)[0] for step in range(4)] == [0.1, 0.2, 0.2, 0.2]


def test_wave_swings_each_actuator(spec: RobotSpec) -> None:
    """The wave repeats after its period, within its amplitude, each actuator at another phase."""
    actions = wave(spec, 201, amplitude=0.5, hz=1.0)
    assert np.allclose(actions[:100], actions[100:200]) and np.isclose(np.abs(actions).max(), 0.5, atol=1e-3)
    assert len(np.unique(actions[0].round(6))) > 2


def test_policy_with_and_without_noise() -> None:
    """A policy is followed exactly, or with noise of the given spread that the seed decides."""
    plain = PolicyOperator(lambda observation: observation[:2] + 0.5, "mine")
    assert plain(NOTHING, 0).tolist() == [0.5, 0.5] and plain.name == "mine"
    noisy = PolicyOperator(lambda observation: np.zeros(2), "mine", noise=0.1)
    actions = run(noisy, 1, 2000)
    assert np.array_equal(actions, run(noisy, 1, 2000)) and abs(actions.std() - 0.1) < 0.01
    assert noisy.name == "mine noise 0.1"
    for noise in (-1.0, float("nan"), float("inf")):
        with pytest.raises(OperatorError, match=f"noise {noise}"):
            PolicyOperator(lambda observation: observation, "mine", noise=noise)


def test_scripts_from_files(spec: RobotSpec, tmp_path: Path) -> None:
    """The same motion is read from .npy, from .csv with its columns in any order, and from keyframes."""
    ramp = np.zeros((11, 6))
    ramp[:, 1], ramp[:, 4] = np.linspace(0, 1, 11), np.linspace(0, -0.5, 11)
    np.save(tmp_path / "a.npy", ramp)
    order = [4, 0, 5, 1, 3, 2]
    header = ", ".join(spec.action_names[i] for i in order)
    np.savetxt(tmp_path / "a.csv", ramp[:, order], delimiter=",", header=header, comments="", fmt="%.17g")
    (tmp_path / "a.yaml").write_text(
        "- {time: 0.0, action: {}}\n- {time: 0.05, action: {bshin: 0.5, fshin: -0.25}}\n"
        "- {time: 0.1, action: {bshin: 1, fshin: -0.5}}\n"
    )
    for name in ("a.npy", "a.csv", "a.yaml"):
        assert np.allclose(read_script(tmp_path / name, spec), ramp, atol=1e-12), name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "a script is one of .npy, .csv, .yaml, .yml"),
        ("a.npy", "nonsense", "not readable as a script"),
        ("a.npy", "", "not readable as a script: No data left in file"),
        ("a.npy", "PK\x03\x04 and no more", "not readable as a script"),
        ("a.csv", "bthigh,bshin,bfoot,fthigh,fshin,ffoot\n0,0\n", "rows of 2 numbers under 6 columns"),
        ("a.yaml", "[{time: 1.0e+14, action: {}}]", "not readable as a script: Unable to allocate"),
        ("a.yaml", "[" * 3000, "not readable as a script"),
        ("a.csv", "a,b\n1,2\n", "columns a, b; cheetah has bthigh"),
        (
            "a.csv",
            "bthigh,bshin,bfoot,fthigh,fshin,ffoot\n0,0,0,2,0,0\n",
            "action 2 of fthigh at step 0; legal is -1 to 1",
        ),
        ("a.csv", "bthigh,bshin,bfoot,fthigh,fshin,ffoot\n0,0,0,nan,0,0\n", "action nan of fthigh"),
        ("a.csv", "bthigh,bshin,bfoot,fthigh,fshin,ffoot\n0,0,x,0,0,0\n", "not readable as a script"),
        ("a.yaml", "[", "not readable as a script"),
        ("a.yaml", "{}", "expected a list of keyframes"),
        ("a.yaml", "[{time: 0}]", "keyframe 0 needs the keys time and action"),
        ("a.yaml", "[{time: 0, action: {knee: 1}}]", "keyframe 0 moves 'knee'; legal are bthigh"),
        ("a.yaml", "[{time: 0, action: {bthigh: high}}]", "keyframe 0 has 'high' where a finite number belongs"),
        ("a.yaml", "[{time: 1, action: {}}, {time: 1, action: {}}]", "times must increase"),
    ],
)
def test_bad_scripts(spec: RobotSpec, tmp_path: Path, name: str, content: str, words: str) -> None:
    """A script that cannot be played is refused in one line that says why."""
    (tmp_path / name).write_text(content)
    with pytest.raises(OperatorError) as caught:
        read_script(tmp_path / name, spec)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 6), complex), "complex128 where one array of numbers belongs"),
        (np.full((3, 6), "a"), "<U1 where one array"),
        (np.zeros(3, [("a", float), ("b", float)]), "where one array of numbers belongs"),
        (None, "several arrays where one array of numbers belongs"),
    ],
)
def test_an_array_of_no_numbers(spec: RobotSpec, tmp_path: Path, array: np.ndarray | None, words: str) -> None:
    """Whole files that hold something else, or more than one array, are refused by what they hold."""
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, a=np.zeros((3, 6))) if array is None else np.save(file, array)
    with pytest.raises(OperatorError, match=words):
        read_script(tmp_path / "a.npy", spec)


def test_a_header_of_no_array(spec: RobotSpec, tmp_path: Path) -> None:
    """A header that is cut off, and one that asks for more memory than there is."""
    for text in ("{'descr': '<f8', 'shape': (3", "{'descr': '<f8', 'fortran_order': False, 'shape': (10**14, 6), }\n"):
        header = text.replace("10**14", str(10**14)).encode()
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(OperatorError, match="not readable as a script"):
            read_script(tmp_path / "a.npy", spec)


def test_a_missing_or_wrong_table(spec: RobotSpec, tmp_path: Path) -> None:
    """No file, and a table of another robot's width, are refused."""
    with pytest.raises(OperatorError, match="No such file"):
        read_script(tmp_path / "a.npy", spec)
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(OperatorError, match=r"shape \(3, 4\); cheetah takes \(steps, 6\)"):
        read_script(tmp_path / "a.npy", spec)
