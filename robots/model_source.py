"""Where a robot's model file comes from: a path, dm_control's suite or manipulation, or the menagerie."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mujoco

from robots.channels import did_you_mean
from robots.spec import RobotSpec, RobotSpecError

_log = logging.getLogger(__name__)

if "DISPLAY" not in os.environ:
    # dm_control looks for a screen when it is imported and complains where there is none; nothing in here draws.
    os.environ.setdefault("MUJOCO_GL", "disable")


def log_physics_warnings() -> None:
    """Sends MuJoCo's warnings to Python's log, level debug, and drops dm_control's, for all of the process.

    Left alone, MuJoCo appends to a MUJOCO_LOG.TXT in the current folder, and dm_control prints a line for each; what
    they say (a diverged environment) `BatchSim` and the backends detect and report themselves. dm_control's own are of
    beginnings that it draws again.
    """
    mujoco.set_mju_user_warning(_log_warning)
    logging.getLogger("absl").setLevel(logging.ERROR)


def _log_warning(message: str) -> None:
    _log.debug("%s", message)


def one_line(error: Exception) -> str:
    """A library's message without its line breaks."""
    return " ".join(str(error).split())


def load_model_source(spec: RobotSpec) -> mujoco.MjSpec:
    """Finds and parses what `spec.mjcf` names.

    Args:
        spec: The robot.

    Returns:
        The parsed model, not compiled, with nothing added.

    Raises:
        RobotSpecError: Not there, or not a model.
    """
    kind, separator, name = spec.mjcf.partition(":")
    try:
        if separator and kind == "dm_control.suite":
            return _from_suite(name, spec.task)
        if separator and kind == "dm_control.manipulation":
            return _from_manipulation(name)
        if separator and kind == "menagerie":
            return _from_menagerie(name)
        path = (spec.directory or Path.cwd()) / spec.mjcf
        if not path.is_file():
            raise RobotSpecError(
                f"no model file {path}; mjcf is a path beside robot.yaml, dm_control.suite:<domain>, "
                "dm_control.manipulation:<name> or menagerie:<name>; --robot says where a robot of one's own is"
            )
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise RobotSpecError(f"{spec.mjcf}: not a readable model: {one_line(error)}") from error


def _from_suite(domain: str, task: str | None) -> mujoco.MjSpec:
    from dm_control import suite

    log_physics_warnings()
    if domain not in suite._DOMAINS:
        raise RobotSpecError(
            f"dm_control's suite has no domain {domain!r}{did_you_mean(domain, suite._DOMAINS)}; "
            f"it has {', '.join(sorted(suite._DOMAINS))}"
        )
    names = [name for candidate, name in suite.ALL_TASKS if candidate == domain]
    wanted = (task or "").rpartition("/")[2]
    # Some domains build another model for each task, so the model is the one that the task is built with.
    with _recorded_xml() as recorded:
        suite.load(domain, wanted if wanted in names else names[0])
    xml, assets = recorded[-1]
    return _from_string(xml, assets)


def _from_manipulation(name: str) -> mujoco.MjSpec:
    from dm_control import manipulation

    if name not in manipulation.ALL:
        raise RobotSpecError(
            f"dm_control's manipulation has no {name!r}{did_you_mean(name, manipulation.ALL)}; "
            f"it has {', '.join(sorted(manipulation.ALL))}"
        )
    root = manipulation.load(name).task.root_entity.mjcf_model
    return _from_string(root.to_xml_string(), root.get_assets())


def _from_menagerie(name: str) -> mujoco.MjSpec:
    try:
        import mujoco_menagerie  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise RobotSpecError(
            f"menagerie:{name} needs the package mujoco-menagerie, which is not installed; "
            "or give the path of the MJCF itself"
        ) from error
    try:
        # The robot's own scene: floor and light included. Found under MENAGERIE_ROOT, or downloaded on first use.
        return mujoco_menagerie.get(name).spec()
    except mujoco_menagerie.MenagerieError as error:
        raise RobotSpecError(f"menagerie:{name}: {one_line(error)}") from error


def _from_string(xml: str | bytes, assets: dict[str, Any] | None) -> mujoco.MjSpec:
    text = xml.decode() if isinstance(xml, bytes) else xml
    # dm_control writes "./common/x.xml"; MjSpec looks the file up as "common/x.xml".
    files = {posixpath.normpath(key): value for key, value in (assets or {}).items()}
    included = {key: value for key, value in files.items() if key.endswith(".xml")}
    return mujoco.MjSpec.from_string(text, include=included, assets=files)


@contextmanager
def _recorded_xml() -> Iterator[list[tuple[str | bytes, dict[str, Any] | None]]]:
    """Notes the XML and assets that dm_control compiles inside the block; there is no other way to ask for them."""
    from dm_control.mujoco import Physics

    recorded: list[tuple[str | bytes, dict[str, Any] | None]] = []
    original = Physics.__dict__["from_xml_string"]

    def record(cls: Any, xml_string: str | bytes, assets: dict[str, Any] | None = None) -> Any:
        recorded.append((xml_string, assets))
        return original.__func__(cls, xml_string, assets)

    Physics.from_xml_string = classmethod(record)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield recorded
    finally:
        Physics.from_xml_string = original
