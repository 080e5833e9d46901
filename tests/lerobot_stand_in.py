"""A robot with the method names of LeRobot's `Robot`, and a `lerobot` package with a registry like the real one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STRIDE = 10.0  # [its own unit] how far a joint gets for each goal it is sent


@dataclass
class Config:
    port: str = "nowhere"
    disable_torque_on_disconnect: bool = True


@dataclass
class Bus:
    """The motors' torque, as LeRobot's motor buses switch it."""

    torque: bool = True
    log: list[str] = field(default_factory=list)

    def enable_torque(self) -> None:
        self.torque = True
        self.log.append("enable_torque")

    def disable_torque(self) -> None:
        self.torque = False
        self.log.append("disable_torque")


class Follower:
    """Joints that go where they are sent, a stride each time."""

    name = "stand_in"

    def __init__(self, positions: dict[str, float] | None = None, **changes: Any) -> None:
        start = {"pan.pos": 30.0, "lift.pos": -45.0, "gripper.pos": 20.0} if positions is None else positions
        self.config: Any = Config()
        self.bus: Any = Bus()
        self.positions, self.goals = dict(start), dict(start)
        self.extra: dict[str, Any] = {"front": object()}  # a camera's image is in every observation
        self.observation_features: dict = {**dict.fromkeys(start, float), "front": (480, 640, 3)}
        self.action_features: dict = dict.fromkeys(start, float)
        self.is_connected, self.is_calibrated = False, True
        self.connected_with: list[dict] = []
        self.sent: list[dict[str, float]] = []
        self.clamp: dict[str, tuple[float, float]] = {}  # by key, what it really sends
        self.failures: dict[str, int] = {}  # how many more calls of a method fail
        for name, value in changes.items():
            setattr(self, name, value)

    def connect(self, calibrate: bool = True) -> None:
        self._fail("connect")
        self.connected_with.append({"calibrate": calibrate})
        self.is_connected = True

    def get_observation(self) -> dict[str, Any]:
        self._fail("get_observation")
        return {**self.positions, **self.extra}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._fail("send_action")
        self.bus.log.append("send_action")
        really = {key: min(max(value, self.clamp[key][0]), self.clamp[key][1]) if key in self.clamp else value
                  for key, value in action.items()}  # fmt: skip
        self.sent.append(dict(action))
        self.goals.update(really)
        if self.bus.torque:
            for key, goal in self.goals.items():
                self.positions[key] += max(-STRIDE, min(STRIDE, goal - self.positions[key]))
        return really

    def disconnect(self) -> None:
        self._fail("disconnect")
        self.is_connected = False
        if getattr(self.config, "disable_torque_on_disconnect", False):
            self.bus.disable_torque()

    def _fail(self, name: str) -> None:
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise ConnectionError(f"{name} has no answer")


MADE: list[Follower] = []  # by `make`, the newest last


def make(**changes: Any) -> Follower:
    MADE.append(Follower(**changes))
    return MADE[-1]


def make_nothing() -> object:
    return object()


PACKAGE = {
    "draccus.py": '''
def decode(cls, data):
    data = dict(data)
    return cls.get_choice_class(data.pop("type"))(**data)
''',
    "lerobot/__init__.py": "",
    "lerobot/utils/__init__.py": "",
    "lerobot/utils/import_utils.py": '''
def register_third_party_plugins():
    import lerobot_robot_plugged
''',
    "lerobot_robot_plugged.py": '''
from lerobot.robots import RobotConfig

@RobotConfig.register_subclass("plugged")
class PluggedConfig: pass
''',
    "lerobot/robots/__init__.py": '''
class RobotConfig:
    _registry = {}
    @classmethod
    def register_subclass(cls, name):
        return lambda config: cls._registry.setdefault(name, config)
    @classmethod
    def get_known_choices(cls): return cls._registry
    @classmethod
    def get_choice_class(cls, name): return cls._registry[name]

def make_robot_from_config(config):
    from lerobot.robots.so_follower import SO101Follower
    return SO101Follower(config)
''',
    "lerobot/robots/broken/__init__.py": "import an_sdk_that_is_not_installed",
    "lerobot/robots/so_follower/__init__.py": '''
from dataclasses import dataclass
from lerobot.robots import RobotConfig
from lerobot_stand_in import Follower

@RobotConfig.register_subclass("so101_follower")
@dataclass
class SO101FollowerConfig:
    port: str
    id: str | None = None
    disable_torque_on_disconnect: bool = True

class SO101Follower(Follower):
    def __init__(self, config):
        super().__init__()
        self.config = config
''',
}  # fmt: skip


def write_package(folder: Path) -> None:
    """Puts a package `lerobot` into a folder, for a process with that folder on its path."""
    for name, source in PACKAGE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
