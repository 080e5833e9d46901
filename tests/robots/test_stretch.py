"""Stretching a bone moves what hangs on it, grows its mass by its volume, and touches nothing else."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robots import RobotSpec, RobotSpecError, load_robot
from robots.model import compile_model
from robots.spec import ResetSpec

# A thigh on a joint that is not at its origin, and a turned shin whose joint is not at its origin either
LEG = """<mujoco><compiler settotalmass="{total}"/><worldbody><body name="thigh" pos="0 0 1">
  <joint name="hip" pos="0 0 .1"/><geom name="thigh" type="capsule" size=".02 .1"/><site name="mark" pos="0 0 -.1"/>
  <body name="shin" pos="0 0 -.2" quat="0 1 0 0"><joint name="knee" pos="0 0 -.1"/>
    <geom name="shin" type="capsule" fromto="0 0 -.1 0 0 .1" size=".02"/></body>
</body></worldbody><actuator><motor name="hip" joint="hip"/></actuator></mujoco>"""


def leg(folder: Path, mjcf: str = LEG, **factors: float) -> RobotSpec:
    (folder / "leg.xml").write_text(mjcf.replace("{total}", "-1"))
    cartpole = load_robot("cartpole")
    return dataclasses.replace(
        cartpole, mjcf="leg.xml", directory=folder, reset=ResetSpec(), control_dt=0.002, stretch=tuple(factors.items()),
        observation=(dataclasses.replace(cartpole.observation[0], channels=("joint_pos/hip",)),),
        action=(dataclasses.replace(cartpole.action[0], actuator="hip", scale=1.0, lower=-1.0, upper=1.0),),
    )  # fmt: skip


def at_rest(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


def test_by_hand(tmp_path: Path) -> None:
    """Hip at 1.1 m stays; thigh, 0.2 m long below it, becomes 0.3 m, so mark and knee go from 0.9 m to 0.8 m."""
    model = compile_model(leg(tmp_path, thigh=1.5))
    data = at_rest(model)
    assert data.joint("hip").xanchor[2] == pytest.approx(1.1)
    assert data.joint("knee").xanchor[2] == pytest.approx(0.8)
    assert data.site("mark").xpos[2] == pytest.approx(0.8)
    assert data.geom("thigh").xpos[2] == pytest.approx(0.95) and model.geom("thigh").size[1] == pytest.approx(0.15)
    assert data.geom("shin").xpos[2] == pytest.approx(0.7) and model.geom("shin").size[1] == pytest.approx(0.1)


def test_a_bone_given_by_its_ends(tmp_path: Path) -> None:
    """A capsule given as fromto grows away from the knee: its middle from 0.8 m to 0.7 m at twice the length."""
    model = compile_model(leg(tmp_path, shin=2.0))
    data = at_rest(model)
    assert data.joint("knee").xanchor[2] == pytest.approx(0.9)
    assert data.geom("shin").xpos[2] == pytest.approx(0.7) and model.geom("shin").size[1] == pytest.approx(0.2)


@pytest.mark.parametrize("total", ["-1", "10"])
def test_mass_follows(tmp_path: Path, total: str) -> None:
    """At the same density, whether the model file fixes a total mass or not."""
    mjcf = LEG.replace("{total}", total)
    model, plain = compile_model(leg(tmp_path, mjcf, thigh=1.5)), compile_model(leg(tmp_path, mjcf))
    ratio = (2 * 0.15 + 4 / 3 * 0.02) / (2 * 0.1 + 4 / 3 * 0.02)
    np.testing.assert_allclose(model.body_mass[1:] / plain.body_mass[1:], [ratio, 1.0], rtol=1e-9)
    assert plain.body_mass.sum() == pytest.approx(10.0) or total == "-1"


def test_factor_one_is_nothing(tmp_path: Path) -> None:
    """Stretched by 1, the model is the same."""
    model, plain = compile_model(leg(tmp_path, thigh=1.0, shin=1.0)), compile_model(leg(tmp_path))
    for field in ("body_pos", "body_mass", "body_inertia", "geom_pos", "geom_size", "geom_quat", "site_pos"):
        np.testing.assert_allclose(getattr(model, field), getattr(plain, field), atol=1e-12)


BOX = LEG.replace('type="capsule" size=".02 .1"', 'type="box" size=".02 .02 .1"')
INERTIA = LEG.replace('<joint name="hip"', '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><joint name="hip"')


@pytest.mark.parametrize(
    ("mjcf", "body", "words"),
    [(LEG, "thihg", "did you mean 'thigh'"), (BOX, "thigh", "capsules"), (INERTIA, "thigh", "inertia")],
)
def test_what_cannot_be_stretched(tmp_path: Path, mjcf: str, body: str, words: str) -> None:
    """A body that is not there, a shape without a length, and an inertia that would not follow are refused."""
    with pytest.raises(RobotSpecError, match=words):
        compile_model(leg(tmp_path, mjcf, **{body: 1.5}))
