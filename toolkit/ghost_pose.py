"""What pose a robot measures, and what pose it is told: rows of a black box as MuJoCo's joint positions.

A real robot measures joints, not where it stands. So what no channel measures, a floating base above all, stays as the
default pose has it. A position drive is told a pose outright; a speed drive is told one by and by, so its ghost runs
ahead of it. An effort tells no pose.
"""

from __future__ import annotations

import mujoco
import numpy as np

from robots.channels import ChannelMap, element_id
from robots.spec import RobotSpec

_ONE_NUMBER = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
AHEAD_SECONDS = 0.3  # [s] how far a ghost runs ahead of what a speed drive has been told


class PoseMap:
    """Looks everything up by name once."""

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel) -> None:
        """Finds joints of channels and of drives.

        Args:
            spec: The robot.
            model: Its compiled model.

        Raises:
            RobotSpecError: The spec names what the model lacks.
        """
        channels = ChannelMap(spec, model)
        # Reading a state whose every element is its own place tells where each channel is read from
        places = channels.read(np.arange(channels.num_state, dtype=float), np.zeros(model.nsensordata))
        measured = [i for i, channel in enumerate(spec.channels) if channel.startswith("joint_pos/")]
        self._channel = np.array(measured, dtype=np.intp)
        self._qpos = places[self._channel].astype(np.intp) - channels.qpos.start
        self.rest = model.qpos0.copy()  # (nq,) where nothing is measured
        for name, value in spec.default_pose:
            self.rest[model.jnt_qposadr[element_id(model, "joint", name, "default_pose")]] = value
        told = [(i, *found) for i, found in enumerate(_drives(spec, model)) if found is not None]
        self._told = np.array([i for i, _, _, _ in told], dtype=np.intp)
        self._told_qpos = np.array([qpos for _, qpos, _, _ in told], dtype=np.intp)
        self._gear = np.array([gear for _, _, gear, _ in told], dtype=float)
        self._is_speed = np.array([speed for _, _, _, speed in told], dtype=bool)

    @property
    def has_ghost(self) -> bool:
        """Whether any drive is told a pose."""
        return self._told.size > 0

    def measured(self, values: np.ndarray) -> np.ndarray:
        """The pose that was measured.

        Args:
            values: (channels,) what was measured; NaN counts as not measured.

        Returns:
            (nq,) joint positions.
        """
        pose, positions = self.rest.copy(), values[self._channel]
        known = np.isfinite(positions)
        pose[self._qpos[known]] = positions[known]
        return pose

    def commanded(self, values: np.ndarray, command: np.ndarray) -> np.ndarray:
        """The pose that was told; joints that are told none are where they were measured.

        Args:
            values: (channels,) what was measured.
            command: (act_dim,) [unit] what was sent.

        Returns:
            (nq,) joint positions.
        """
        pose = self.measured(values)
        target = command[self._told] / self._gear
        target = np.where(self._is_speed, pose[self._told_qpos] + AHEAD_SECONDS * target, target)
        known = np.isfinite(target)
        pose[self._told_qpos[known]] = target[known]
        return pose


def _drives(spec: RobotSpec, model: mujoco.MjModel) -> list[tuple[int, float, bool] | None]:
    """For each action (qpos address, gear, whether a speed); None for a force, or where no single joint is moved."""
    drives: list[tuple[int, float, bool] | None] = []
    for term in spec.action:
        actuator = element_id(model, "actuator", term.actuator, "action")
        joint = int(model.actuator_trnid[actuator, 0])
        of_joint = int(model.actuator_trntype[actuator]) == int(mujoco.mjtTrn.mjTRN_JOINT)
        turns = of_joint and int(model.jnt_type[joint]) in _ONE_NUMBER
        gear = float(model.actuator_gear[actuator, 0])
        if turns and gear and term.kind in ("position", "velocity"):
            drives.append((int(model.jnt_qposadr[joint]), gear, term.kind == "velocity"))
        else:
            drives.append(None)
    return drives
