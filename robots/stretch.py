"""Bones made longer or shorter than in the model file, as `stretch` in robot.yaml says: `{bshin: 1.3}`."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np

from robots.channels import element_id
from robots.spec import RobotSpec, RobotSpecError

_LENGTHWISE = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)  # size is (radius, half length)


def stretch_bodies(spec: RobotSpec, source: mujoco.MjSpec) -> None:
    """Stretches bodies along their bones, away from the joint that carries each.

    Every point p of the body becomes a + f (p - a), a being its joint: capsules grow longer and not thicker, what hangs
    on the body moves along with its end unchanged. The compiler computes mass and inertia from the new shapes, at the
    density they had; the other bodies keep theirs.

    Args:
        spec: The robot; `spec.stretch` says what and how much.
        source: Its parsed model, changed in place.

    Raises:
        RobotSpecError: No such body, or one whose shape or inertia does not follow from capsules.
    """
    if not spec.stretch:
        return
    model = source.compile()
    total = source.compiler.settotalmass
    source.compiler.settotalmass = -1.0
    before = source.compile().body_mass.sum()
    for name, factor in spec.stretch:
        body = element_id(model, "body", name, "stretch")
        _stretch(model, source.bodies[body], factor)
    if total > 0:
        # The file's total is for the bones as they were: at the same density there is now more of them, or less.
        source.compiler.settotalmass = total * source.compile().body_mass.sum() / before


def _stretch(model: mujoco.MjModel, body: Any, factor: float) -> None:
    where = f"stretch.{body.name}"
    if body.explicitinertial:
        raise RobotSpecError(f"{where}: its inertia is given by numbers in the model file, which would not follow")
    anchor = _anchor(model, body.id)
    for geom in body.geoms:
        shape = int(model.geom_type[geom.id])
        if shape not in _LENGTHWISE and shape != mujoco.mjtGeom.mjGEOM_SPHERE:
            raise RobotSpecError(f"{where}: can stretch capsules and cylinders and move spheres; {geom.name!r} is none")
        if geom.frame is not None:
            raise RobotSpecError(f"{where}: geom {geom.name!r} stands in a <frame>, which is not supported")
        if math.isfinite(geom.fromto[0]):
            geom.fromto = (anchor + factor * (np.reshape(geom.fromto, (2, 3)) - anchor)).ravel()
        else:
            geom.pos = anchor + factor * (geom.pos - anchor)
            if shape in _LENGTHWISE:
                geom.size = (geom.size[0], factor * geom.size[1], geom.size[2])
    for site in body.sites:
        site.pos = anchor + factor * (site.pos - anchor)
    for child in body.bodies:
        joint = np.empty(3)  # where the child hangs, in the frame of the body
        mujoco.mju_rotVecQuat(joint, _anchor(model, child.id), model.body_quat[child.id])
        child.pos = child.pos + (factor - 1.0) * (child.pos + joint - anchor)


def _anchor(model: mujoco.MjModel, body: int) -> np.ndarray:
    """(3,) [m] where a body is held, in its own frame: its first joint, or its origin if it is welded on."""
    return model.jnt_pos[model.body_jntadr[body]].copy() if model.body_jntnum[body] else np.zeros(3)
