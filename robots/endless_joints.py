"""Angles that count turns: what a joint without end measures after a turn is a number that no demonstration holds."""

from __future__ import annotations

from typing import Any

import mujoco

from robots.spec import RobotSpec

_JOINT_POS = "joint_pos/"


def endless_angles(spec: RobotSpec, model: mujoco.MjModel) -> tuple[str, ...]:
    """Observation elements that are the plain angle of a hinge without limits, where `cos` and `sin` would repeat.

    A policy learned from such an angle is lost once the joint has turned round: 2 pi is the same pose as 0 and another
    number. `transform: cos` beside `transform: sin` says where the joint is and not how often it has been round.

    Args:
        spec: The robot.
        model: Its compiled model.

    Returns:
        Names as in `spec.observation_names`, in order.
    """
    channels = [(channel, term.transform) for term in spec.observation for channel in term.channels]
    return tuple(
        name
        for name, (channel, transform) in zip(spec.observation_names, channels, strict=True)
        if channel.startswith(_JOINT_POS)
        and transform not in ("cos", "sin")
        and _is_endless(model.joint(channel.removeprefix(_JOINT_POS)))
    )


def _is_endless(joint: Any) -> bool:
    return bool(joint.type[0] == mujoco.mjtJoint.mjJNT_HINGE and not joint.limited[0])
