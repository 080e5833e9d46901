"""What the robot is: names, limits, sensors, commands; simulators; hardware drivers.

Importing this package loads no simulator, so it runs on the robot.
"""

from robots.backend import Backend, BackendError, SensorReading
from robots.robot_yaml import load_robot, robot_names
from robots.spec import RobotSpec, RobotSpecError, ToolkitError, spec_from_dict

__all__ = [
    "Backend",
    "BackendError",
    "RobotSpec",
    "RobotSpecError",
    "SensorReading",
    "ToolkitError",
    "load_robot",
    "robot_names",
    "spec_from_dict",
]
