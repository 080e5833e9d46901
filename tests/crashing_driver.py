"""A driver that a process can open by name: the mock, which dies, hangs or refuses where a test wants it to."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from robots.backend import BackendError, SensorReading
from robots.hardware import HardwareSpec
from robots.mock import MockBackend
from robots.spec import RobotSpec


class CrashingDriver(MockBackend):
    """The mock. `hardware` is its seed, or a folder: a file `die`, `hang`, `slow` or `babble` in it does that, once.

    Two files last: with `fault` each step is told, and refused; with `mute` a reset is refused, and steps after it are.
    """

    def __init__(self, spec: RobotSpec, hardware: HardwareSpec | int | Path) -> None:
        self.folder = hardware if isinstance(hardware, Path) else None
        if self.folder is not None and (self.folder / "refuse").exists():
            raise BackendError("no such robot")
        super().__init__(spec, hardware if isinstance(hardware, int) else 0)
        self.muted = False

    def reset(self) -> SensorReading:
        self.muted = self.folder is not None and (self.folder / "mute").exists()
        if self.muted:
            raise BackendError("no reading")
        return super().reset()

    def step(self, command: np.ndarray) -> SensorReading:
        if self.muted:
            raise BackendError("step before reset")
        if self._asked("die"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._asked("hang"):
            time.sleep(3600.0)
        if self._asked("slow"):
            time.sleep(2.0)
        if self._asked("babble"):
            return SensorReading(np.zeros(1), 0, 7)
        self._tell(command[0])
        if self.folder is not None and (self.folder / "fault").exists():
            raise BackendError("another robot speaks")
        return super().step(command)

    def close(self) -> None:
        self._tell("closed")
        super().close()

    def _asked(self, what: str) -> bool:
        if self.folder is None or not (self.folder / what).exists():
            return False
        (self.folder / what).unlink()
        return True

    def _tell(self, what: object) -> None:
        if self.folder is not None:
            with open(self.folder / "told", "a", encoding="utf-8") as file:
                print(what, file=file)
