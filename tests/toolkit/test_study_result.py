"""Results survive the way through a file, and damaged ones are no results."""

from pathlib import Path

from toolkit.study_result import RESULT_FILE, Result, commit, load_result, machine, save_result

RESULT = Result(
    study="reach", name="segment", robot="cheetah", seed=0, commands=("gcl train",), commit="abc", machine=machine(),
    date="2026-01-02T03:04:05Z", demos="d.zarr", demos_sha256="s", demos_mean=500.0,
    curve=({"seconds": 1.0, "mean": 100.0}, {"seconds": 2.0, "mean": 460.0}, {"seconds": 3.0, "mean": 400.0}),
)  # fmt: skip


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    """Every field comes back, and no half-written file stays."""
    save_result(tmp_path, RESULT)
    assert load_result(tmp_path) == RESULT
    assert [path.name for path in tmp_path.iterdir()] == [RESULT_FILE]


def test_no_or_damaged_result_is_none(tmp_path: Path) -> None:
    """A missing file, a torn one, and one with other fields: the job has to be run."""
    assert load_result(tmp_path) is None
    for text in ('{"study": "reach"', '{"study": "reach"}', "null", '{"colour": "blue"}'):
        (tmp_path / RESULT_FILE).write_text(text)
        assert load_result(tmp_path) is None


def test_first_second_is_that_of_the_first_evaluation_to_reach_it() -> None:
    """What comes after does not count, and what was never reached is None."""
    assert RESULT.first_second(0.9) == 2.0
    assert RESULT.first_second(0.1) == 1.0
    assert RESULT.first_second(0.95) is None


def test_machine_and_commit_are_known() -> None:
    """There is always something to name a figure's origin by."""
    assert machine()["cores"] >= 1 and machine()["cpu"]
    assert commit()
