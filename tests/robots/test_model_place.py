"""The model of a robot of one's own is found from what was made of it, as long as they lie as they lay."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from robots.model_place import at_place, model_place
from robots.robot_yaml import load_robot
from robots.spec import RobotSpec

SHIPPED = load_robot("cartpole")


@pytest.fixture
def arm(tmp_path: Path) -> RobotSpec:
    """A robot whose model lies in a folder of its own."""
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm" / "arm.xml").write_text("<mujoco/>")
    return dataclasses.replace(SHIPPED, mjcf="arm.xml", directory=tmp_path / "arm")


def test_there_and_back(arm: RobotSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder that is not there yet, named from wherever the user is; what is stored names no place of his."""
    monkeypatch.chdir(tmp_path)
    place = model_place(arm, Path("runs/first"))
    assert place == "../../arm"
    stored = dataclasses.replace(arm, directory=None)
    assert at_place(stored, place, Path("runs/first")).directory == arm.directory
    monkeypatch.chdir(tmp_path / "arm")
    assert at_place(stored, place, tmp_path / "runs" / "first").directory == arm.directory


def test_moved_together_it_is_found_and_moved_alone_it_is_not(arm: RobotSpec, tmp_path: Path) -> None:
    """A repository may be cloned elsewhere; a folder without the model is no better than none."""
    stored, place = dataclasses.replace(arm, directory=None), model_place(arm, tmp_path / "run")
    shutil.copytree(tmp_path / "arm", tmp_path / "elsewhere" / "arm")
    assert at_place(stored, place, tmp_path / "elsewhere" / "run").directory == tmp_path / "elsewhere" / "arm"
    (tmp_path / "elsewhere" / "arm" / "arm.xml").unlink()
    assert at_place(stored, place, tmp_path / "elsewhere" / "run").directory is None


@pytest.mark.parametrize("place", [None, 3, ["arm"]])
def test_what_is_no_place_says_nothing(arm: RobotSpec, place: object, tmp_path: Path) -> None:
    """Stores from before there was one, and whatever else came."""
    stored = dataclasses.replace(arm, directory=None)
    assert at_place(stored, place, tmp_path) is stored


def test_what_a_library_has_needs_no_place(tmp_path: Path) -> None:
    """dm_control's models are where dm_control is; of a robot without a directory nobody knows."""
    assert model_place(SHIPPED, tmp_path) is None
    assert model_place(dataclasses.replace(SHIPPED, mjcf="arm.xml", directory=None), tmp_path) is None
