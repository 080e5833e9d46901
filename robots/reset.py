"""How episodes begin: states drawn from a robot's reset distribution, in the way dm_control's tasks draw theirs."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import rollout

from robots.channels import FULL_STATE, element_id
from robots.model import field_row, stepping_model
from robots.spec import Distribution, RobotSpec, RobotSpecError, WorldPlacement
from robots.tool_pose import ToolPoser

_MAX_ATTEMPTS = 10_000  # draws for one state that nothing touches
_LIFT = 0.01  # [m] step in which "lift" raises the robot, as dm_control's quadruped does
_SETTLE_BLOCK = 50  # physics steps simulated at a time, so that the buffer stays small
_LARGEST = 1e6  # [SI] a position or velocity beyond this means that settling diverged


@dataclass(frozen=True)
class ResetStates:
    """N states in which an episode may begin."""

    state: np.ndarray  # (N, num_state) full physics state at time 0
    warmstart: np.ndarray  # (N, nv) [rad/s^2 | m/s^2] accelerations that the solver starts from
    sensordata: np.ndarray  # (N, nsensordata) what the sensors show there, with no actuation
    placement: np.ndarray  # (N, len(spec.reset.world), 3) [m] positions of what the scene moves


def draw_states(
    spec: RobotSpec, model: mujoco.MjModel, count: int, rng: np.random.Generator, num_threads: int = 1
) -> ResetStates:
    """Draws states from `spec.reset`.

    Args:
        spec: The robot.
        model: Its compiled model; left as it came.
        count: How many states.
        rng: Source of randomness; the same generator gives the same states.
        num_threads: For the settling time.

    Returns:
        The states.

    Raises:
        RobotSpecError: No state without contact is found, or settling makes the physics diverge.
    """
    drawing = _Drawing(spec, model, rng)
    states, placements = (np.stack(rows) for rows in zip(*(drawing.state() for _ in range(count)), strict=True))
    states = _settle(spec, model, states, num_threads)
    states[:, 0] = 0.0
    warmstart, sensordata = np.empty((count, model.nv)), np.empty((count, model.nsensordata))
    for i in range(count):
        place(spec, drawing.model, placements[i])
        mujoco.mj_setState(drawing.model, drawing.data, states[i], FULL_STATE)
        drawing.data.qacc_warmstart[:] = 0.0
        drawing.forward_unactuated()
        warmstart[i] = drawing.data.qacc_warmstart
        sensordata[i] = drawing.data.sensordata
    return ResetStates(states, warmstart, sensordata, placements)


def place(spec: RobotSpec, model: mujoco.MjModel, placement: np.ndarray) -> None:
    """Moves what `spec.reset.world` names.

    Args:
        spec: The robot.
        model: Written to.
        placement: (len(spec.reset.world), 3) [m].
    """
    for item, position in zip(spec.reset.world, placement, strict=True):
        field_row(model, item.field, item.name, "reset.world")[:] = position


class _Drawing:
    """One model and data to try states in."""

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel, rng: np.random.Generator) -> None:
        # Drawing moves scene elements about and switches actuation off: not in the caller's model.
        self.model = copy.copy(model)
        self.data = mujoco.MjData(self.model)
        self.spec, self.rng = spec, rng
        self.positions = dict(spec.reset.joint_pos)
        self.velocities = dict(spec.reset.joint_vel)
        self.joints = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, j) or "" for j in range(model.njnt)]
        self.free = next((j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE), None)
        if spec.reset.contact == "lift" and self.free is None:
            raise RobotSpecError(f"{spec.name}: reset.contact lift needs a free joint, the model has none")
        mujoco.mj_resetData(self.model, self.data)
        for name, value in spec.default_pose:
            self.data.qpos[model.jnt_qposadr[element_id(model, "joint", name, "default_pose")]] = value
        self.default_qpos = self.data.qpos.copy()
        self.tool = None if spec.reset.tool is None else ToolPoser(spec.reset.tool, self.model)

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """One state (num_state,) and placement (n, 3) that meet the spec's condition on contacts."""
        for _ in range(_MAX_ATTEMPTS):
            placement = np.array([self._placement(item) for item in self.spec.reset.world]).reshape(-1, 3)
            place(self.spec, self.model, placement)
            self._draw()
            if self.tool is not None and not self.tool.reach(self.data.qpos, self.rng):
                continue
            if self.spec.reset.contact == "lift":
                self._lift()
            if self.spec.reset.contact == "any" or not self._touches():
                state = np.empty(mujoco.mj_stateSize(self.model, FULL_STATE))
                mujoco.mj_getState(self.model, self.data, state, FULL_STATE)
                return state, placement
        wanted = "without contact" + ("" if self.tool is None else " and with the hand where reset.tool has it")
        raise RobotSpecError(f"{self.spec.name}: no state {wanted} in {_MAX_ATTEMPTS} draws of reset")

    def forward_unactuated(self) -> None:
        """Computes everything for the present state as if the motors were off, as dm_control does after a reset."""
        flags = self.model.opt.disableflags
        self.model.opt.disableflags = flags | mujoco.mjtDisableBit.mjDSBL_ACTUATION
        mujoco.mj_forward(self.model, self.data)
        self.model.opt.disableflags = flags

    def _draw(self) -> None:
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self.default_qpos
        for joint, name in enumerate(self.joints):
            address, dof = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
            if name in self.positions:
                self._draw_position(joint, address, self.positions[name])
            elif self.spec.reset.random_joints:
                self._randomize(joint, address)
            if name in self.velocities:
                data.qvel[dof] = self._number(joint, self.velocities[name])

    def _draw_position(self, joint: int, address: int, distribution: Distribution) -> None:
        if distribution.kind != "rotation":
            self.data.qpos[address] = self._number(joint, distribution)
            return
        kind = self.model.jnt_type[joint]
        offset = {int(mujoco.mjtJoint.mjJNT_FREE): 3, int(mujoco.mjtJoint.mjJNT_BALL): 0}.get(int(kind))
        if offset is None:
            raise RobotSpecError(f"reset.joint_pos.{self.joints[joint]}: rotation is for free and ball joints")
        quaternion = self.rng.standard_normal(4)
        self.data.qpos[address + offset : address + offset + 4] = quaternion / np.linalg.norm(quaternion)

    def _number(self, joint: int, distribution: Distribution) -> float:
        match distribution.kind:
            case "fixed":
                return distribution.a
            case "uniform":
                return float(self.rng.uniform(distribution.a, distribution.b))
            case "normal":
                return float(self.rng.normal(distribution.a, distribution.b))
        if not self.model.jnt_limited[joint]:
            raise RobotSpecError(f"reset: joint {self.joints[joint]!r} has no limits to draw between")
        return float(self.rng.uniform(*self.model.jnt_range[joint]))

    def _randomize(self, joint: int, address: int) -> None:
        """Draws a joint that the spec does not name, as dm_control's randomizer does."""
        model, qpos, rng = self.model, self.data.qpos, self.rng
        kind, limited = model.jnt_type[joint], bool(model.jnt_limited[joint])
        if kind == mujoco.mjtJoint.mjJNT_BALL:
            quaternion = rng.standard_normal(4)
            if limited:
                axis = rng.standard_normal(3)
                mujoco.mju_axisAngle2Quat(
                    quaternion, axis / np.linalg.norm(axis), rng.uniform(0, model.jnt_range[joint, 1])
                )
            qpos[address : address + 4] = quaternion / np.linalg.norm(quaternion)
        elif kind == mujoco.mjtJoint.mjJNT_FREE:
            # Not uniform over rotations (all four parts positive), but what dm_control's tasks begin with.
            quaternion = rng.uniform(size=4)
            qpos[address + 3 : address + 7] = quaternion / np.linalg.norm(quaternion)
        elif limited:
            qpos[address] = rng.uniform(*model.jnt_range[joint])
        elif kind == mujoco.mjtJoint.mjJNT_HINGE:
            qpos[address] = rng.uniform(-np.pi, np.pi)

    def _placement(self, item: WorldPlacement) -> np.ndarray:
        position = field_row(self.model, item.field, item.name, "reset.world").copy()
        if item.kind == "annulus":
            angle, radius = self.rng.uniform(0.0, 2.0 * np.pi), self.rng.uniform(item.lower[0], item.upper[0])
            position[:2] = radius * np.sin(angle), radius * np.cos(angle)
        else:
            position[:] = self.rng.uniform(item.lower, item.upper)
        return position

    def _lift(self) -> None:
        assert self.free is not None
        height = self.model.jnt_qposadr[self.free] + 2
        self.data.qpos[height] = 0.0
        for _ in range(_MAX_ATTEMPTS):
            if not self._touches():
                return
            self.data.qpos[height] += _LIFT

    def _touches(self) -> bool:
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        return self.data.ncon > 0


def _settle(spec: RobotSpec, model: mujoco.MjModel, states: np.ndarray, num_threads: int) -> np.ndarray:
    """Simulates `settle_seconds` with zero ctrl from each state."""
    remaining = total = round(spec.reset.settle_seconds / model.opt.timestep)
    if not total:
        return states
    if spec.reset.world:
        raise RobotSpecError(f"{spec.name}: reset.settle_seconds together with reset.world is not supported")
    stepped = stepping_model(model, sensors=False)
    with rollout.Rollout(nthread=num_threads if num_threads > 1 else 0) as pool:
        data = [mujoco.MjData(stepped) for _ in range(num_threads)]
        while remaining:
            steps = min(remaining, _SETTLE_BLOCK)
            trajectory, _ = pool.rollout(stepped, data, states, nstep=steps)
            states = np.ascontiguousarray(trajectory[:, -1])
            remaining -= steps
    # A rollout that broke off lags behind in time; a NaN makes the comparison false.
    broke_off = states[:, 0].min() < (total - 0.5) * model.opt.timestep
    if broke_off or not np.abs(states[:, 1:]).max() < _LARGEST:
        raise RobotSpecError(
            f"{spec.name}: the physics diverges within reset.settle_seconds {spec.reset.settle_seconds:g}"
        )
    return states
