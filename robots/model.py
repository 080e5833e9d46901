"""From a robot description to a compiled MuJoCo model: what is added to the model file, and what is checked."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import mujoco
import numpy as np

from robots.channels import ChannelMap, ControlMap, did_you_mean, element_id
from robots.model_source import load_model_source, log_physics_warnings, one_line
from robots.spec import AddedSensor, RobotSpec, RobotSpecError
from robots.stretch import stretch_bodies

_STEP_TOLERANCE = 1e-8  # relative; a control_dt of 0.02 must pass for 4 steps of 0.005
_NO_FORCES = mujoco.mjtDisableBit.mjDSBL_CONSTRAINT | mujoco.mjtDisableBit.mjDSBL_CONTACT
# Sensors of position or velocity that read the constraint solver's rows
_LIMIT_SENSORS = (
    mujoco.mjtSensor.mjSENS_JOINTLIMITPOS, mujoco.mjtSensor.mjSENS_JOINTLIMITVEL,
    mujoco.mjtSensor.mjSENS_TENDONLIMITPOS, mujoco.mjtSensor.mjSENS_TENDONLIMITVEL,
)  # fmt: skip
_MOVABLE = ("geom_pos", "site_pos", "body_pos")
# Which element owns a row of an MjModel field, by the field's first word
_OWNER = {
    "body": "body", "jnt": "joint", "dof": "joint", "geom": "geom", "site": "site", "actuator": "actuator",
    "tendon": "tendon", "sensor": "sensor", "cam": "camera",
}  # fmt: skip


def compile_model(spec: RobotSpec, *, textures: bool = True) -> mujoco.MjModel:
    """Compiles a robot's model and checks that everything the spec names is in it.

    Args:
        spec: The robot.
        textures: Whether to keep them; they are most of a model's memory and nothing but pictures needs them.

    Returns:
        The model, with the sensors and overrides of the spec.

    Raises:
        RobotSpecError: The model cannot be found or compiled, or lacks something that the spec names.
    """
    model = compile_source(spec, textures=textures)
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
        if placement.field not in _MOVABLE:
            raise RobotSpecError(f"reset.world: cannot move by {placement.field!r}; legal are {', '.join(_MOVABLE)}")
        field_row(model, placement.field, placement.name, "reset.world")
        _make_free(model, placement.field, placement.name, "reset.world")
    return model


def compile_source(spec: RobotSpec, *, textures: bool = True) -> mujoco.MjModel:
    """Compiles the model file with the sensors that the spec adds and the bones it stretches, nothing else changed.

    Args:
        spec: The robot.
        textures: Whether to keep them.

    Returns:
        The model.

    Raises:
        RobotSpecError: Not found, not compilable, or an added sensor names something the model lacks.
    """
    with warnings.catch_warnings():
        # Deprecations inside somebody else's model file: nothing the user could act on.
        warnings.simplefilter("ignore")
        source = load_model_source(spec)
        _stretched(spec, source)
        if not textures:
            for material in source.materials:
                material.textures = [""] * len(material.textures)
            for texture in list(source.textures):
                source.delete(texture)
        log_physics_warnings()
        return _compile(spec, source)


def _stretched(spec: RobotSpec, source: mujoco.MjSpec) -> None:
    try:
        stretch_bodies(spec, source)
    except ValueError as error:
        raise RobotSpecError(f"{spec.mjcf}: does not compile: {one_line(error)}") from error


def _compile(spec: RobotSpec, source: mujoco.MjSpec) -> mujoco.MjModel:
    try:
        if spec.sensors:
            bare = source.compile()
            for sensor in spec.sensors:
                source.add_sensor(**sensor_arguments(bare, sensor))
        return source.compile()
    except ValueError as error:
        raise RobotSpecError(f"{spec.mjcf}: does not compile: {one_line(error)}") from error


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


def stepping_model(model: mujoco.MjModel, *, sensors: bool) -> mujoco.MjModel:
    """A copy to be stepped only: a broken state stays visibly broken instead of being reset in silence.

    Args:
        model: The model.
        sensors: Whether the copy computes sensors.

    Returns:
        The copy; its dynamics are the model's.
    """
    stepping = copy.copy(model)
    # MuJoCo's own reset of a diverged simulation would pass for a wondrous recovery.
    stepping.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    if not sensors:
        stepping.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
    return stepping


def sensing_model(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy whose step costs little and computes the sensors of position and velocity of the state it begins in.

    Args:
        model: The model.

    Returns:
        The copy; where its step leads means nothing.
    """
    sensing = copy.copy(model)
    limits = np.isin(model.sensor_type, [int(kind) for kind in _LIMIT_SENSORS]).any()
    sensing.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT if limits else _NO_FORCES
    sensing.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    return sensing


def scene_matters(spec: RobotSpec, model: mujoco.MjModel) -> bool:
    """Whether the physics depends on where `spec.reset.world` puts things, or only what is seen of them.

    Args:
        spec: The robot.
        model: Its model.

    Returns:
        False if all that moves is sites and geoms of the world itself, the latter never to be touched.
    """
    seen_only = {"geom_pos": ("geom", model.geom_bodyid), "site_pos": ("site", model.site_bodyid)}
    for item in spec.reset.world:
        if item.field not in seen_only:
            return True
        kind, body = seen_only[item.field]
        if body[element_id(model, kind, item.name, "reset.world")] != 0:
            return True
    return False


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


def _override(model: mujoco.MjModel, field: str, name: str, values: tuple[float, ...]) -> None:
    row = field_row(model, field, name, "overrides")
    if len(values) > row.size:
        raise RobotSpecError(f"overrides.{field}.{name}: {len(values)} numbers came, it has {row.size}")
    _make_free(model, field, name, "overrides")
    row[: len(values)] = values
    if field.startswith("body_") or field == "dof_armature":
        # Subtree masses and inverse inertias at the reference pose follow from these.
        mujoco.mj_setConst(model, mujoco.MjData(model))


def _make_free(model: mujoco.MjModel, field: str, name: str, where: str) -> None:
    """Makes MuJoCo heed a change of an element's place or size, which the compiler took for settled."""
    kind, _, quantity = field.partition("_")
    if kind not in ("geom", "site") or quantity not in ("pos", "quat", "size"):
        return
    element = element_id(model, kind, name, where)
    if kind == "geom" and _touchable(model, element):
        # Bounding volumes, computed at compile time, would go on standing where the geom was.
        raise RobotSpecError(
            f"{where}.{field}: geom {name!r} can be touched, so it cannot be changed by itself; "
            "move a body that holds it, by body_pos, or change the model file"
        )
    # An element in the same frame as its body is never looked up by its own position.
    getattr(model, f"{kind}_sameframe")[element] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE


def _touchable(model: mujoco.MjModel, geom: int) -> bool:
    off = mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    if model.opt.disableflags & off:
        return False
    paired = geom in model.pair_geom1 or geom in model.pair_geom2
    return bool(paired or model.geom_contype[geom] or model.geom_conaffinity[geom])


def _is_float_field(model: mujoco.MjModel, name: str) -> bool:
    array = getattr(model, name, None)
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"
