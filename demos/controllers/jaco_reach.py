"""Brings the Jaco arm's hand to the target: resolved-rate inverse kinematics, v = J(q) q'.

An expert for `gcl record --operator controller --controller demos/controllers/jaco_reach.py --robot jaco`. It sees the
observation and nothing else, as the policy that is to learn from it.
"""

from __future__ import annotations

import mujoco
import numpy as np

from robots.model import compile_model
from robots.spec import RobotSpec

GAIN = 4.0  # [1/s] hand speed per distance from the target
TOP_SPEED = 0.25  # [m/s] of the hand
DAMPING = 0.05  # [m] keeps joint speeds finite near a stretched arm (Wampler 1986, damped least squares)
JOINTS = 6


class JacoReach:
    """Moves the hand straight to the target and stays there; the fingers are left alone."""

    def __init__(self, spec: RobotSpec) -> None:
        """Compiles the arm's model, for its Jacobian."""
        self._model = compile_model(spec)
        self._data = mujoco.MjData(self._model)
        joints = [self._model.joint(f"jaco_arm/joint_{k}").id for k in range(1, JOINTS + 1)]
        self._qpos, self._dof = self._model.jnt_qposadr[joints], self._model.jnt_dofadr[joints]
        self._site = self._model.site("jaco_arm/jaco_hand/pinchsite").id
        self._speed = np.array([term.scale for term in spec.action[:JOINTS]])  # [rad/s] at an action of 1
        self._rest = spec.act_dim - JOINTS
        self._columns = {
            term: [i for i, name in enumerate(spec.observation_names) if name.startswith(f"{term}/")]
            for term in ("arm_cos", "arm_sin", "pinch_from_target")
        }

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Action (9,) for an observation (30,): q' = W J^T (J W J^T + d^2 I)^-1 v, W the squared top joint speeds."""
        cos, sin, error = (observation[self._columns[term]].astype(float) for term in self._columns)
        jacobian = self._jacobian(np.arctan2(sin, cos)) * self._speed  # of actions, not of speeds
        velocity = -GAIN * error
        velocity *= min(1.0, TOP_SPEED / max(float(np.linalg.norm(velocity)), 1e-9))
        action = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING**2 * np.eye(3), velocity)
        action /= max(1.0, float(np.abs(action).max()))  # slower, but straight
        return np.concatenate([action, np.zeros(self._rest)])

    def _jacobian(self, q: np.ndarray) -> np.ndarray:
        """(3, 6) of the hand's position [m/rad] at joint angles q (6,) [rad]."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        jacobian = np.zeros((3, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, jacobian, None, self._site)
        return jacobian[:, self._dof]


def make_act(spec: RobotSpec) -> JacoReach:
    """What `gcl record` calls."""
    return JacoReach(spec)
