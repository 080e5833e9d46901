"""Where the model file of a robot of one's own lies, for what is made of the robot and found again later."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from robots.spec import RobotSpec


def model_place(spec: RobotSpec, folder: Path) -> str | None:
    """The way from a folder to the robot's model, for the record.

    It is a relative one, so that what lies together may be moved together, and tells little of this machine.

    Args:
        spec: The robot.
        folder: Of what is made: a demo store, a run.

    Returns:
        The way with forward slashes; None where a library has the model, or nobody knows where it lies.
    """
    if ":" in spec.mjcf or spec.directory is None:
        return None
    return Path(os.path.relpath(spec.directory, folder.resolve())).as_posix()


def at_place(spec: RobotSpec, place: object, folder: Path) -> RobotSpec:
    """The robot with the directory of its model file.

    Args:
        spec: The robot as it was stored.
        place: What `model_place` said then; anything but text says nothing.
        folder: Of what was made.

    Returns:
        The robot; without a directory if its model file is not there any more.
    """
    directory = (folder / place).resolve() if isinstance(place, str) else None
    if directory is None or not (directory / spec.mjcf).is_file():
        return spec
    return dataclasses.replace(spec, directory=directory)
