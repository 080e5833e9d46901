"""SerialBackend: an arm of bus servos on a serial port, position-driven.

It never moves by itself: a reset tells each servo to stay where it stands before torque comes on, and closing leaves
torque on unless told otherwise, for an arm that goes limp drops. What a servo says badly once costs one repeated
reading; what it keeps saying badly, or not at all, is an error with its name, after which only a reset goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from robots.backend import Backend, BackendError, SensorReading, check_command
from robots.bus_port import BusPort
from robots.dynamixel import DynamixelBus
from robots.feetech import FeetechBus
from robots.hardware import HardwareSpec, Wiring
from robots.serial_options import parse_serial
from robots.servo_bus import RADIANS_PER_TICK, TICKS, Register, ServoBus, ServoError
from robots.spec import RobotSpec, RobotSpecError

_Answer = TypeVar("_Answer")
_LARGEST_ID = 252
_CHECK_SECONDS = 1.0  # [s] how often it is asked whether torque is still on: after a power cut a servo answers, limp
_WATCHDOG_SHARE = 0.9  # of the servos' patience: past it they may have stopped, and would take goals without a word
_BUSES: dict[str, type[ServoBus]] = {"feetech": FeetechBus, "dynamixel": DynamixelBus}


class SerialBackend(Backend):
    """Drives bus servos. Raw position is 0 in the middle of a servo's turn, at 2048 ticks, and grows with its ticks."""

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec) -> None:
        """Checks that the wiring can be served and opens the port; nothing is sent.

        Args:
            spec: The robot; its actions are positions in rad.
            hardware: Its wiring, of driver `serial`.

        Raises:
            RobotSpecError: Options that are not legal, or a robot that bus servos cannot be.
            BackendError: The port cannot be used, or the SDK is missing.
        """
        self.spec, self.options = spec, parse_serial(hardware.options)
        self._wiring = Wiring(spec, hardware)
        servos = [_servo_id(source) for source in self._wiring.sources]
        if len(set(servos)) < len(servos):
            raise RobotSpecError(f"joints: two sources are the same servo: {', '.join(self._wiring.sources)}")
        registers = _BUSES[self.options.protocol].registers
        self._driven = [_servo_id(source) for source in self._wiring.target_sources]
        self._driven_at = [servos.index(servo) for servo in self._driven]  # (act_dim,) places in the bus's order
        self._check_served()
        self._blocks: tuple[Register, ...] = (registers.position, registers.velocity)
        if self._wiring.effort_sources:
            self._blocks += (registers.current,)
        port = BusPort(self.options.port, self.options.baudrate, self.options.answer_seconds)
        try:
            self._bus: ServoBus = _BUSES[self.options.protocol](port, servos)
        except BackendError:
            port.close()
            raise
        self._port: BusPort | None = port
        self.misses = 0  # rounds without a good answer since the last one
        self._last: SensorReading | None = None
        self._running = self._torque = False
        self._velocity_unit: np.ndarray | None = None  # (n_sources,) [rad/s]
        self._lower, self._upper = (np.empty(spec.act_dim, dtype=np.int64) for _ in range(2))  # [ticks]
        self._spoken = self._checked = 0.0  # [s] monotonic: the last word to the servos, the last look at their torque
        self._effort, self._sensors = np.zeros(len(servos)), np.empty(0)

    def reset(self) -> SensorReading:
        """Takes the servos over where they stand: each gets its present position as goal, then torque. Nothing moves.

        Returns:
            The first reading.

        Raises:
            BackendError: Closed; a servo does not answer, is in another mode, has limits that the robot's commands
                exceed, stands outside them, or does not take what it is told.
        """
        self._open()
        self._running = False
        registers = self._bus.registers
        self._check_servos(registers.mode, registers.lower, registers.upper)
        (position,) = self._ask(registers.position)
        goals = [position[at] for at in self._driven_at]
        self._check_inside(goals)
        if registers.watchdog is not None:
            self._tell(registers.watchdog, [0] * len(goals))  # a watchdog that has bitten lets no goal through
        self._tell(registers.goal, goals)
        self._tell(registers.torque, [1] * len(goals))
        self._torque = True
        if registers.watchdog is not None and self.options.watchdog_seconds is not None:
            patience = max(1, round(self.options.watchdog_seconds / registers.watchdog_seconds))
            self._tell(registers.watchdog, [patience] * len(goals))
        self._last, self.misses, self._checked = None, 0, time.monotonic()
        reading = self._measure()
        self._running = True
        return reading

    def step(self, command: np.ndarray) -> SensorReading:
        """Sends the goals and reads where the servos are, some milliseconds later."""
        self._open()
        if not self._running:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        try:
            self._check_grip()
            ticks = _ticks(self._wiring.targets(command))
            np.clip(ticks, self._lower, self._upper, out=ticks)
            self._bus.write(self._bus.registers.goal, ticks.tolist(), self._driven)
            return self._measure()
        except BackendError:
            self._running = False
            raise

    def measure(self) -> SensorReading:
        """Reads where the servos are and tells them nothing: torque stays as it is."""
        self._open()
        return self._measure()

    def close(self) -> None:
        """Lets go of the port, and of the arm only if the option `on_close` says so. Closing twice is allowed.

        Raises:
            BackendError: `on_close` is release and a servo did not confirm it; the port is closed all the same.
        """
        if self._port is None:
            return
        registers = self._bus.registers
        try:
            if self._torque and registers.watchdog is not None and self.options.watchdog_seconds is not None:
                with contextlib.suppress(BackendError):  # without it the servos stop where they are: as good
                    self._bus.write(registers.watchdog, [0] * len(self._driven), self._driven)
            if self._torque and self.options.on_close == "release":
                self._tell(registers.torque, [0] * len(self._driven))
        finally:
            self._port.close()
            self._port, self._running = None, False

    def _open(self) -> None:
        if self._port is None:
            raise BackendError("the serial port is closed")

    def _check_served(self) -> None:
        """Refuses what bus servos cannot do."""
        if self._wiring.sensor_sources:
            raise RobotSpecError(
                f"sensors: bus servos measure joints only; nothing gives {', '.join(self._wiring.sensor_sources)}"
            )
        other = [term.actuator for term in self.spec.action if (term.kind, term.unit) != ("position", "rad")]
        if other:
            raise RobotSpecError(f"bus servos take positions in rad; of another kind or unit are {', '.join(other)}")
        if self._wiring.effort_sources and self.options.effort_per_unit is None:
            raise RobotSpecError(
                "serial.effort_per_unit is missing: efforts are wired, and a servo measures current; "
                "say how many N m one unit of its current register means"
            )
        for bound in ("lower", "upper"):
            reach = _ticks(self._wiring.targets(np.array([getattr(term, bound) for term in self.spec.action])))
            for i in np.flatnonzero((reach < 0) | (reach >= TICKS)):
                raise RobotSpecError(
                    f"{self.spec.action[i].actuator} may be told {getattr(self.spec.action[i], bound):g} rad, which is "
                    f"tick {reach[i]} of servo {self._driven[i]}; a servo turns from 0 to {TICKS - 1}: "
                    "check sign and offset, or narrow the action's lower and upper"
                )

    def _check_servos(self, mode: Register, lower: Register, upper: Register) -> None:
        """Refuses servos that are set up for something else."""
        modes, lows, highs = (self._ask(register)[0] for register in (mode, lower, upper))
        least, most = (
            _ticks(self._wiring.targets(np.array([getattr(term, bound) for term in self.spec.action])))
            for bound in ("lower", "upper")
        )
        for i, (servo, at) in enumerate(zip(self._driven, self._driven_at, strict=True)):
            if modes[at] not in self._bus.registers.position_modes:
                legal = " or ".join(map(str, self._bus.registers.position_modes))
                raise BackendError(
                    f"servo {servo} is in operating mode {modes[at]}; a position drive is in mode {legal}"
                )
            low, high = min(least[i], most[i]), max(least[i], most[i])
            if low < lows[at] or high > highs[at]:
                raise BackendError(
                    f"servo {servo} takes goals from tick {lows[at]} to {highs[at]}; {self.spec.action_names[i]} may "
                    f"be told {low} to {high}: widen the servo's limits or narrow the action's lower and upper"
                )
            self._lower[i], self._upper[i] = lows[at], highs[at]

    def _check_inside(self, goals: list[int]) -> None:
        for servo, goal, low, high in zip(self._driven, goals, self._lower, self._upper, strict=True):
            if not low <= goal <= high:
                raise BackendError(
                    f"servo {servo} stands at tick {goal}, outside its limits {low} to {high}: torque would make it "
                    "jump; move it inside by hand"
                )

    def _check_grip(self) -> None:
        """Notices what no answer tells: a watchdog that has bitten, a servo that let go in a power cut."""
        now, registers, patience = time.monotonic(), self._bus.registers, self.options.watchdog_seconds
        if patience is not None and now - self._spoken > _WATCHDOG_SHARE * patience:
            raise BackendError(
                f"nobody spoke to the servos for {now - self._spoken:.3g} s, and after {patience:g} s their watchdog "
                "stops them; reset takes them over again"
            )
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        try:
            (torque,) = self._bus.read(registers.torque)
        except ServoError:
            return  # this round's reading will say the same, and is counted
        limp = [servo for servo, at in zip(self._driven, self._driven_at, strict=True) if torque[at] != 1]
        if limp:
            raise BackendError(f"servo {limp[0]} has let go (torque off): was its power cut?")

    def _tell(self, register: Register, values: list[int]) -> None:
        """Writes to the driven servos and makes sure that they took it."""
        servo = kept = value = 0
        for _ in range(self.options.repeats + 1):
            self._bus.write(register, values, self._driven)
            (taken,) = self._ask(register)
            told = zip(self._driven, self._driven_at, values, strict=True)
            wrong = [(servo, taken[at], value) for servo, at, value in told if taken[at] != value]
            if not wrong:
                return
            servo, kept, value = wrong[0]
        raise BackendError(f"servo {servo} was told {value} in register {register.address} and keeps {kept}")

    def _ask(self, *registers: Register) -> list[list[int]]:
        return self._patiently(lambda: self._bus.read(*registers))

    def _patiently(self, ask: Callable[[], _Answer]) -> _Answer:
        """Asks again after a bad answer, a bounded number of times."""
        for _ in range(self.options.repeats):
            try:
                found = ask()
                break
            except ServoError:
                continue
        else:
            found = ask()
        self._spoken = time.monotonic()
        return found

    def _measure(self) -> SensorReading:
        """A fresh reading, or the last one once more while the servos' silence is bearable."""
        if self._velocity_unit is None:
            self._velocity_unit = np.array(self._patiently(self._bus.radians_per_second))
        if self._last is None:
            found = self._ask(*self._blocks)
        else:
            try:
                found = self._bus.read(*self._blocks)
            except ServoError as fault:
                self.misses += 1
                if self.misses <= self.options.repeats:
                    return self._last
                self._running = False
                raise BackendError(f"{fault} ({self.misses} rounds in a row)") from fault
        now = time.monotonic_ns()
        self._spoken, self.misses = now * 1e-9, 0
        position = (np.array(found[0], dtype=np.float64) - TICKS // 2) * RADIANS_PER_TICK
        velocity = np.array(found[1], dtype=np.float64) * self._velocity_unit
        if self._wiring.effort_sources:
            self._effort = np.array(found[2], dtype=np.float64) * (self.options.effort_per_unit or 0.0)
        values = self._wiring.values(position, velocity, self._effort, self._sensors)
        self._last = SensorReading(values, now, 0 if self._last is None else self._last.sequence + 1)
        return self._last


def _servo_id(source: str) -> int:
    if not (source.isascii() and source.isdigit() and int(source) <= _LARGEST_ID):
        raise RobotSpecError(f"joints: source {source!r}; a servo's id is a number from 0 to {_LARGEST_ID}")
    return int(source)


def _ticks(raw: np.ndarray) -> np.ndarray:
    """[ticks] goals for raw positions [rad]."""
    return np.rint(raw / RADIANS_PER_TICK).astype(np.int64) + TICKS // 2
