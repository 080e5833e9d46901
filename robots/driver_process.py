"""DriverProcess: a driver in a process of its own, so that a crash in the library under it is not the guardian's end.

    python -m robots.driver_process FD      # only ever started from here

A protocol library parses whatever the network brings, in C. When it ends its process, whoever guards the robot is
still there: it hears of it once (`DriverEndedError`), goes on stepping with the reading it has, which is stale by then,
and reaches the robot again through a new process. And when the guardian itself is killed, the driver stays behind,
brings its robot to rest, and ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np

from robots.backend import Backend, BackendError, DriverEndedError, SensorReading, check_command
from robots.hardware import HardwareSpec
from robots.spec import RobotSpec, ToolkitError

_RESET, _MEASURE, _STEP, _CLOSE = b"R", b"M", b"S", b"C"  # asked; a step's command follows as float64
_READY, _READING, _REFUSAL = b"o", b"r", b"e"  # answered; numbers or text follow
_HEAD = struct.Struct("=qq")  # sequence, timestamp [ns]; then the values as float64
_LARGEST = 1 << 16  # bytes in an answer
_START = 10.0  # [s] that a process may take to be ready
_HANG = 1.0  # [s] without an answer to a step after which a driver counts as dead
_REAP = 0.02  # [s] that the system may take to say what a dead process died of
_FAREWELL = 2.0  # [s] that a driver may take to bring its robot to rest

OpenDriver = Callable[[RobotSpec, HardwareSpec], Backend]


class DriverProcess(Backend):
    """Drives a robot through a process that is started again whenever it ends."""

    def __init__(
        self,
        open_driver: OpenDriver,
        spec: RobotSpec,
        hardware: HardwareSpec,
        step_seconds: float,
        reset_seconds: float,
    ) -> None:
        """Starts the process and waits until its driver is open.

        Args:
            open_driver: The driver's class; a module's name for it goes to the process.
            spec: The robot.
            hardware: Its wiring.
            step_seconds: [s] how long a step may take before the last reading is returned instead.
            reset_seconds: [s] how long a reset or a measurement may take.

        Raises:
            BackendError: The driver cannot be opened.
        """
        self.spec = spec
        self._what = (open_driver, spec, hardware)
        self._step_seconds, self._reset_seconds = step_seconds, reset_seconds
        self._last: SensorReading | None = None  # since reset
        self._offset = 0  # of the process's numbers, so that ours go on where the last process stopped
        self._recovering = False  # the process has not reached the robot yet, or not again
        self._closed = False
        self._child: _Child | None = None  # None while it cannot be started, and after the end
        try:
            self._child = self._started()
            self._open(self._child)
        except BackendError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process that drives now."""
        if self._child is None:
            raise BackendError("no driver's process is there just now")
        return self._child.process.pid

    def reset(self) -> SensorReading:
        """As the driver does it; in a new process, if the last one ended.

        After one that is refused, who was driving goes on: steps repeat the last reading until the robot is heard.
        """
        self._check_open()
        self._offset = 0
        try:
            self._last = self._blocking(_RESET)
        except BackendError:
            self._reset_again()
            raise
        return self._last

    def step(self, command: np.ndarray) -> SensorReading:
        """Hands the command to the process; returns the last reading again where no newer one came in time.

        Raises:
            DriverEndedError: The process is gone, said once; the next steps reach the robot through a new one.
            BackendError: Refused by the driver.
        """
        self._check_open()
        if self._last is None:
            raise BackendError("step before reset")
        check_command(self.spec, command)
        return self._promptly(_STEP + command.tobytes(), self._last)

    def measure(self) -> SensorReading:
        """As the driver does it; after a reset with no more patience than `step`."""
        self._check_open()
        return self._blocking(_MEASURE) if self._last is None else self._promptly(_MEASURE, self._last)

    def close(self) -> None:
        """Lets the driver bring its robot to rest, and ends the process. Closing twice is allowed."""
        self._closed = True
        child, self._child = self._child, None
        if child is not None:
            child.end(_FAREWELL)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the connection to the robot is closed")

    def _started(self) -> _Child:
        try:
            return _Child(self._what)
        except OSError as error:  # a limit on processes, memory or files
            raise DriverEndedError(f"a new process for the driver cannot be started: {error}") from error

    def _open(self, child: _Child) -> None:
        """Waits for the driver to be open."""
        try:
            answer = child.answer(time.monotonic() + _START)
        except (EOFError, OSError):
            raise self._ended(child, "ended while it started") from None
        if answer is None:
            raise self._ended(child, f"was not ready within {_START:g} s")
        if answer[:1] != _READY:
            raise BackendError(_text(answer))
        self._recovering, child.was_ready = False, True

    def _promptly(self, request: bytes, last: SensorReading) -> SensorReading:
        """Asks for what must not take long: whoever holds the robot is waiting."""
        child = self._child
        if child is None or self._recovering:
            return self._recover(child, last)
        until = time.monotonic() + self._step_seconds
        try:
            if child.asked_at is not None:
                self._last = last = self._newer(child, child.answer(until), last)
            if child.asked_at is None:
                child.ask(request)
                self._last = last = self._newer(child, child.answer(until), last)
        except (EOFError, OSError):
            raise self._ended(child) from None
        if child.silent_for > _HANG:
            raise self._ended(child, f"did not answer for {_HANG:g} s")
        return last

    def _blocking(self, request: bytes) -> SensorReading:
        """Asks for something that may take a while."""
        child = self._child
        if child is None or self._recovering:
            # Whatever that one is at, nobody waits for it any more.
            if child is not None:
                child.end()
            self._child = None
            self._child = child = self._started()
            self._open(child)
        try:
            # With the answer to an earlier step still due, every later answer would be taken for another one's.
            settled = child.asked_at is None or child.answer(time.monotonic() + _HANG) is not None
            if settled:
                child.ask(request)
            answer = child.answer(time.monotonic() + self._reset_seconds) if settled else None
        except (EOFError, OSError):
            raise self._ended(child) from None
        if answer is None:
            raise self._ended(child, f"did not answer for {child.silent_for:.1f} s")
        return self._reading(child, answer)

    def _reset_again(self) -> None:
        """Has a driver that refused a reset try on, if somebody drives: it takes no step before it has done one."""
        child = self._child
        if self._last is None or child is None or self._recovering:
            return
        self._recovering = True
        with contextlib.suppress(OSError):  # it has ended, which the next step will find
            child.ask(_RESET)

    def _recover(self, child: _Child | None, last: SensorReading) -> SensorReading:
        """One look at how far the process is; nothing is sent through it before it has heard the robot."""
        if child is None:
            with contextlib.suppress(DriverEndedError):  # that there is none was said; it is tried again next time
                self._child = self._started()
            return last
        try:
            answer = child.answer(0.0)
            if answer is not None and answer[:1] != _READING:
                if answer[:1] == _REFUSAL and not child.was_ready:
                    raise self._ended(child, f"could not open the robot: {_text(answer)}")
                child.was_ready = True
                child.ask(_RESET)  # again, if the robot was not heard in time
        except (EOFError, OSError):
            raise self._ended(child) from None
        if child.silent_for > max(_START, self._reset_seconds):
            raise self._ended(child, "did not reach the robot")
        if answer is None or answer[:1] != _READING:
            return last
        self._recovering, self._offset = False, last.sequence + 1
        self._last = self._reading(child, answer)
        return self._last

    def _ended(self, child: _Child, how: str = "") -> DriverEndedError:
        """Starts the next process, or leaves that to the next step; returns what to raise about the last one."""
        code = child.end()
        self._child, self._recovering = None, True
        if not how:
            # The signal's number is all that a crash leaves behind
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        next_one = "a new one is being started"
        try:
            self._child = self._started()
        except DriverEndedError as error:
            next_one = f"{error}; it is tried again and again"
        return DriverEndedError(f"the driver's process {how}; {next_one}")

    def _newer(self, child: _Child, answer: bytes | None, last: SensorReading) -> SensorReading:
        return last if answer is None else self._reading(child, answer)

    def _reading(self, child: _Child, answer: bytes) -> SensorReading:
        if answer[:1] == _REFUSAL:
            raise BackendError(_text(answer))
        expected = 1 + _HEAD.size + 8 * len(self.spec.channels)
        if answer[:1] != _READING or len(answer) != expected:
            raise self._ended(child, f"answered {len(answer)} bytes; expected a reading of {expected}")
        sequence, timestamp_ns = _HEAD.unpack_from(answer, 1)
        values = np.frombuffer(answer, dtype=np.float64, offset=1 + _HEAD.size).copy()
        return SensorReading(values, timestamp_ns, sequence + self._offset)


class _Child:
    """One life of the driver's process."""

    def __init__(self, what: tuple[OpenDriver, RobotSpec, HardwareSpec]) -> None:
        self.asked_at: float | None = None  # [s] monotonic, when what is not answered yet was asked
        self.was_ready = False
        self._pipe, there = Pipe()
        with there:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "robots.driver_process", str(there.fileno())],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[there.fileno()],
                )  # fmt: skip
            except OSError:
                self._pipe.close()
                raise
        with contextlib.suppress(OSError):  # it has ended already, which its answer will tell
            self.ask(what)

    @property
    def silent_for(self) -> float:
        """[s] for how long an answer is due."""
        return 0.0 if self.asked_at is None else time.monotonic() - self.asked_at

    def ask(self, request: bytes | tuple) -> None:
        self.asked_at = time.monotonic()
        if isinstance(request, bytes):
            self._pipe.send_bytes(request)
        else:
            self._pipe.send(request)  # objects go to it, never the other way: it reads what strangers send

    def answer(self, until: float) -> bytes | None:
        """The answer, None if it has not come by then."""
        # The pipe's own `poll` rounds up to whole milliseconds
        if not select.select([self._pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        answer = self._pipe.recv_bytes(_LARGEST)
        self.asked_at = None
        return answer

    def end(self, seconds: float = 0.0) -> int:
        """Ends it, in order if it has some seconds for that; returns its exit code."""
        if seconds > 0.0:
            try:
                self._pipe.send_bytes(_CLOSE)
            except OSError:
                pass  # It is gone already.
        self._pipe.close()
        try:
            # One that died has closed its pipe an instant before it can be waited for
            return self.process.wait(seconds or _REAP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def serve(pipe: Connection) -> None:
    """Opens the driver that the other side names, and does as it is asked until the other side is gone.

    Args:
        pipe: To the other side.
    """
    # The guardian ends in order when a terminal or systemd signals all of a group, and needs its driver for that; and
    # it does not stop for a Ctrl-Z.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # a real-time guardian's class is inherited
    try:
        open_driver, spec, hardware = pipe.recv()
        try:
            driver = open_driver(spec, hardware)
        except ToolkitError as error:
            pipe.send_bytes(_REFUSAL + str(error).encode())
            return
        with driver:
            pipe.send_bytes(_READY)
            while (request := pipe.recv_bytes())[:1] != _CLOSE:
                pipe.send_bytes(_obey(driver, request))
    except (EOFError, ConnectionError):
        pass  # The other side was killed: the driver has brought its robot to rest as it closed.


def _obey(driver: Backend, request: bytes) -> bytes:
    try:
        if request[:1] == _STEP:
            reading = driver.step(np.frombuffer(request, dtype=np.float64, offset=1))
        else:
            reading = driver.reset() if request[:1] == _RESET else driver.measure()
    except ToolkitError as error:
        return _REFUSAL + str(error).encode()
    return _READING + _HEAD.pack(reading.sequence, reading.timestamp_ns) + reading.values.tobytes()


def _text(refusal: bytes) -> str:
    return refusal[1:].decode(errors="replace")


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
