"""Episodes to put into stores."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos.episode import Episode
from demos.store import DemoStore
from robots import RobotSpec, load_robot

MakeEpisode = Callable[..., Episode]


@pytest.fixture(scope="session")
def spec() -> RobotSpec:
    return load_robot("cheetah")


@pytest.fixture
def make_episode(spec: RobotSpec) -> MakeEpisode:
    """Makes a random episode of `length` steps that differs from every other seed's; anything may be overridden."""

    def make(length: int = 7, seed: int = 0, **changes: Any) -> Episode:
        rng = np.random.default_rng(seed)
        fields: dict[str, Any] = {
            "observations": rng.normal(size=(length + 1, spec.obs_dim)).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(length, spec.act_dim)).astype(np.float32),
            "timestamps": np.cumsum(rng.uniform(0.009, 0.011, size=length + 1)) - 0.009,
            "rewards": rng.uniform(size=length).astype(np.float32),
            "ended_by": "truncation",
            "operator": "test",
            "task": "to test",
            "seed": seed,
            "start_time_ns": 1_800_000_000_000_000_000 + seed,
        }
        return Episode(**(fields | changes))

    return make


@pytest.fixture
def store(tmp_path: Path, spec: RobotSpec) -> Iterator[DemoStore]:
    """An empty store, opened for writing."""
    with DemoStore.create(tmp_path / "demos.zarr", spec) as made:
        yield made
