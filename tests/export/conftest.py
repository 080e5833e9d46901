"""A small robot, small networks, a bundle of them, and a backend that does what it is told."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from export.to_onnx import write_bundle
from robots.backend import Backend, SensorReading, check_command
from robots.robot_yaml import parse_robot
from robots.spec import RobotSpec

ARM = {
    "name": "arm",
    "mjcf": "arm.xml",
    "control_dt": 0.005,
    "episode_seconds": 1.0,
    "observation": [
        {"name": "position", "joint_pos": ["shoulder", "elbow"], "unit": "rad", "scale": [0.1 + 0.2, 1.0]},
        {"name": "velocity", "joint_vel": ["shoulder", "elbow", "wheel"], "unit": "rad/s", "scale": 1 / 3},
    ],
    "action": [
        {
            "actuator": "shoulder",
            "kind": "position",
            "unit": "rad",
            "scale": 0.7,
            "offset": 0.1,
            "slew": 20.0,
            "kp": 31.7,
            "kd": 0.9,
        },
        {"actuator": "elbow", "kind": "effort", "unit": "N m", "scale": 5.0, "lower": -4.0, "kd": 0.5},
        {"actuator": "wheel", "kind": "velocity", "unit": "rad/s", "scale": 2 / 3},
    ],
    "joint_limits": {
        "shoulder": {"lower": -2.0, "upper": 2.0, "velocity": 10.0},
        "wrist": {"lower": -1.0, "upper": 1.0},
    },
    "default_pose": {"elbow": 0.25},
}


class Policy(torch.nn.Module):
    """Normaliser, two layers, clip: what every policy of ours looks like."""

    mean: torch.Tensor  # (obs_dim,)

    def __init__(self, spec: RobotSpec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(-0.3, 0.4, spec.obs_dim))
        self.net = torch.nn.Sequential(
            torch.nn.Linear(spec.obs_dim, 16), torch.nn.Tanh(), torch.nn.Linear(16, spec.act_dim)
        )

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return self.net(((observation - self.mean) / 0.7).clamp(-10, 10)).clamp(-1, 1)


class Reward(torch.nn.Module):
    """One number a step, from two inputs or three."""

    def __init__(self, spec: RobotSpec, uses_next_observation: bool = False) -> None:
        super().__init__()
        self.uses_next_observation = uses_next_observation
        width = spec.obs_dim * (2 if uses_next_observation else 1) + spec.act_dim
        self.net = torch.nn.Sequential(torch.nn.Linear(width, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def forward(
        self, observation: torch.Tensor, action: torch.Tensor, next_observation: torch.Tensor | None = None
    ) -> torch.Tensor:
        inputs = [observation, action] if next_observation is None else [observation, action, next_observation]
        return self.net(torch.cat(inputs, dim=-1)).squeeze(-1)


class StillBackend(Backend):
    """A robot that measures zeros, at once or after a delay; `on_step` may tamper with each reading or raise."""

    def __init__(
        self, spec: RobotSpec, on_step: Callable[[SensorReading], SensorReading] | None = None, delay: float = 0.0
    ) -> None:
        self.spec, self.on_step, self.delay = spec, on_step, delay
        self.commands: list[np.ndarray] = []
        self.sequence = 0

    def reset(self) -> SensorReading:
        self.sequence = 0
        return SensorReading(np.zeros(len(self.spec.channels)), time.monotonic_ns(), 0)

    def step(self, command: np.ndarray) -> SensorReading:
        check_command(self.spec, command)
        self.commands.append(command.copy())
        time.sleep(self.delay)
        self.sequence += 1
        reading = SensorReading(np.zeros(len(self.spec.channels)), time.monotonic_ns(), self.sequence)
        return reading if self.on_step is None else self.on_step(reading)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def arm() -> RobotSpec:
    """A robot of one position, one effort and one velocity drive."""
    return parse_robot(ARM)


@pytest.fixture(scope="session")
def make_parts(arm: RobotSpec) -> Callable[..., Any]:
    """Makes what the exporter needs, with some of it replaced."""

    def make(**changes: object) -> SimpleNamespace:
        torch.manual_seed(1)
        rng = np.random.default_rng(1)
        parts = {
            "policy_module": Policy(arm),
            "reward_module": Reward(arm),
            "spec": arm,
            "settings": {"seed": 3, "learning_rate": 0.1 + 0.2, "layers": [16]},
            "demos": {"chain_sha256": "ab" * 32, "n_episodes": 5, "spec_sha256": arm.sha256},
            "sample_observations": rng.normal(size=(300, arm.obs_dim)).astype(np.float32),
            "sample_actions": rng.uniform(-1, 1, (300, arm.act_dim)).astype(np.float32),
        }
        return SimpleNamespace(**{**parts, **changes})

    return make


@pytest.fixture(scope="session")
def pristine(make_parts: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle nobody writes to."""
    path = tmp_path_factory.mktemp("export") / "arm.bundle"
    write_bundle(path, make_parts())
    return path


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the bundle to damage."""
    yield Path(shutil.copytree(pristine, tmp_path / "arm.bundle"))


@pytest.fixture(scope="session")
def still() -> type[StillBackend]:
    """The class of the obedient backend."""
    return StillBackend


@pytest.fixture(scope="session")
def three_input_reward(arm: RobotSpec) -> torch.nn.Module:
    """A reward that also looks at the observation after."""
    torch.manual_seed(2)
    return Reward(arm, uses_next_observation=True)
