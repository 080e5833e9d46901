"""RobotSpec: what a robot is, as one frozen record.

The numbers come from `robots/<name>/robot.yaml` (see `robot_yaml.py`) and from nowhere else. The record is plain data:
it imports no simulator, so the same object describes the robot to the simulator, the recorder and the control loop.

Three words, never synonyms:
    action   what the policy puts out, dimensionless, nominally in [-1, 1]
    command  what the robot is told, SI units: command = offset + scale * action
    ctrl     MuJoCo's `data.ctrl`; only simulator files know it
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robots.safety_spec import SafetySpec, safety_from_dict

SPEC_FORMAT_VERSION = 1
CHANNEL_SOURCES = ("joint_pos", "joint_vel", "activation", "sensor")
TRANSFORMS = ("identity", "sin", "cos", "log1p", "arcsinh")
# Prose, how the robot is trained, and how careful the owner is: changing a word, a range or a time must not orphan a
# day of recordings.
NOT_IDENTITY = ("description", "practice_seconds", "randomize", "safety", "terminate")
ACTION_KINDS = ("effort", "velocity", "position", "ctrl")


class ToolkitError(Exception):
    """A mistake a user can mend: the message says what came, what was expected and what is legal."""


class RobotSpecError(ToolkitError):
    """A robot description that cannot be used as it stands."""


@dataclass(frozen=True)
class ObservationTerm:
    """One named group of observation elements, all measured the same way and in the same unit.

    Element i of the term is transform((raw_i - offset_i) * scale_i), raw_i being the measured channel.
    """

    name: str
    channels: tuple[str, ...]  # raw channels, "joint_pos/bthigh", "sensor/velocimeter[0]"; one per element
    unit: str  # unit of the raw channels, such as "rad", "m/s", "N"
    offset: tuple[float, ...]  # (len(channels),) [unit]
    scale: tuple[float, ...]  # (len(channels),) [1/unit], 1 where the element keeps its unit
    transform: str = "identity"  # one of TRANSFORMS, applied last


@dataclass(frozen=True)
class ActionTerm:
    """One actuator: how a dimensionless action becomes a command, and what the command may be."""

    actuator: str
    kind: str  # one of ACTION_KINDS: what the command means
    unit: str  # unit of the command: "N m", "N", "rad/s", "rad", "m", "1"
    scale: float  # [unit] command per unit of action
    offset: float  # [unit] command at action 0
    lower: float  # [unit] least command the robot is ever sent
    upper: float  # [unit] greatest command the robot is ever sent
    slew: float | None = None  # [unit/s] fastest change of the command, None = unlimited
    kp: float | None = None  # [N m/rad] position gain of the drive, where kind is "position"
    kd: float | None = None  # [N m s/rad] damping gain of the drive
    joint: str | None = field(default=None, compare=False)  # that it moves, None = called like it; no part of identity

    @property
    def moves(self) -> str:
        """The joint whose measured position and velocity say where this drive is."""
        return self.actuator if self.joint is None else self.joint


@dataclass(frozen=True)
class JointLimit:
    """Limits of one joint that the safety layer watches on the measured values."""

    joint: str
    lower: float  # [rad | m]
    upper: float  # [rad | m]
    velocity: float | None = None  # [rad/s | m/s] greatest absolute velocity, None = not watched


@dataclass(frozen=True)
class AddedSensor:
    """A MuJoCo sensor that the model file lacks and the observation needs; on the robot, a sensor to wire up."""

    name: str
    type: str  # MJCF sensor element: "framepos", "framexaxis", "gyro", ...
    object_type: str  # "site", "xbody", "geom", "body", "joint", ...
    object_name: str
    reference_type: str | None = None  # frame* sensors may be relative to another frame
    reference_name: str | None = None


@dataclass(frozen=True)
class Distribution:
    """A one-dimensional (or, for `rotation`, quaternion) random number."""

    kind: str  # "fixed" (a) | "uniform" [a, b) | "normal" mean a std b | "limits" (the joint's range) | "rotation"
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True)
class WorldPlacement:
    """Something in the scene (a target) that is put elsewhere at each reset by writing a model field."""

    field: str  # MjModel field, "geom_pos" | "site_pos" | "body_pos"
    name: str  # element name in the model
    kind: str  # "annulus": x = r sin(phi), y = r cos(phi), r uniform [lower[0], upper[0]) ; "box": uniform per axis
    lower: tuple[float, ...]  # [m]
    upper: tuple[float, ...]  # [m]


@dataclass(frozen=True)
class ToolPose:
    """Where an arm's hand is when an episode begins; the joint angles follow from it."""

    site: str  # of the hand, in the model
    joints: tuple[str, ...]  # that bring it there, from where `joint_pos` put them
    lower: tuple[float, ...]  # [m] (3,) in the world, uniform up to `upper`
    upper: tuple[float, ...]  # [m] (3,)
    quaternion: tuple[float, ...]  # (w, x, y, z) the site's rotation in the world


@dataclass(frozen=True)
class ResetSpec:
    """How an episode begins."""

    joint_pos: tuple[tuple[str, Distribution], ...] = ()  # by joint name [rad | m]; others start at the default pose
    joint_vel: tuple[tuple[str, Distribution], ...] = ()  # by joint name [rad/s | m/s]; others start at rest
    random_joints: bool = (
        False  # joints not named: limited ones uniform in range, free hinges in [-pi, pi], rotations uniform
    )
    settle_seconds: float = 0.0  # [s] simulated with zero ctrl before the episode's clock starts at 0
    contact: str = "any"  # "any" | "reject" (draw again until nothing touches) | "lift" (raise the free joint until so)
    world: tuple[WorldPlacement, ...] = ()
    tool: ToolPose | None = None


@dataclass(frozen=True)
class TerminationLimit:
    """Beyond it the task is over for good: the robot has fallen, or what it carried has."""

    observation: str  # an observation element, or a term and with it all its elements
    lower: float | None = None  # [unit of the observation] None = no limit
    upper: float | None = None  # [unit of the observation] None = no limit

    def __str__(self) -> str:
        """As "height below 0.7 or above 2"."""
        sides = [f"{word} {x:g}" for word, x in (("below", self.lower), ("above", self.upper)) if x is not None]
        return f"{self.observation} {' or '.join(sides)}"


@dataclass(frozen=True)
class Randomization:
    """How wrong the simulator may be about the robot; `BatchSim` draws from it when asked to, and nothing else does."""

    mass: tuple[float, float] = (1.0, 1.0)  # factor on each body's mass and inertia, a number per body
    friction: tuple[float, float] = (1.0, 1.0)  # factor on all friction, one number per environment
    gains: tuple[float, float] = (1.0, 1.0)  # factor on each actuator's force: a motor's gear, a servo's kp and kd
    delay: tuple[int, int] = (0, 0)  # control steps from an action to its effect, both included
    noise: tuple[tuple[str, float], ...] = ()  # (observation term, standard deviation [unit of the observation])


@dataclass(frozen=True)
class RobotSpec:
    """Everything about a robot that a number can say. Frozen, hashable to `sha256`, JSON in and out without loss."""

    name: str
    mjcf: (
        str  # "scene.xml" or "robot.urdf" beside robot.yaml, "dm_control.suite:cheetah", "dm_control.manipulation:..."
    )
    control_dt: float  # [s] one control step; a multiple of the physics step
    episode_seconds: float  # [s] time limit of an episode: truncation, never termination
    observation: tuple[ObservationTerm, ...]
    action: tuple[ActionTerm, ...]
    description: str = ""
    task: str | None = None  # "dm_control.suite:cheetah/run": evaluation only, never seen by the learner
    sensors: tuple[AddedSensor, ...] = ()
    joint_limits: tuple[JointLimit, ...] = ()
    default_pose: tuple[tuple[str, float], ...] = ()  # joint -> position [rad | m]; others as in the model
    overrides: tuple[tuple[str, str, tuple[float, ...]], ...] = ()  # (MjModel field, element name, values)
    reset: ResetSpec = field(default_factory=ResetSpec)
    stretch: tuple[tuple[str, float], ...] = ()  # (body, factor): bones longer or shorter than the model file's
    format: int = SPEC_FORMAT_VERSION
    safety: SafetySpec = field(default_factory=SafetySpec, compare=False)  # not part of the identity
    randomize: Randomization | None = field(default=None, compare=False)  # for training; not part of the identity
    practice_seconds: float | None = field(default=None, compare=False)  # [s] an episode of training; None: a whole one
    terminate: tuple[TerminationLimit, ...] = field(default=(), compare=False)  # of the task; not part of the identity
    directory: Path | None = field(default=None, compare=False)  # where robot.yaml lay; not part of the identity

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The wiring list: every raw measurement once, in the order of first use; a SensorReading has these values."""
        return tuple(dict.fromkeys(channel for term in self.observation for channel in term.channels))

    @cached_property
    def channel_units(self) -> tuple[str, ...]:
        """Unit of each entry of `channels`."""
        unit = {channel: term.unit for term in self.observation for channel in term.channels}
        return tuple(unit[channel] for channel in self.channels)

    @property
    def obs_dim(self) -> int:
        """Length of an observation."""
        return sum(len(term.channels) for term in self.observation)

    @property
    def act_dim(self) -> int:
        """Length of an action and of a command."""
        return len(self.action)

    @property
    def episode_steps(self) -> int:
        """Control steps in a full-length episode."""
        return round(self.episode_seconds / self.control_dt)

    @property
    def practice_steps(self) -> int:
        """Control steps in an episode of training, where nothing else is asked for."""
        return round((self.practice_seconds or self.episode_seconds) / self.control_dt)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One readable name per observation element: "position/bthigh", "orientations/torso_x[0]"."""
        return tuple(
            f"{term.name}/{channel.split('/', 1)[1]}" for term in self.observation for channel in term.channels
        )

    def elements(self, name: str) -> list[int]:
        """Indices of the observation element of that name, or of all elements of the term of that name; may be none."""
        names = enumerate(self.observation_names)
        return [i for i, element in names if name in (element, element.split("/", 1)[0])]

    @property
    def observes(self) -> str:
        """What may be named in `elements`, for messages."""
        names = ", ".join(self.observation_names)
        return f"{self.name} observes {names}; what is before the slash names all of that term"

    @property
    def action_names(self) -> tuple[str, ...]:
        """Actuator names, in the order of actions and commands."""
        return tuple(term.actuator for term in self.action)

    def require_same_names(self, other: RobotSpec, what: str) -> None:
        """Refuses what was made for this robot where `other` does not observe and act in the same terms.

        Args:
            other: The robot on which it is to be used, such as this one with longer legs.
            what: What was made, for the message.

        Raises:
            RobotSpecError: Other observations or actions, or in another order.
        """
        ours, theirs = (self.observation_names, self.action_names), (other.observation_names, other.action_names)
        if ours != theirs:
            raise RobotSpecError(
                f"{what} of {self.name} with {len(ours[0])} observations and {len(ours[1])} actions; "
                f"{other.name} has {len(theirs[0])} and {len(theirs[1])}, and names and order must be the same"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data; `spec_from_dict` is the exact inverse (but for `directory`)."""
        data = dataclasses.asdict(self)
        del data["directory"]
        return data

    @cached_property
    def sha256(self) -> str:
        """Identity of the robot: hex SHA-256 of the canonical JSON. Demos, checkpoints and bundles carry it."""
        data = {key: value for key, value in self.to_dict().items() if key not in NOT_IDENTITY}
        if not self.stretch:
            del data["stretch"]  # robots from before this field keep their identity
        if self.reset.tool is None:
            del data["reset"]["tool"]  # the same
        for term in data["action"]:
            del term["joint"]  # the actuator's name says which one of the model it is
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def spec_from_dict(data: dict[str, Any]) -> RobotSpec:
    """Rebuilds a RobotSpec from `RobotSpec.to_dict()` data, as read back from JSON.

    Args:
        data: What `to_dict` returned, possibly after a trip through JSON (tuples became lists).

    Returns:
        The same spec: `spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec`.

    Raises:
        RobotSpecError: The data is of a newer format, or lacks or adds fields.
    """
    if not isinstance(data, dict):
        raise RobotSpecError(f"robot spec: expected a mapping, got {type(data).__name__}")
    version = data.get("format")
    if version != SPEC_FORMAT_VERSION:
        raise RobotSpecError(
            f"robot spec of format {version!r}; this version of gcl reads format {SPEC_FORMAT_VERSION}"
        )
    try:
        reset = dict(data["reset"])
        for key in ("joint_pos", "joint_vel"):
            reset[key] = tuple((name, Distribution(**dist)) for name, dist in reset[key])
        reset["world"] = tuple(WorldPlacement(**_tuples(item)) for item in reset["world"])
        tool = reset.get("tool")
        reset["tool"] = None if tool is None else ToolPose(**_tuples(tool))
        converted: dict[str, Any] = {
            "observation": tuple(ObservationTerm(**_tuples(item)) for item in data["observation"]),
            "action": tuple(ActionTerm(**item) for item in data["action"]),
            "sensors": tuple(AddedSensor(**item) for item in data["sensors"]),
            "joint_limits": tuple(JointLimit(**item) for item in data["joint_limits"]),
            "default_pose": tuple((name, value) for name, value in data["default_pose"]),
            "overrides": tuple((field_, name, tuple(values)) for field_, name, values in data["overrides"]),
            "stretch": tuple((body, factor) for body, factor in data.get("stretch", ())),
            "reset": ResetSpec(**reset),
            "randomize": _randomization(data.get("randomize")),
            "safety": safety_from_dict(data.get("safety")),
            "terminate": tuple(TerminationLimit(**item) for item in data.get("terminate", ())),
        }
        return RobotSpec(**{**data, **converted})
    except (KeyError, TypeError, ValueError) as error:
        raise RobotSpecError(f"robot spec data is damaged: {error}") from error


def _randomization(data: dict[str, Any] | None) -> Randomization | None:
    if data is None:
        return None
    noise = tuple((term, std) for term, std in data["noise"])
    return Randomization(**{**_tuples(data), "noise": noise})


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
