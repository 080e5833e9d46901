"""MujocoBackend keeps the contract, agrees with BatchSim and with dm_control, and says when its physics breaks."""

import dataclasses

import numpy as np
import pytest
from backend_contract import BackendContract

from robots import BackendError, load_robot
from robots.batch import BatchSim
from robots.command import make_command
from robots.observation import make_observation
from robots.sim import MujocoBackend


class TestMujocoBackend(BackendContract):
    spec = load_robot("cartpole")

    def make(self, seed: int = 0) -> MujocoBackend:
        return MujocoBackend(self.spec, seed)


@pytest.mark.parametrize("name", ["reacher", "hopper", "quadruped"])
def test_equals_batch_sim(name: str) -> None:
    """From the same state the backend and BatchSim give the same observation, whatever kinds of sensors are read."""
    spec = load_robot(name)
    backend, sim = MujocoBackend(spec, seed=3), BatchSim(spec, 1, num_threads=1, reset_pool=1)
    sim.reset()
    backend.reset()
    rng = np.random.default_rng(4)
    for _ in range(50):
        target = [backend.model.geom(item.name).pos for item in spec.reset.world]
        data = backend.data
        sim.set_state(data.qpos, data.qvel, data.act, data.time, data.qacc_warmstart, np.reshape(target, (-1, 3)))
        action = rng.uniform(-1, 1, (1, spec.act_dim))
        reading = backend.step(make_command(spec, action[0]))
        observation = make_observation(spec, reading.values)
        np.testing.assert_allclose(sim.step(action).final_observation[0], observation, rtol=0, atol=1e-9)


def test_divergence_is_an_error() -> None:
    """A simulation that blows up raises instead of returning NaN, and a reset mends it."""
    spec = load_robot("cartpole")
    backend = MujocoBackend(spec)
    backend.reset()
    backend.data.qvel[:] = np.nan
    with pytest.raises(BackendError, match="diverged"):
        backend.step(np.zeros(1))
    with pytest.raises(BackendError, match="reset"):
        backend.step(np.zeros(1))
    assert np.isfinite(backend.reset().values).all()


def test_default_pose() -> None:
    """Joints that reset does not draw start at the default pose."""
    spec = load_robot("hopper")
    spec = dataclasses.replace(
        spec, default_pose=(("knee", 0.7),), reset=dataclasses.replace(spec.reset, random_joints=False)
    )
    backend = MujocoBackend(spec)
    backend.reset()
    assert backend.data.joint("knee").qpos[0] == 0.7
    assert backend.data.joint("hip").qpos[0] == 0.0
