"""An arm's beginning by where its hand is: joint angles from dm_control's inverse kinematics."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from robots.channels import element_id
from robots.model_source import log_physics_warnings
from robots.spec import RobotSpecError, ToolPose

_TURN = 2.0 * np.pi
_ROTATION_WEIGHT = 2.0  # [m/rad] as dm_control's arms weigh a turned hand against a displaced one


class ToolPoser:
    """Solves for the joint angles that put the hand where `reset.tool` says."""

    def __init__(self, tool: ToolPose, model: mujoco.MjModel) -> None:
        """Prepares.

        Args:
            tool: Where the hand may be, and the joints that bring it there.
            model: The robot's; left as it came.

        Raises:
            RobotSpecError: A site or joint that the model lacks, or a joint that is no hinge.
        """
        from dm_control import mujoco as dm_mujoco
        from dm_control.mujoco import wrapper
        from dm_control.utils import inverse_kinematics

        log_physics_warnings()
        element_id(model, "site", tool.site, "reset.tool.site")
        joints = [element_id(model, "joint", name, "reset.tool.joints") for name in tool.joints]
        for joint, name in zip(joints, tool.joints, strict=True):
            if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                raise RobotSpecError(f"reset.tool.joints: {name!r} is no hinge, and its angle is what is solved for")
        self._tool = tool
        self._addresses = model.jnt_qposadr[joints]
        limited = model.jnt_limited[joints].astype(bool)
        self._low = np.where(limited, model.jnt_range[joints, 0], 0.0)
        self._high = np.where(limited, model.jnt_range[joints, 1], _TURN)
        self._physics: Any = dm_mujoco.Physics.from_model(wrapper.MjModel(model))
        self._solve = inverse_kinematics.qpos_from_site_pose

    def reach(self, qpos: np.ndarray, rng: np.random.Generator) -> bool:
        """Draws a place for the hand and brings it there.

        Args:
            qpos: (nq,) where the solver starts; the joints' entries are written to [rad], those without limits in
                [0, 2 pi).
            rng: Draws the place.

        Returns:
            Whether a solution within the joints' limits was found. If not, `qpos` is as it was.
        """
        tool, data = self._tool, self._physics.data
        data.qpos[:] = qpos
        result = self._solve(
            self._physics, tool.site, rng.uniform(tool.lower, tool.upper), np.array(tool.quaternion),
            list(tool.joints), rot_weight=_ROTATION_WEIGHT, inplace=True,
        )  # fmt: skip
        angles = self._low + (data.qpos[self._addresses] - self._low) % _TURN
        if not result.success or not (angles <= self._high).all():
            return False
        qpos[self._addresses] = angles
        return True
