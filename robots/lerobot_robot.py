"""LerobotBackend: an arm behind a LeRobot `Robot` object, which is never imported here but only called.

LeRobot cannot be installed beside gcl, so this file and all it imports need numpy, pyyaml and the standard library, and
run in LeRobot's own environment with gcl's folder on PYTHONPATH.

LeRobot's `connect` sets the motors up with torque off and then turns it on: the arm must lie at rest when that happens.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.checked_yaml import did_you_mean
from robots.hardware import HardwareSpec, Wiring
from robots.lerobot_load import load_lerobot
from robots.lerobot_options import parse_lerobot
from robots.sent_actions import SentActions
from robots.spec import RobotSpec, RobotSpecError

_TORQUE_FIELD = "disable_torque_on_disconnect"  # of the robot's config, where it has one


class LerobotBackend(Backend):
    """Drives a LeRobot robot by positions. Connecting waits for the first `measure` or `reset`."""

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec) -> None:
        """Makes the Robot object and checks its features by name; nothing is connected.

        Args:
            spec: The robot; its actions are positions.
            hardware: Its wiring, of driver `lerobot`.

        Raises:
            RobotSpecError: Options that are not legal, or a robot whose features do not cover the wiring.
            BackendError: There is no such Robot object.
        """
        self.spec, self._wiring = spec, Wiring(spec, hardware)
        self.options = parse_lerobot(hardware.options, self._wiring.sources)
        other = [term.actuator for term in spec.action if term.kind != "position"]
        if other:
            raise RobotSpecError(f"LeRobot's arms take positions; of another kind are {', '.join(other)}")
        self.robot: Any = load_lerobot(self.options)
        self._observed, self._actions = dict(self.robot.observation_features), dict(self.robot.action_features)
        self._position = self._keys("position", self._wiring.position_sources)
        measured = () if self.options.velocity == "difference" else self._wiring.velocity_sources
        self._velocity = self._keys("velocity", measured)
        self._effort = self._keys("effort", self._wiring.effort_sources)
        self._differs = self.options.velocity == "difference" and bool(self._wiring.velocity_sources)
        if self._differs:
            self._position |= self._keys("position", self._wiring.velocity_sources)
        self._goals = self._goal_keys()
        self._check_torque_field()
        self._scale, self._shift = self.options.scales(self._wiring.sources)
        self._goal_scale, self._goal_shift = self.options.scales(self._wiring.target_sources)
        self.sent = SentActions(spec, self.options.tolerance)  # what was really sent, for the report
        self._held: dict[str, float] = {}  # actions that the spec does not drive, kept where they were found
        self._arrays = [np.zeros(len(self._wiring.sources)) for _ in range(3)]  # position, velocity, effort
        self._sensors = np.zeros(len(self._wiring.sensor_sources))
        self._before: tuple[np.ndarray, int] | None = None  # positions and time of the last reading
        self._last: SensorReading | None = None
        self._observation: dict[str, Any] = {}  # what the last reading was made of
        self.misses = 0  # rounds without a good reading since the last one
        self._connected = self._running = self._closed = False
        self._prepared = False  # connected, known to be calibrated, and limp until a reset

    def reset(self) -> SensorReading:
        """Takes the arm over where it stands: its present positions are sent as goals before torque is asked for.

        Returns:
            The first reading.

        Raises:
            BackendError: Closed, not reachable, or not calibrated.
        """
        self._connect()
        self._running = False
        self._last, self._before, self.misses = None, None, 0
        self._measure()
        present = {key: float(self._observation[key]) for key in self._actions}
        self._call("send_action", present)
        if self._has_torque_switch():
            self._call("bus.enable_torque")
        self._held = {key: present[key] for key in self._actions if key not in self._goals}
        self._last = None
        reading = self._measure()
        self._running = True
        return reading

    def step(self, command: np.ndarray) -> SensorReading:
        """Sends the goals and reads where the arm is."""
        self._open()
        if not self._running:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        targets = self._wiring.targets(command)
        numbers = (targets - self._goal_shift) / self._goal_scale
        action = dict(zip(self._goals, numbers.tolist(), strict=True)) | self._held
        try:
            answer = self._call("send_action", action)
        except BackendError as error:
            return self._missed(error) or self._measure()
        if isinstance(answer, dict):
            sent = [answer[key] if _is_number(answer.get(key)) else action[key] for key in self._goals]
            self.sent.add(command, self._wiring.commands(self._goal_scale * np.array(sent) + self._goal_shift))
        return self._measure()

    def measure(self) -> SensorReading:
        """Reads where the arm is. Connects if nothing has; an arm whose torque LeRobot can switch is then limp."""
        self._connect()
        return self._measure()

    def close(self) -> None:
        """Disconnects, leaving torque on unless `on_close` is release, and logs what was sent otherwise than asked.

        Closing twice is allowed.

        Raises:
            BackendError: LeRobot could not disconnect.
        """
        if self._closed:
            return
        self._closed, self._running = True, False
        for note in self.sent.notes:
            logging.getLogger(__name__).warning("%s", note)
        if self._connected:
            config = getattr(self.robot, "config", None)
            if hasattr(config, _TORQUE_FIELD):
                setattr(config, _TORQUE_FIELD, self.options.on_close == "release")
            self._call("disconnect")

    def _open(self) -> None:
        if self._closed:
            raise BackendError("the LeRobot robot is closed")

    def _connect(self) -> None:
        self._open()
        if self._prepared:
            return
        if not self._connected:
            self._call("connect", calibrate=False)
            self._connected = True
        if not self._is_calibrated():
            self.close()
            raise BackendError(
                f"{self.robot} is not calibrated: run lerobot-calibrate for it first, with the same type and id"
            )
        if self._has_torque_switch():
            self._call("bus.disable_torque")  # until a reset tells it to stay where it is
        self._prepared = True

    def _is_calibrated(self) -> bool:
        try:
            calibrated = getattr(self.robot, "is_calibrated", True)  # some have a method where others have a property
            return bool(calibrated() if callable(calibrated) else calibrated)
        except Exception as error:  # it may ask the motors
            raise BackendError(f"LeRobot's is_calibrated failed: {type(error).__name__}: {error}") from error

    def _has_torque_switch(self) -> bool:
        bus = getattr(self.robot, "bus", None)
        return all(callable(getattr(bus, name, None)) for name in ("enable_torque", "disable_torque"))

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls the robot; whatever it raises is one kind of error here."""
        method = self.robot
        for part in name.split("."):
            method = getattr(method, part)
        try:
            return method(*args, **kwargs)
        except Exception as error:  # someone else's code: a lost cable raises whatever its SDK likes
            raise BackendError(f"LeRobot's {name} failed: {type(error).__name__}: {error}") from error

    def _observe(self) -> dict[str, Any]:
        """An observation with a finite number for everything that is read: what is read may be sent as a goal."""
        observation = self._call("get_observation")
        needed = [*self._position, *self._velocity, *self._effort, *self._wiring.sensor_sources, *self._actions]
        for key in needed:
            if not _is_finite(observation.get(key) if isinstance(observation, dict) else None):
                found = observation.get(key, "nothing") if isinstance(observation, dict) else observation
                raise BackendError(f"LeRobot's observation has no number for {key}, but {found!r}; it must be finite")
        return observation

    def _measure(self) -> SensorReading:
        """A fresh reading, or the last one once more while that is bearable."""
        while True:
            try:
                observation = self._observe()
                break
            except BackendError as error:
                repeated = self._missed(error)
                if repeated is not None:
                    return repeated
        now = time.monotonic_ns()
        position, velocity, effort = self._arrays
        for key, at in self._position.items():
            position[at] = self._scale[at] * float(observation[key]) + self._shift[at]
        for key, at in self._velocity.items():
            velocity[at] = self._scale[at] * float(observation[key])
        for key, at in self._effort.items():
            effort[at] = float(observation[key])
        self._sensors[:] = [float(observation[key]) for key in self._wiring.sensor_sources]
        if self._differs:
            before, then = self._before or (position, now)
            velocity[:] = (position - before) / max((now - then) * 1e-9, 1e-9)
            self._before = position.copy(), now
        values = self._wiring.values(position, velocity, effort, self._sensors)
        self.misses, self._observation = 0, observation
        self._last = SensorReading(values, now, 0 if self._last is None else self._last.sequence + 1)
        return self._last

    def _missed(self, error: BackendError) -> SensorReading | None:
        """Counts a bad round; the last reading, None if there is none yet. Raises when it was one too many."""
        self.misses += 1
        if self.misses <= self.options.repeats:
            return self._last
        self._running = False
        raise BackendError(f"{error} ({self.misses} rounds in a row)") from error

    def _keys(self, what: str, sources: tuple[str, ...]) -> dict[str, int]:
        """Places in the wiring's arrays by the robot's feature names."""
        keys = {f"{source}.{self.options.keys[what]}": self._wiring.sources.index(source) for source in sources}
        missing = [key for key in keys if key not in self._observed]
        if missing:
            hint = "; velocities can be made of positions: velocity: difference" if what == "velocity" else ""
            raise RobotSpecError(
                f"lerobot: the robot observes no {', '.join(missing)}{did_you_mean(missing[0], self._observed)}; "
                f"it observes {', '.join(self._observed)}{hint}"
            )
        return keys

    def _goal_keys(self) -> list[str]:
        """(act_dim,) the robot's action features by the order of commands."""
        ending = self.options.keys["position"]
        goals = [f"{source}.{ending}" for source in self._wiring.target_sources]
        missing = [key for key in goals if key not in self._actions]
        if missing:
            raise RobotSpecError(
                f"lerobot: the robot takes no {', '.join(missing)}{did_you_mean(missing[0], self._actions)}; "
                f"it takes {', '.join(self._actions)}"
            )
        strange = [key for key in self._actions if key not in goals and key.rpartition(".")[2] != ending]
        if strange:
            raise RobotSpecError(
                f"lerobot: the robot also takes {', '.join(strange)}, which {self.spec.name} does not drive and which, "
                "being no position, cannot be kept where it stands"
            )
        blind = [key for key in (*self._wiring.sensor_sources, *self._actions) if key not in self._observed]
        if blind:
            raise RobotSpecError(
                f"lerobot: the robot does not observe {', '.join(blind)}, and what is driven, or kept where it stands, "
                f"must be known; it observes {', '.join(self._observed)}"
            )
        return goals

    def _check_torque_field(self) -> None:
        if _TORQUE_FIELD in self.options.config:
            raise RobotSpecError(f"lerobot.config.{_TORQUE_FIELD}: say on_close: hold or on_close: release instead")
        if self.options.on_close is not None and not hasattr(getattr(self.robot, "config", None), _TORQUE_FIELD):
            raise RobotSpecError(
                f"lerobot.on_close: {type(self.robot).__name__}'s config has no {_TORQUE_FIELD}, so it cannot be told"
            )


def _is_number(value: object) -> bool:
    """Whether it can be a measurement; numpy's and torch's scalars count, images and None do not."""
    if isinstance(value, (int, float)):
        return not isinstance(value, bool)
    return getattr(value, "shape", None) == () and hasattr(value, "__float__")


def _is_finite(value: Any) -> bool:
    """Whether it is a number that an arm may be sent."""
    try:
        return _is_number(value) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # a complex number, or one beyond every float
        return False
