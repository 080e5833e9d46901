"""Wiring a robot to a compiled MuJoCo model: which state or sensor element each channel is, and what ctrl a command is.

Everything is looked up by name once; reading and writing are array copies over any number of environments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

import mujoco
import numpy as np

from robots.spec import RobotSpec, RobotSpecError

_TO_A_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
FULL_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
_ELEMENT = re.compile(r"^(?P<name>.+?)(?:\[(?P<index>\d+)\])?$")


def element_names(model: mujoco.MjModel, kind: str) -> list[str]:
    """Names of all named elements of one kind.

    Args:
        model: The compiled model.
        kind: "joint", "actuator", "sensor", "body", "geom", "site", "tendon", "camera".

    Returns:
        Names in the model's order; unnamed elements are left out.
    """
    count = {"joint": model.njnt, "actuator": model.nu, "sensor": model.nsensor, "camera": model.ncam}
    total = count[kind] if kind in count else getattr(model, f"n{kind}")
    names = (mujoco.mj_id2name(model, _object_type(kind), i) for i in range(total))
    return [name for name in names if name]


def element_id(model: mujoco.MjModel, kind: str, name: str, where: str) -> int:
    """Id of a named element.

    Args:
        model: The compiled model.
        kind: As in `element_names`; "xbody" is a body.
        name: The element.
        where: What asked, for the error message.

    Returns:
        The id.

    Raises:
        RobotSpecError: There is no such element; the message lists what there is.
    """
    kind = "body" if kind == "xbody" else kind
    found = mujoco.mj_name2id(model, _object_type(kind), name)
    if found < 0:
        legal = element_names(model, kind)
        listed = f"its {kind}s are {', '.join(legal)}" if legal else f"it has no named {kind}s"
        raise RobotSpecError(f"{where}: the model has no {kind} {name!r}{did_you_mean(name, legal)}; {listed}")
    return found


def did_you_mean(word: str, legal: Collection[str]) -> str:
    """A hint at the nearest legal word, or nothing."""
    close = difflib.get_close_matches(word, legal, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class ChannelMap:
    """Where each of `spec.channels` is found: a column of the full physics state, or an element of sensordata."""

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel) -> None:
        """Looks up every channel.

        Args:
            spec: The robot.
            model: Its compiled model, with the sensors the spec adds.

        Raises:
            RobotSpecError: A channel names a joint, actuator, sensor or element that the model lacks.
        """
        self.num_channels = len(spec.channels)
        self.num_state = mujoco.mj_stateSize(model, FULL_STATE)
        # FULLPHYSICS is (time, qpos, qvel, act, history, plugin), in this order.
        self.qpos = slice(1, 1 + model.nq)
        self.qvel = slice(self.qpos.stop, self.qpos.stop + model.nv)
        self.act = slice(self.qvel.stop, self.qvel.stop + model.na)
        state: list[tuple[int, int]] = []  # (channel, state column)
        fresh: list[tuple[int, int]] = []  # (channel, sensordata element), a function of position and velocity
        stepped: list[tuple[int, int]] = []  # (channel, sensordata element), a function of forces or accelerations
        self.fresh_stage = mujoco.mjtStage.mjSTAGE_POS  # how far a state is computed for its fresh sensors
        for i, channel in enumerate(spec.channels):
            source, _, element = channel.partition("/")
            if source == "sensor":
                address, stage = self._sensor_address(model, element)
                (stepped if stage == mujoco.mjtStage.mjSTAGE_ACC else fresh).append((i, address))
                if stage == mujoco.mjtStage.mjSTAGE_VEL:
                    self.fresh_stage = mujoco.mjtStage.mjSTAGE_VEL
            else:
                state.append((i, self._state_column(model, source, element)))
        self._state = _columns(state)
        self._fresh = _columns(fresh)
        self._stepped = _columns(stepped)

    @property
    def needs_fresh_sensors(self) -> bool:
        """Whether a sensor of position or velocity is read."""
        return self._fresh[0].size > 0

    @property
    def needs_stepped_sensors(self) -> bool:
        """Whether a sensor of force or acceleration is read."""
        return self._stepped[0].size > 0

    def read(
        self,
        state: np.ndarray,
        sensordata: np.ndarray | None,
        stepped_sensordata: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Collects the raw measurements.

        Args:
            state: (..., num_state) full physics state.
            sensordata: (..., nsensordata) with position and velocity sensors of this state; None if none is read.
            stepped_sensordata: (..., nsensordata) with force and acceleration sensors of the last physics step; None
                takes them from `sensordata`.
            out: (..., num_channels) float64 buffer to fill, or None for a new one.

        Returns:
            (..., num_channels) float64 in the order of `spec.channels`; `out` if it was given.
        """
        if out is None:
            out = np.empty((*state.shape[:-1], self.num_channels))
        channels, columns = self._state
        out[..., channels] = state[..., columns]
        if self.needs_fresh_sensors:
            assert sensordata is not None
            channels, columns = self._fresh
            out[..., channels] = sensordata[..., columns]
        if self.needs_stepped_sensors:
            source = sensordata if stepped_sensordata is None else stepped_sensordata
            assert source is not None
            channels, columns = self._stepped
            out[..., channels] = source[..., columns]
        return out

    def read_data(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """Collects the raw measurements from one MjData.

        Args:
            model: The model of `data`.
            data: Position and velocity fields must be up to date, as after `mj_step1`.

        Returns:
            (num_channels,) float64.
        """
        state = np.empty(self.num_state)
        mujoco.mj_getState(model, data, state, FULL_STATE)
        return self.read(state, data.sensordata)

    def _state_column(self, model: mujoco.MjModel, source: str, element: str) -> int:
        name, index = _split(element)
        where = f"observation {source} {element!r}"
        if source == "activation":
            actuator = element_id(model, "actuator", name, where)
            if model.actuator_actnum[actuator] != 1 or index:
                raise RobotSpecError(f"{where}: this actuator has {model.actuator_actnum[actuator]} activation states")
            return self.act.start + int(model.actuator_actadr[actuator])
        joint = element_id(model, "joint", name, where)
        start, size = (
            (self.qpos.start + model.jnt_qposadr[joint], _qpos_size(model, joint))
            if source == "joint_pos"
            else (self.qvel.start + model.jnt_dofadr[joint], _dof_size(model, joint))
        )
        if index is None and size > 1:
            raise RobotSpecError(f"{where}: this joint has {size} elements; name them {name}[0:{size}]")
        if (index or 0) >= size:
            raise RobotSpecError(f"{where}: this joint has {size} element(s), counted from 0")
        return int(start) + (index or 0)

    @staticmethod
    def _sensor_address(model: mujoco.MjModel, element: str) -> tuple[int, int]:
        name, index = _split(element)
        where = f"observation sensor {element!r}"
        sensor = element_id(model, "sensor", name, where)
        size = int(model.sensor_dim[sensor])
        if index is None and size > 1:
            raise RobotSpecError(f"{where}: this sensor has {size} elements; name them {name}[0:{size}]")
        if (index or 0) >= size:
            raise RobotSpecError(f"{where}: this sensor has {size} element(s), counted from 0")
        if model.sensor_delay[sensor] > 0 or model.sensor_interval[sensor].any():
            raise RobotSpecError(f"{where}: sensors with a delay or an interval are not simulated")
        return int(model.sensor_adr[sensor]) + (index or 0), int(model.sensor_needstage[sensor])


class ControlMap:
    """What MuJoCo's ctrl must be for a command: effort is divided by gain and gear, everything else goes as it is."""

    def __init__(self, spec: RobotSpec, model: mujoco.MjModel) -> None:
        """Looks up the actuators.

        Args:
            spec: The robot.
            model: Its compiled model.

        Raises:
            RobotSpecError: An actuator the model lacks, or one that cannot take what the spec would send it.
        """
        ids = [element_id(model, "actuator", term.actuator, "action") for term in spec.action]
        self.column = np.array(ids, dtype=np.intp)  # (act_dim,) column of ctrl
        self.divisor = np.ones(len(ids))  # (act_dim,) [unit of the command]
        self.num_ctrl = model.nu
        for i, (term, actuator) in enumerate(zip(spec.action, ids, strict=True)):
            where = f"action {term.actuator!r}"
            if term.joint is not None and term.joint != (moved := moved_joint(model, actuator)):
                drives = "no single joint" if moved is None else f"joint {moved!r}"
                raise RobotSpecError(f"{where}: joint {term.joint!r}; the model's actuator moves {drives}")
            if term.kind == "effort":
                self.divisor[i] = model.actuator_gainprm[actuator, 0] * model.actuator_gear[actuator, 0]
                motor = model.actuator_biastype[actuator] == mujoco.mjtBias.mjBIAS_NONE
                if not motor or self.divisor[i] == 0.0:
                    raise RobotSpecError(f"{where}: kind effort needs a motor; this actuator is a servo or has no gear")
            if model.actuator_ctrllimited[actuator]:
                low, high = np.sort(model.actuator_ctrlrange[actuator] * self.divisor[i])
                slack = 1e-9 * max(abs(low), abs(high))
                if term.lower < low - slack or term.upper > high + slack:
                    raise RobotSpecError(
                        f"{where}: commands from {term.lower:g} to {term.upper:g} {term.unit}; "
                        f"the model's actuator takes {low:g} to {high:g}"
                    )

    def ctrl(self, command: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Writes the ctrl of a command.

        Args:
            command: (..., act_dim) SI units.
            out: (..., nu) to write to; actuators that the robot does not name are left alone.

        Returns:
            `out`.
        """
        out[..., self.column] = command / self.divisor
        return out


def unsaid_joints(spec: RobotSpec, model: mujoco.MjModel) -> dict[str, str]:
    """Joints of drives that are called otherwise, where robot.yaml says nothing of it and safety looks them up by name.

    Args:
        spec: The robot.
        model: Its compiled model.

    Returns:
        Actuator to joint, of position drives and of those that damp.
    """
    looked_up = [term for term in spec.action if term.joint is None and (term.kind == "position" or term.kd)]
    moved = ((t.actuator, moved_joint(model, element_id(model, "actuator", t.actuator, "action"))) for t in looked_up)
    return {actuator: joint for actuator, joint in moved if joint not in (None, actuator)}


def moved_joint(model: mujoco.MjModel, actuator: int) -> str | None:
    """Name of the joint that an actuator moves; None if that is a tendon, a body or a site, or has no name."""
    if int(model.actuator_trntype[actuator]) not in _TO_A_JOINT:
        return None
    return mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, int(model.actuator_trnid[actuator, 0]))


def _columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])


def _split(element: str) -> tuple[str, int | None]:
    match = _ELEMENT.match(element)
    assert match is not None
    return match["name"], None if match["index"] is None else int(match["index"])


def _qpos_size(model: mujoco.MjModel, joint: int) -> int:
    return {int(mujoco.mjtJoint.mjJNT_FREE): 7, int(mujoco.mjtJoint.mjJNT_BALL): 4}.get(int(model.jnt_type[joint]), 1)


def _dof_size(model: mujoco.MjModel, joint: int) -> int:
    return {int(mujoco.mjtJoint.mjJNT_FREE): 6, int(mujoco.mjtJoint.mjJNT_BALL): 3}.get(int(model.jnt_type[joint]), 1)


def _object_type(kind: str) -> mujoco.mjtObj:
    return getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
