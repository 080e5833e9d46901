"""Opens a robot by the name of its driver: each is imported only when it is wanted, for each needs something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from robots.backend import Backend, BackendError
from robots.hardware import DRIVERS, HardwareSpec
from robots.spec import RobotSpec

SIMULATED = ("sim", "mock")  # move nothing
BACKENDS = (*SIMULATED, *DRIVERS)
# What a missing module means to a person
_BROUGHT_BY = {
    "mujoco": "pip install 'gcl-toolkit[train]'",
    "scservo_sdk": "pip install 'gcl-toolkit[serial]'",
    "dynamixel_sdk": "pip install 'gcl-toolkit[serial]'",
    "serial": "pip install 'gcl-toolkit[serial]'",
    "cyclonedds": "pip install 'gcl-toolkit[ros2]'",
    "lerobot": "give --driver-python, the Python of the environment in which LeRobot is installed",
}


def open_backend(kind: str, spec: RobotSpec, *, seed: int = 0, hardware: Path | None = None) -> Backend:
    """Opens a robot, or what stands in for it.

    Args:
        kind: One of BACKENDS.
        spec: The robot.
        seed: How a simulated robot's or the mock's episodes begin.
        hardware: The file that says how this very robot is wired; not for sim and mock.

    Returns:
        The open backend, not yet reset.

    Raises:
        ToolkitError: No such driver, something it needs is not installed, or the robot cannot be reached.
    """
    if kind not in BACKENDS:
        raise BackendError(f"no driver {kind!r}; legal are {', '.join(BACKENDS)}")
    if (kind in DRIVERS) != (hardware is not None):
        raise BackendError(f"driver {kind} needs a hardware.yaml" if kind in DRIVERS else f"{kind} has no hardware")
    try:
        if hardware is not None:
            from robots.hardware_yaml import read_hardware

            wired = read_hardware(hardware, spec)
            if wired.driver != kind:
                raise BackendError(f"the hardware.yaml is of driver {wired.driver}, --backend is {kind}")
            return open_driver(spec, wired)
        if kind == "mock":
            from robots.mock import MockBackend

            return MockBackend(spec, seed)
        from robots.sim import MujocoBackend

        return MujocoBackend(spec, seed)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _BROUGHT_BY:
            raise
        raise BackendError(f"{missing} is not installed here: {_BROUGHT_BY[missing]}") from error


def open_driver(spec: RobotSpec, hardware: HardwareSpec) -> Backend:
    """Opens a real robot.

    Args:
        spec: The robot.
        hardware: Its wiring, which names the driver.

    Returns:
        The open backend, not yet reset.

    Raises:
        ToolkitError: The wiring says something that is not legal, or the robot cannot be reached.
        ModuleNotFoundError: Something that the driver needs is not installed.
    """
    if hardware.driver == "serial":
        from robots.serial_bus import SerialBackend

        return SerialBackend(spec, hardware)
    if hardware.driver == "lerobot":
        from robots.lerobot_robot import LerobotBackend

        return LerobotBackend(spec, hardware)
    from robots.driver_process import DriverProcess
    from robots.ros2 import Ros2Backend
    from robots.ros2_options import read_options

    options = read_options(spec, hardware)
    # A read-only view of the options could not be sent to a process.
    wired = dataclasses.replace(hardware, options=dict(hardware.options))
    # Cyclone DDS parses what strangers send, and can be made to crash by it.
    return DriverProcess(Ros2Backend, spec, wired, options.wait_seconds + spec.control_dt, options.reset_seconds + 1.0)
