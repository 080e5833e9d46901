"""From a robot description to a compiled MuJoCo model: where the model comes from, what is added to it, what is checked."""

from __future__ import annotations

import logging
import posixpath
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robots.channels import ChannelMap, ControlMap, did_you_mean, element_id
from robots.spec import AddedSensor, RobotSpec, RobotSpecError

_log = logging.getLogger(__name__)
_STEP_TOLERANCE = 1e-8  # relative; a control_dt of 0.02 must pass for 4 steps of 0.005
# Which element owns a row of an MjModel field, by the field's first word
_OWNER = {
    "body": "body", "jnt": "joint", "dof": "joint", "geom": "geom", "site": "site", "actuator": "actuator",
    "tendon": "tendon", "sensor": "sensor", "cam": "camera",
}  # fmt: skip


def compile_model(spec: RobotSpec) -> mujoco.MjModel:
    """Compiles a robot's model and checks that everything the spec names is in it.

    Args:
        spec: The robot.

    Returns:
        The model, with the sensors and overrides of the spec.

    Raises:
        RobotSpecError: The model cannot be found or compiled, or lacks something that the spec names.
    """
    model = compile_source(spec)
    for field, name, values in spec.overrides:
        _override(model, field, name, values)
    substeps(spec, model)
    ChannelMap(spec, model)
    ControlMap(spec, model)
    joints = {
        "default_pose": [name for name, _ in spec.default_pose],
        "joint_limits": [limit.joint for limit in spec.joint_limits],
        "reset.joint_pos": [name for name, _ in spec.reset.joint_pos],
        "reset.joint_vel": [name for name, _ in spec.reset.joint_vel],
    }
    for where, names in joints.items():
        for name in names:
            element_id(model, "joint", name, where)
    for placement in spec.reset.world:
        field_row(model, placement.field, placement.name, "reset.world")
    return model


def compile_source(spec: RobotSpec) -> mujoco.MjModel:
    """Compiles the model file with the sensors that the spec adds, and nothing else changed.

    Args:
        spec: The robot.

    Returns:
        The model.

    Raises:
        RobotSpecError: Not found, not compilable, or an added sensor names something the model lacks.
    """
    with warnings.catch_warnings():
        # Deprecations inside somebody else's model file: nothing the user could act on.
        warnings.simplefilter("ignore")
        source = _load_source(spec)
        log_physics_warnings()
        return _compile(spec, source)


def log_physics_warnings() -> None:
    """Sends MuJoCo's warnings to Python's log, level debug, for all of the process.

    Left alone, MuJoCo appends to a MUJOCO_LOG.TXT in the current folder, and dm_control prints a line for each; what
    they say (a diverged environment) `BatchSim` and the backends detect and report themselves.
    """
    mujoco.set_mju_user_warning(_log_warning)


def _log_warning(message: str) -> None:
    _log.debug("%s", message)


def _compile(spec: RobotSpec, source: mujoco.MjSpec) -> mujoco.MjModel:
    try:
        if spec.sensors:
            bare = source.compile()
            for sensor in spec.sensors:
                source.add_sensor(**sensor_arguments(bare, sensor))
        return source.compile()
    except ValueError as error:
        raise RobotSpecError(f"{spec.mjcf}: does not compile: {_one_line(error)}") from error


def substeps(spec: RobotSpec, model: mujoco.MjModel) -> int:
    """Physics steps in one control step.

    Args:
        spec: The robot.
        model: Its model.

    Returns:
        The number, at least 1.

    Raises:
        RobotSpecError: `control_dt` is not a multiple of the model's physics step.
    """
    ratio = spec.control_dt / model.opt.timestep
    steps = round(ratio)
    if steps < 1 or abs(ratio - steps) > _STEP_TOLERANCE * ratio:
        raise RobotSpecError(
            f"control_dt {spec.control_dt:g} s is not a multiple of the model's physics step {model.opt.timestep:g} s"
        )
    return steps


def field_row(model: mujoco.MjModel, field: str, name: str, where: str) -> np.ndarray:
    """The row (or rows) of an MjModel field that belong to a named element, as a writable view.

    Args:
        model: The model.
        field: Such as "geom_pos", "dof_damping", "jnt_range".
        name: The element, by the name its kind has in the model; a joint for `dof_` fields.
        where: What asked, for the error message.

    Returns:
        A view into the model, flat.

    Raises:
        RobotSpecError: No such field, or no such element.
    """
    owner = _OWNER.get(field.split("_")[0])
    array = getattr(model, field, None) if owner else None
    if owner is None or not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        legal = sorted(f for f in dir(model) if f.split("_")[0] in _OWNER and _is_float_field(model, f))
        raise RobotSpecError(
            f"{where}: no model field {field!r}{did_you_mean(field, legal)}; "
            "fields are MjModel's numbers of bodies, joints, dofs, geoms, sites, actuators, tendons, sensors, cameras"
        )
    row = element_id(model, owner, name, f"{where}.{field}")
    if field.startswith("dof_"):
        first = model.jnt_dofadr[row]
        after = model.jnt_dofadr[row + 1] if row + 1 < model.njnt else model.nv
        return array[first:after].reshape(-1)
    return array[row : row + 1].reshape(-1)


def sensor_arguments(model: mujoco.MjModel, sensor: AddedSensor) -> dict[str, Any]:
    """What `MjSpec.add_sensor` takes for a sensor of the spec.

    Args:
        model: The model without added sensors, to check names against.
        sensor: The sensor to add.

    Returns:
        Keyword arguments.

    Raises:
        RobotSpecError: An unknown sensor or object type, or an object that the model lacks.
    """
    where = f"sensors {sensor.name!r}"
    types = {name.removeprefix("mjSENS_").lower(): value for name, value in mujoco.mjtSensor.__members__.items()}
    if sensor.type not in types:
        raise RobotSpecError(
            f"{where}: type {sensor.type!r}{did_you_mean(sensor.type, types)}; legal are {', '.join(types)}"
        )
    arguments: dict[str, Any] = {"name": sensor.name, "type": types[sensor.type]}
    for prefix, kind, name in (
        ("obj", sensor.object_type, sensor.object_name),
        ("ref", sensor.reference_type, sensor.reference_name),
    ):
        if (kind is None) != (name is None):
            raise RobotSpecError(f"{where}: needs both of {prefix} type and name, or neither")
        if kind is None or name is None:
            continue
        legal = ("body", "xbody", "geom", "site", "joint", "actuator", "tendon", "camera")
        if kind not in legal:
            raise RobotSpecError(f"{where}: object type {kind!r}; legal are {', '.join(legal)}")
        element_id(model, kind, name, where)
        arguments[f"{prefix}type"] = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
        arguments[f"{prefix}name"] = name
    return arguments


def _load_source(spec: RobotSpec) -> mujoco.MjSpec:
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
                "dm_control.manipulation:<name> or menagerie:<name>"
            )
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise RobotSpecError(f"{spec.mjcf}: not a readable model: {_one_line(error)}") from error


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
            f"menagerie:{name} needs the package mujoco_menagerie, which is not installed; "
            "or give the path of the MJCF itself"
        ) from error
    folder = Path(mujoco_menagerie.__file__).parent / name
    if not (folder / "scene.xml").is_file():
        raise RobotSpecError(f"menagerie has no {name!r} with a scene.xml")
    return mujoco.MjSpec.from_file(str(folder / "scene.xml"))


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

    Physics.from_xml_string = classmethod(record)
    try:
        yield recorded
    finally:
        Physics.from_xml_string = original


def _override(model: mujoco.MjModel, field: str, name: str, values: tuple[float, ...]) -> None:
    row = field_row(model, field, name, "overrides")
    if len(values) > row.size:
        raise RobotSpecError(f"overrides.{field}.{name}: {len(values)} numbers came, it has {row.size}")
    row[: len(values)] = values
    if field.startswith("body_") or field == "dof_armature":
        # Subtree masses and inverse inertias at the reference pose follow from these.
        mujoco.mj_setConst(model, mujoco.MjData(model))


def _is_float_field(model: mujoco.MjModel, name: str) -> bool:
    array = getattr(model, name, None)
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
