"""A robot's model: every source, every check, and robots that users bring as MJCF or URDF."""

import dataclasses
import sys
import types
from pathlib import Path

import mujoco
import numpy as np
import pytest
from dm_control import suite

from robots import RobotSpec, RobotSpecError, load_robot, robot_names
from robots.batch import BatchSim
from robots.command import make_command
from robots.model import compile_model, scene_matters, substeps
from robots.observation import make_observation
from robots.sim import MujocoBackend
from robots.spec import AddedSensor, WorldPlacement

MJCF = """
<mujoco model="arm">
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" range="-90 90" limited="true" damping="0.5"/>
      <geom name="upper" type="capsule" fromto="0 0 0 0 0 -.3" size=".03"/>
      <body name="lower" pos="0 0 -.3">
        <joint name="elbow" axis="0 1 0" range="-120 0" limited="true" damping="0.5"/>
        <geom name="lower" type="capsule" fromto="0 0 0 0 0 -.3" size=".03"/>
        <site name="hand" pos="0 0 -.33"/>
      </body>
    </body>
    <body name="crate" pos=".5 0 .2"><freejoint name="crate"/><geom name="crate" type="box" size=".1 .1 .1"/></body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="20" ctrllimited="true" ctrlrange="-1 1"/>
    <position name="elbow" joint="elbow" kp="30" ctrllimited="true" ctrlrange="-2 0"/>
  </actuator>
  <sensor><gyro name="hand_gyro" site="hand"/></sensor>
</mujoco>
"""
ROBOT = """
name: my_arm
mjcf: arm.xml
control_dt: 0.02
episode_seconds: 2.0
sensors:
  - {name: hand_position, type: framepos, object_type: site, object_name: hand}
observation:
  - {name: position, joint_pos: [shoulder, elbow], unit: rad}
  - {name: velocity, joint_vel: [shoulder, elbow], unit: rad/s}
  - {name: crate, joint_pos: ["crate[0:3]"], unit: m}
  - {name: hand, sensor: ["hand_position[0:3]"], unit: m}
  - {name: gyro, sensor: ["hand_gyro[1]"], unit: rad/s}
action:
  - {actuator: shoulder, kind: effort, unit: N m, scale: 20.0, lower: -15.0, upper: 15.0}
  - {actuator: elbow, kind: position, unit: rad, scale: 0.8, offset: -1.0, kp: 30.0}
joint_limits:
  elbow: {lower: -2.2, upper: 0.1, velocity: 20.0}
default_pose: {elbow: -1.0}
reset:
  joint_pos: {shoulder: {uniform: [-0.2, 0.2]}}
"""
URDF = """
<robot name="pendulum">
  <link name="base"/>
  <link name="rod">
    <inertial><origin xyz="0 0 -0.5"/><mass value="1"/>
      <inertia ixx="0.1" ixy="0" ixz="0" iyy="0.1" iyz="0" izz="0.01"/></inertial>
  </link>
  <joint name="hinge" type="revolute">
    <parent link="base"/><child link="rod"/><axis xyz="0 1 0"/><limit lower="-3" upper="3" effort="5" velocity="9"/>
  </joint>
</robot>
"""


@pytest.fixture
def arm(tmp_path: Path) -> RobotSpec:
    (tmp_path / "arm.xml").write_text(MJCF)
    (tmp_path / "robot.yaml").write_text(ROBOT)
    return load_robot(tmp_path)


def test_own_mjcf(arm: RobotSpec) -> None:
    """A user's MJCF and YAML work like a shipped robot: the backend and the batch simulate the same thing."""
    backend, sim = MujocoBackend(arm, seed=1), BatchSim(arm, 3, num_threads=1, reset_pool=4)
    observation = sim.reset()
    assert observation.shape == (3, 11)
    np.testing.assert_allclose(observation[:, 1], -1.0)
    np.testing.assert_allclose(observation[:, 4:7], [[0.5, 0.0, 0.2]] * 3)
    backend.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        data = backend.data
        sim.set_state(data.qpos, data.qvel, data.act, data.time, data.qacc_warmstart)
        action = np.tile(rng.uniform(-1, 1, 2), (3, 1))
        step = sim.step(action)
        reading = backend.step(make_command(arm, action[0]))
        np.testing.assert_allclose(
            step.final_observation, [make_observation(arm, reading.values)] * 3, rtol=0, atol=1e-9
        )
        assert data.ctrl[0] == pytest.approx(np.clip(20 * action[0, 0], -15, 15) / 20)
        assert data.ctrl[1] == pytest.approx(-1 + 0.8 * action[0, 1])
    np.testing.assert_allclose(data.site("hand").xpos, reading.values[7:10])


def test_own_urdf(tmp_path: Path) -> None:
    """A URDF has no motors and no sensors of its own, yet it can be watched falling, and its added sensors read."""
    (tmp_path / "pendulum.urdf").write_text(URDF)
    motor = "<actuator><motor name='hinge' joint='hinge'/></actuator>"
    (tmp_path / "scene.xml").write_text(f"<mujoco><include file='pendulum.xml'/>{motor}</mujoco>")
    mujoco.mj_saveLastXML(str(tmp_path / "pendulum.xml"), mujoco.MjModel.from_xml_path(str(tmp_path / "pendulum.urdf")))
    text = ROBOT.split("sensors:")[0].replace("my_arm", "pendulum") + (
        "sensors: [{name: tip, type: framezaxis, object_type: xbody, object_name: rod}]\n"
        "observation: [{name: q, joint_pos: [hinge], unit: rad}, {name: z, sensor: ['tip[0:3]'], unit: '1'}]\n"
        "action: [{actuator: hinge, kind: effort, unit: N m, scale: 5.0}]\n"
        "reset: {joint_pos: {hinge: 0.5}}\n"
    )
    observations = []
    for file in ("pendulum.urdf", "scene.xml"):
        (tmp_path / "robot.yaml").write_text(text.replace("arm.xml", file).replace("0.02", "0.01"))
        spec = load_robot(tmp_path)
        if file.endswith("urdf"):
            # A bare URDF is refused for want of its motor, which is said, not guessed.
            with pytest.raises(RobotSpecError, match="no actuator 'hinge'; it has no named actuators"):
                compile_model(spec)
            continue
        with MujocoBackend(spec) as backend:
            observations = [backend.reset().values, *(backend.step(np.zeros(1)).values for _ in range(20))]
    angle = np.array(observations)[:, 0]
    assert angle[0] == 0.5 and (np.diff(angle) < 0).all()
    np.testing.assert_allclose(
        np.array(observations)[:, 1:], np.stack([np.sin(angle), 0 * angle, np.cos(angle)], 1), atol=1e-9
    )
    sim = BatchSim(spec, 2, num_threads=1, reset_pool=1)
    sim.reset()
    np.testing.assert_allclose(sim.step(np.zeros((2, 1))).observation, [observations[1]] * 2, atol=1e-9)


CHANGES = [
    ("joint", ("[shoulder, elbow], unit: rad}", "[sholder, elbow], unit: rad}"), ["did you mean 'shoulder'", "elbow"]),
    ("sensor", ("hand_gyro[1]", "hand_gyr[1]"), ["no sensor 'hand_gyr'", "did you mean 'hand_gyro'"]),
    ("beyond the sensor", ("hand_gyro[1]", "hand_gyro[3]"), ["3 element(s)"]),
    ("whole sensor", ('"hand_gyro[1]"', "hand_gyro"), ["hand_gyro[0:3]"]),
    ("whole free joint", ('"crate[0:3]"', "crate"), ["7 elements", "crate[0:7]"]),
    ("beyond the joint", ("crate[0:3]", "crate[6:8]"), ["7 element(s)"]),
    ("index of a hinge", ("[shoulder, elbow], unit: rad/s", "['shoulder[1]', elbow], unit: rad/s"), ["1 element(s)"]),
    ("actuator", ("actuator: elbow", "actuator: elbo"), ["no actuator 'elbo'", "did you mean 'elbow'"]),
    ("added sensor's object", ("object_name: hand", "object_name: hnd"), ["no site 'hnd'", "hand"]),
    ("added sensor's type", ("type: framepos", "type: framepose"), ["framepose", "did you mean 'framepos'"]),
    ("added sensor's object type", ("object_type: site", "object_type: bone"), ["bone", "xbody"]),
    ("joint limit", ("elbow: {lower", "elbw: {lower"), ["joint_limits", "no joint 'elbw'"]),
    ("default pose", ("{elbow: -1.0}", "{elbw: -1.0}"), ["default_pose", "no joint 'elbw'"]),
    ("reset", ("{shoulder: {uni", "{sholder: {uni"), ["reset.joint_pos", "did you mean 'shoulder'"]),
    ("control step", ("control_dt: 0.02", "control_dt: 0.0125"), ["0.0125", "multiple", "0.005"]),
    ("control step too short", ("control_dt: 0.02", "control_dt: 0.001"), ["multiple"]),
    ("effort beyond the motor", ("lower: -15.0, upper: 15.0", "lower: -25.0, upper: 15.0"), ["-25 to 15", "-20 to 20"]),
    ("position beyond the servo", ("scale: 0.8, offset: -1.0", "scale: 1.5, offset: -1.0"), ["-2.5 to 0.5", "-2 to 0"]),
    ("another joint than it moves", ("actuator: elbow,", "actuator: elbow, joint: shoulder,"), ["moves joint 'elbow'"]),
    ("effort to a servo", ("kind: position", "kind: effort"), ["needs a motor"]),
    ("activation of a motor", ("joint_vel: [shoulder, elbow]", "activation: [shoulder]"), ["0 activation states"]),
    ("model file", ("mjcf: arm.xml", "mjcf: leg.xml"), ["no model file", "leg.xml", "dm_control.suite"]),
    ("suite", ("mjcf: arm.xml", "mjcf: dm_control.suite:cheeta"), ["did you mean 'cheetah'"]),
    ("manipulation", ("mjcf: arm.xml", "mjcf: dm_control.manipulation:reach_site"), ["reach_site_features"]),
    ("menagerie", ("mjcf: arm.xml", "mjcf: menagerie:unitree_go1"), ["mujoco-menagerie", "not installed"]),
]  # fmt: skip


@pytest.mark.parametrize(("swap", "words"), [change[1:] for change in CHANGES], ids=[change[0] for change in CHANGES])
def test_what_does_not_fit_the_model(arm: RobotSpec, swap: tuple[str, str], words: list[str]) -> None:
    """Each name or number that does not fit is an error of one line that says what the model has."""
    assert arm.directory is not None and ROBOT.count(swap[0]) >= 1
    (arm.directory / "robot.yaml").write_text(ROBOT.replace(swap[0], swap[1], 1))
    with pytest.raises(RobotSpecError) as caught:
        compile_model(load_robot(arm.directory))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


class FakeMenagerie(types.ModuleType):
    """As much of mujoco-menagerie as is asked of it, with one robot."""

    MenagerieError = type("MenagerieError", (Exception,), {})

    def get(self, name: str) -> types.SimpleNamespace:
        if name != "toy_arm":
            raise self.MenagerieError(f"unknown robot {name!r};\nclose matches: toy_arm")
        return types.SimpleNamespace(spec=lambda: mujoco.MjSpec.from_string(MJCF))


def test_menagerie(arm: RobotSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot of the menagerie works as any other; what the menagerie refuses is an error of one line."""
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", FakeMenagerie("mujoco_menagerie"))
    assert compile_model(dataclasses.replace(arm, mjcf="menagerie:toy_arm")).nu == 2
    with pytest.raises(RobotSpecError, match="menagerie:toy_leg: unknown robot 'toy_leg'; close matches: toy_arm"):
        compile_model(dataclasses.replace(arm, mjcf="menagerie:toy_leg"))


@pytest.mark.parametrize("content", ["", "<mujoco", "<mujoco><worldbody><body/></worldbody></mujoco>", "<html/>"])
def test_broken_model_file(arm: RobotSpec, content: str) -> None:
    """A model file that is none is an error of one line."""
    assert arm.directory is not None
    (arm.directory / "arm.xml").write_text(content)
    with pytest.raises(RobotSpecError) as caught:
        compile_model(arm)
    assert "\n" not in str(caught.value)


def test_overrides(arm: RobotSpec) -> None:
    """An override replaces the leading numbers of an element's row; constants that follow from masses follow."""
    overrides = (("geom_friction", "crate", (0.2,)), ("dof_damping", "elbow", (7.0,)), ("body_mass", "upper", (9.0,)))
    model = compile_model(dataclasses.replace(arm, overrides=overrides))
    np.testing.assert_array_equal(model.geom("crate").friction, [0.2, 0.005, 0.0001])
    assert model.dof_damping[model.jnt_dofadr[model.joint("elbow").id]] == 7.0
    assert model.dof_damping[model.jnt_dofadr[model.joint("shoulder").id]] == 0.5
    assert model.body_subtreemass[model.body("upper").id] == pytest.approx(9.0 + model.body("lower").mass[0])


@pytest.mark.parametrize(
    ("override", "word"),
    [
        (("geom_sise", "crate", (0.2,)), "did you mean 'geom_size'"),
        (("geom_size", "crat", (0.2,)), "did you mean 'crate'"),
        (("geom_size", "crate", (1.0, 1.0, 1.0, 1.0)), "4 numbers came, it has 3"),
        (("geom_type", "crate", (1.0,)), "no model field 'geom_type'"),
        (("opt", "timestep", (1.0,)), "no model field 'opt'"),
    ],
)
def test_override_that_is_none(arm: RobotSpec, override: tuple, word: str) -> None:
    """An override of nothing, or with too many numbers, is refused."""
    with pytest.raises(RobotSpecError, match=word):
        compile_model(dataclasses.replace(arm, overrides=(override,)))


def test_sensor_that_exists_already(arm: RobotSpec) -> None:
    """An added sensor may not take the name of one that the model has."""
    twice = AddedSensor("hand_gyro", "framepos", "site", "hand")
    with pytest.raises(RobotSpecError, match="hand_gyro"):
        compile_model(dataclasses.replace(arm, sensors=(*arm.sensors, twice)))


def test_reference_needs_both(arm: RobotSpec) -> None:
    """A reference type without a name is refused."""
    half = AddedSensor("half", "framepos", "site", "hand", reference_type="site")
    with pytest.raises(RobotSpecError, match="both of ref"):
        compile_model(dataclasses.replace(arm, sensors=(*arm.sensors, half)))


def test_placement_that_is_none(arm: RobotSpec) -> None:
    """A scene element that the model lacks is refused."""
    world = (WorldPlacement("site_pos", "target", "box", (0.0,) * 3, (1.0,) * 3),)
    with pytest.raises(RobotSpecError, match="no site 'target'"):
        compile_model(dataclasses.replace(arm, reset=dataclasses.replace(arm.reset, world=world)))


@pytest.mark.parametrize("name", robot_names())
def test_shipped_robots_fit_their_models(name: str) -> None:
    """Every shipped robot compiles, with and without textures, to the same physics."""
    spec = load_robot(name)
    model, bare = compile_model(spec), compile_model(spec, textures=False)
    assert substeps(spec, model) >= 1
    assert bare.ntex == 0 and bare.nbuffer <= model.nbuffer
    for field in ("qpos0", "body_mass", "geom_size", "dof_damping", "actuator_gear", "sensor_adr", "geom_matid"):
        np.testing.assert_array_equal(getattr(model, field), getattr(bare, field))


SCENE = MJCF.replace(
    "<worldbody>",
    "<contact><pair geom1='paired' geom2='lower'/></contact><worldbody>"
    "<site name='mark'/><geom name='ghost' size='.1' contype='0' conaffinity='0'/>"
    "<geom name='paired' size='.1' contype='0' conaffinity='0'/>"
    "<body name='shelf'><geom name='shelf' type='box' size='2 2 .01'/></body>",
)


def with_scene(arm: RobotSpec, *items: tuple[str, str]) -> RobotSpec:
    """The arm beside things that move at each reset, up and down between 1 cm and 15 cm."""
    assert arm.directory is not None
    (arm.directory / "arm.xml").write_text(SCENE)
    world = tuple(WorldPlacement(*item, "box", (0.0, 0.0, 0.01), (0.0, 0.0, 0.15)) for item in items)
    return dataclasses.replace(arm, reset=dataclasses.replace(arm.reset, world=world))


@pytest.mark.parametrize(
    ("field", "name", "expected"),
    [
        ("site_pos", "hand", True),
        ("site_pos", "mark", False),
        ("geom_pos", "ghost", False),
        ("body_pos", "shelf", True),
    ],
)
def test_scene_matters(arm: RobotSpec, field: str, name: str, expected: bool) -> None:
    """Only what belongs to the world and can touch nothing may be moved without the physics noticing."""
    spec = with_scene(arm, (field, name))
    assert scene_matters(spec, compile_model(spec)) is expected


@pytest.mark.parametrize("name", ["floor", "lower", "paired", "shelf"])
def test_a_geom_that_can_be_touched_is_not_moved_alone(arm: RobotSpec, name: str) -> None:
    """MuJoCo would collide with where it was, so this is refused, with the way to do it."""
    spec = with_scene(arm, ("geom_pos", name))
    with pytest.raises(RobotSpecError, match="by body_pos"):
        compile_model(spec)
    with pytest.raises(RobotSpecError, match="by body_pos"):
        compile_model(dataclasses.replace(arm, overrides=(("geom_size", name, (0.5,)),)))


def test_a_field_that_is_no_place(arm: RobotSpec) -> None:
    """A scene moves by positions only."""
    with pytest.raises(RobotSpecError, match="geom_pos, site_pos, body_pos"):
        compile_model(with_scene(arm, ("geom_size", "ghost")))


def test_scenes_are_seen_and_felt(arm: RobotSpec) -> None:
    """The crate comes to rest on each environment's own shelf, and sensors see each one's own site and geom."""
    spec = with_scene(arm, ("body_pos", "shelf"), ("site_pos", "mark"), ("geom_pos", "ghost"))
    sensors = (AddedSensor("mark", "framepos", "site", "mark"), AddedSensor("ghost", "framepos", "geom", "ghost"))
    seen = tuple(
        dataclasses.replace(
            spec.observation[0], name=name, channels=(f"sensor/{name}[2]",), offset=(0.0,), scale=(1.0,)
        )
        for name in ("mark", "ghost")
    )
    spec = dataclasses.replace(spec, sensors=spec.sensors + sensors, observation=spec.observation + seen)
    sim = BatchSim(spec, 6, num_threads=1, reset_pool=64, stagger=False)
    first = sim.reset()
    np.testing.assert_allclose(first[:, -2:], sim.placement[:, 1:, 2], atol=1e-12)
    for _ in range(80):
        step = sim.step(np.zeros((6, 2)))
    shelf, crate = sim.placement[:, 0, 2], step.observation[:, 6]
    assert np.ptp(shelf) > 0.05
    np.testing.assert_allclose(crate, shelf + 0.11, atol=0.003)
    np.testing.assert_allclose(step.observation[:, -2:], sim.placement[:, 1:, 2], atol=1e-12)


def test_model_is_dm_control_s() -> None:
    """The compiled model equals the one dm_control compiles, in every number, but for what the spec adds."""
    spec = dataclasses.replace(load_robot("quadruped"), sensors=(), observation=load_robot("quadruped").observation[:1])
    model, theirs = compile_model(spec), suite.load("quadruped", "walk").physics.model.ptr
    fields = [field for field in dir(model) if isinstance(getattr(model, field), np.ndarray)]
    assert len(fields) > 200
    for field in fields:
        np.testing.assert_array_equal(getattr(model, field), getattr(theirs, field), field)
