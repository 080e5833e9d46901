"""Sensors computed alone are those of mj_forward, to the bit, and see each state's own model."""

import copy

import mujoco
import numpy as np
import pytest

from robots import load_robot
from robots.channels import FULL_STATE, ChannelMap
from robots.model import compile_model
from robots.sensing import SensorBatch


def states(model: mujoco.MjModel, count: int) -> np.ndarray:
    """[B, num_state] anywhere, moving."""
    rng, data = np.random.default_rng(0), mujoco.MjData(model)
    rows = np.empty((count, mujoco.mj_stateSize(model, FULL_STATE)))
    for row in rows:
        data.qpos[:], data.qvel[:] = rng.normal(size=model.nq), rng.normal(size=model.nv)
        mujoco.mj_normalizeQuat(model, data.qpos)
        mujoco.mj_getState(model, data, row, FULL_STATE)
    return rows


def expected(model: mujoco.MjModel, channels: ChannelMap, row: np.ndarray) -> np.ndarray:
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, row, FULL_STATE)
    mujoco.mj_forward(model, data)
    return channels.read(row, data.sensordata)


@pytest.mark.parametrize(
    ("name", "stage"), [("walker", mujoco.mjtStage.mjSTAGE_POS), ("humanoid", mujoco.mjtStage.mjSTAGE_VEL)]
)
def test_equals_forward(name: str, stage: mujoco.mjtStage) -> None:
    """Computed only as far as the robot's sensors need, they are the same; twice, since states must not mix."""
    spec = load_robot(name)
    model = compile_model(spec, textures=False)
    channels = ChannelMap(spec, model)
    assert channels.fresh_stage == stage
    sensors = SensorBatch(model, None, channels, 5, 1)
    rows = states(model, 5)
    for given in (rows, rows[::-1]):
        shown = channels.read(given, sensors(given))
        np.testing.assert_array_equal(shown, [expected(model, channels, row) for row in given])


def test_own_models() -> None:
    """Each state is seen through its own model, also one that is edited later, also when there is one state only."""
    spec = load_robot("reacher")
    model = compile_model(spec, textures=False)
    channels = ChannelMap(spec, model)
    for count in (1, 3):
        sensors, rows = SensorBatch(model, [model] * count, channels, count, 1), states(model, count)
        edited = []
        for i, own in enumerate(sensors.models):
            own.geom("target").pos = (0.1 * i, 0.05, 0.01)
            edited.append(copy.copy(model))
            edited[-1].geom("target").pos = own.geom("target").pos
        sensors.models_changed()
        shown = channels.read(rows, sensors(rows))
        wanted = [expected(each, channels, row) for each, row in zip(edited, rows, strict=True)]
        np.testing.assert_array_equal(shown, wanted)
