"""LerobotBackend drives any object with LeRobot's method names, by name and in SI, and needs little to be imported."""

import ast
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import lerobot_stand_in
import numpy as np
import pytest
from backend_contract import BackendContract
from lerobot_stand_in import STRIDE, Bus, Config, Follower

from robots import BackendError, RobotSpecError
from robots.hardware_yaml import parse_hardware
from robots.lerobot_robot import LerobotBackend
from robots.robot_yaml import parse_robot

ROOT = Path(__file__).resolve().parents[2]
DEGREE = math.pi / 180.0
ROBOT = {
    "name": "arm", "mjcf": "arm.xml", "control_dt": 0.02, "episode_seconds": 5,
    "observation": [{"name": "position", "joint_pos": ["gripper", "shoulder", "elbow"], "unit": "rad"}],
    "action": [
        {"actuator": name, "kind": "position", "unit": "rad", "scale": 1.0}
        for name in ("elbow", "shoulder", "gripper")
    ],
}  # fmt: skip
SPEC = parse_robot(ROBOT)
WITH_VELOCITY = parse_robot({
    **ROBOT, "observation": [*ROBOT["observation"], {"name": "speed", "joint_vel": ["elbow"], "unit": "rad/s"}],
})  # fmt: skip
WIRING = {
    "robot": "arm",
    "driver": "lerobot",
    "lerobot": {
        "object": "lerobot_stand_in:make", "unit": "deg",
        "spans": {"gripper": {"raw": [0, 100], "position": [-0.2, 1.8]}},
    },
    "joints": {
        "shoulder": {"source": "pan", "sign": -1, "offset": 0.1},
        "elbow": {"source": "lift"},
        "gripper": {"source": "gripper"},
    },
}  # fmt: skip


def connect(spec: Any = SPEC, robot: dict | None = None, **options: Any) -> LerobotBackend:
    section = {**WIRING["lerobot"], "config": robot or {}, **options}
    return LerobotBackend(spec, parse_hardware({**WIRING, "lerobot": section}, spec))


def newest() -> Follower:
    return lerobot_stand_in.MADE[-1]


class TestLerobotBackend(BackendContract):
    spec = SPEC

    def make(self, seed: int = 0) -> LerobotBackend:
        return connect()

    def test_same_seed_same_episodes(self) -> None:
        pytest.skip("an arm is taken over where it stands: there is no seed to begin from")


def test_degrees_and_spans_to_radians() -> None:
    """Degrees and shares of a way become rad, then turned and moved as the wiring says, each by its own name."""
    with connect() as backend:
        values = dict(zip(SPEC.channels, backend.measure().values, strict=True))
    assert values == pytest.approx({
        "joint_pos/gripper": -0.2 + 0.2 * 2.0, "joint_pos/shoulder": -30 * DEGREE + 0.1,
        "joint_pos/elbow": -45 * DEGREE,
    })  # fmt: skip


def test_commands_to_degrees_and_spans() -> None:
    """A command arrives under the right key in the robot's own number."""
    with connect() as backend:
        backend.reset()
        backend.step(np.array([0.5, -0.3, 0.8]))  # elbow, shoulder, gripper
        sent = newest().sent[-1]
    assert sent == pytest.approx({"lift.pos": 0.5 / DEGREE, "pan.pos": 0.4 / DEGREE, "gripper.pos": 50.0})


def test_normalized_joints() -> None:
    """A robot that gives every joint from -100 to 100 needs both ends of each."""
    spans = {name: {"raw": [-100, 100], "position": [-1.0, 2.0]} for name in ("pan", "lift", "gripper")}
    with connect(unit="normalized", spans=spans) as backend:
        assert backend.measure().values[2] == pytest.approx(0.5 - 0.45 * 1.5)
    with pytest.raises(RobotSpecError, match="for pan, lift"):
        connect(unit="normalized")


def test_radians_are_taken_as_they_are() -> None:
    """The unit rad changes nothing."""
    with connect(unit="rad", spans={}) as backend:
        assert backend.measure().values[2] == -45.0


def test_reset_takes_over_without_moving() -> None:
    """Calibration is never begun, present positions are sent before torque comes on, and nothing has moved."""
    with connect() as backend:
        backend.reset()
        robot = newest()
        assert robot.connected_with == [{"calibrate": False}]
        assert robot.bus.log == ["disable_torque", "send_action", "enable_torque"]
        assert robot.sent == [{"pan.pos": 30.0, "lift.pos": -45.0, "gripper.pos": 20.0}]
        assert robot.positions == {"pan.pos": 30.0, "lift.pos": -45.0, "gripper.pos": 20.0}


def test_measuring_leaves_the_arm_limp() -> None:
    """Before a reset nothing is sent, and torque that LeRobot's connect put on is off again, for the hand to move."""
    with connect() as backend:
        backend.measure()
        assert newest().sent == []
        assert not newest().bus.torque


def test_a_robot_without_a_torque_switch() -> None:
    """Nothing but LeRobot's own contract is needed."""
    robot = {"bus": type("NoBus", (), {"torque": True, "log": []})()}
    with connect(robot=robot) as backend:
        backend.reset()
        backend.step(np.zeros(3))


@pytest.mark.parametrize(
    ("on_close", "torque"), [({}, True), ({"on_close": "hold"}, True), ({"on_close": "release"}, False)]
)
def test_closing_holds_unless_told(on_close: dict, torque: bool) -> None:
    """LeRobot lets an arm drop on disconnecting; here torque stays on unless the wiring says release."""
    with connect(**on_close) as backend:
        backend.reset()
    assert not newest().is_connected
    assert newest().bus.torque is torque


def test_on_close_that_cannot_be_promised() -> None:
    """A robot whose config has no such field is not promised anything."""
    with connect(robot={"config": None}) as backend:
        backend.reset()
    with pytest.raises(RobotSpecError, match="cannot be told"):
        connect(robot={"config": None}, on_close="hold")


@pytest.mark.parametrize("calibrated", [False, lambda: False])
def test_an_uncalibrated_robot_is_refused(calibrated: object) -> None:
    """Without calibration its numbers mean nothing; it is left disconnected."""
    backend = connect(robot={"is_calibrated": calibrated})
    with pytest.raises(BackendError, match="lerobot-calibrate"):
        backend.reset()
    assert not newest().is_connected and newest().sent == []


def test_a_check_that_failed_is_made_again() -> None:
    """A calibration that could not be asked for, or torque that did not go off, is asked for until it is known."""
    answers: list[object] = [ConnectionError("no status packet"), True, False]

    def calibrated() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    backend = connect(robot={"is_calibrated": calibrated})
    switch = newest().bus.disable_torque

    def no_answer() -> None:
        newest().bus.disable_torque = switch
        raise ConnectionError("no status packet")

    newest().bus.disable_torque = no_answer
    with pytest.raises(BackendError, match="is_calibrated failed"):
        backend.reset()
    with pytest.raises(BackendError, match="disable_torque failed"):
        backend.measure()
    with pytest.raises(BackendError, match="lerobot-calibrate"):
        backend.reset()
    assert newest().sent == [] and newest().connected_with == [{"calibrate": False}] and answers == []


@pytest.mark.parametrize("method", ["get_observation", "send_action"])
def test_a_failing_round_repeats_the_reading(method: str) -> None:
    """What LeRobot raises costs one repetition; raised too often it is an error, and only a reset goes on."""
    with connect(repeats=2) as backend:
        first = backend.reset()
        newest().failures[method] = 1
        again = backend.step(np.zeros(3))
        assert (again.sequence, again.timestamp_ns) == (0, first.timestamp_ns)
        assert backend.step(np.zeros(3)).sequence == 1
        newest().failures[method] = 3
        for _ in range(2):
            assert backend.step(np.zeros(3)).sequence == 1
        with pytest.raises(BackendError, match=f"{method} failed: ConnectionError.*3 rounds"):
            backend.step(np.zeros(3))
        with pytest.raises(BackendError, match="before reset"):
            backend.step(np.zeros(3))
        assert backend.reset().sequence == 0


@pytest.mark.parametrize("value", [None, "30", True, np.zeros(3)])
def test_what_is_no_number_is_no_reading(value: object) -> None:
    """None, text and images where a position should be are bad rounds, and the key is named."""
    with connect(repeats=0) as backend:
        backend.reset()
        newest().extra["lift.pos"] = value
        with pytest.raises(BackendError, match="no number for lift.pos"):
            backend.step(np.zeros(3))


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32(np.nan), 10**400])
@pytest.mark.parametrize("key", ["lift.pos", "roll.pos"])
def test_what_is_not_finite_never_becomes_a_goal(key: str, value: object) -> None:
    """A reset, which sends what it read, refuses it before torque is on; in a step it is a bad round like others.

    The joint that the spec does not drive counts as much: it is sent with every command.
    """
    positions = {"pan.pos": 30.0, "lift.pos": -45.0, "gripper.pos": 20.0, "roll.pos": 77.0}
    with connect(robot={"positions": positions}, repeats=2) as backend:
        robot = newest()
        robot.extra[key] = value
        with pytest.raises(BackendError, match=f"no number for {key}.*must be finite"):
            backend.reset()
        assert robot.sent == [] and not robot.bus.torque
        del robot.extra[key]
        first = backend.reset()
        robot.extra[key] = value
        assert [backend.step(np.zeros(3)) is first for _ in range(2)] == [True, True]
        with pytest.raises(BackendError, match="3 rounds in a row"):
            backend.step(np.zeros(3))
        assert all(math.isfinite(goal) for sent in robot.sent for goal in sent.values())


def test_scalars_of_numpy_are_numbers() -> None:
    """A robot may hand out numpy's scalars and 0-d arrays."""
    with connect() as backend:
        backend.reset()
        newest().extra |= {"lift.pos": np.float32(90.0), "pan.pos": np.array(0.0)}
        values = backend.measure().values
    assert values[1:] == pytest.approx([0.1, math.pi / 2])


def test_what_was_really_sent_is_kept() -> None:
    """A robot that clamps for long is told on, with how far and how often; a short clamp is not."""
    backend = connect()
    with backend:
        backend.reset()
        newest().clamp["lift.pos"] = (-50.0, 10.0)
        for _ in range(30):
            backend.step(np.array([0.5, 0.0, 0.0]))
        assert backend.sent.last == pytest.approx([10.0 * DEGREE, 0.0, 0.0])
        assert backend.sent.notes == ()
        for _ in range(30):
            backend.step(np.array([0.5, 0.0, 0.0]))
        (note,) = backend.sent.notes
    away = 0.5 - 10 * DEGREE
    assert note.startswith(f"elbow was sent up to {away:.3g} rad away from what was asked, in 60 of 60 steps")


def test_what_was_sent_otherwise_is_reported_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Once, as a warning, which without any set-up of logging is a line on standard error; else nothing is said."""
    backend = connect()
    backend.reset()
    newest().clamp["lift.pos"] = (-50.0, 10.0)
    for _ in range(60):
        backend.step(np.array([0.5, 0.0, 0.0]))
    newest().failures["disconnect"] = 1
    with pytest.raises(BackendError, match="disconnect failed"):
        backend.close()
    backend.close()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.getMessage() == backend.sent.notes[0]
    with connect() as silent:
        silent.reset()
        silent.step(np.zeros(3))
    assert len(caplog.records) == 1


def test_a_clamp_on_every_other_step_is_no_long_one() -> None:
    """Steps in a row count, not steps in all: a clamp that lets go again is the robot doing its work."""
    backend = connect()
    with backend:
        backend.reset()
        newest().clamp["lift.pos"] = (-50.0, 10.0)
        for _ in range(60):
            backend.step(np.array([0.5, 0.0, 0.0]))
            backend.step(np.array([0.0, 0.0, 0.0]))
        assert backend.sent.notes == ()


def test_an_action_that_the_spec_does_not_drive() -> None:
    """A joint of the robot's that the policy knows nothing of is kept where it stood at the reset."""
    positions = {"pan.pos": 30.0, "lift.pos": -45.0, "gripper.pos": 20.0, "roll.pos": 77.0}
    with connect(robot={"positions": positions}) as backend:
        backend.reset()
        newest().positions["roll.pos"] = 60.0
        backend.step(np.zeros(3))
        assert newest().sent[-1]["roll.pos"] == 77.0
    with pytest.raises(RobotSpecError, match="also takes wheel.vel"):
        connect(robot={"positions": positions | {"wheel.vel": 0.0}})


def test_velocity_measured_or_of_two_readings() -> None:
    """A velocity is the robot's own where it has one; where it has none, one says so, and it is a difference."""
    with pytest.raises(RobotSpecError, match="velocity: difference"):
        connect(WITH_VELOCITY)
    features = {**dict.fromkeys(("pan.pos", "lift.pos", "gripper.pos", "lift.vel"), float)}
    with connect(WITH_VELOCITY, {"observation_features": features, "extra": {"lift.vel": 90.0}}) as backend:
        assert backend.measure().values[3] == pytest.approx(math.pi / 2)
    with connect(WITH_VELOCITY, velocity="difference") as backend:
        first = backend.reset()
        second = backend.step(np.zeros(3))
    assert first.values[3] == 0.0
    seconds = (second.timestamp_ns - first.timestamp_ns) * 1e-9
    assert second.values[3] == pytest.approx(STRIDE * DEGREE / seconds)


def test_other_endings_and_sensors() -> None:
    """Robots that name their features otherwise are read by the endings that the wiring says; sensors by whole name."""
    spec = parse_robot({
        **ROBOT, "observation": [*ROBOT["observation"], {"name": "tilt", "sensor": ["tilt"], "unit": "rad"}],
    })  # fmt: skip
    wiring = {
        **WIRING, "sensors": {"sensor/tilt": {"source": "imu.pitch", "scale": 2.0}},
        "lerobot": {
            **WIRING["lerobot"], "keys": {"position": "q"},
            "config": {
                "positions": {"pan.q": 1.0, "lift.q": 2.0, "gripper.q": 3.0},
                "extra": {"imu.pitch": 0.25},
                "observation_features": dict.fromkeys(("pan.q", "lift.q", "gripper.q", "imu.pitch"), float),
            },
        },
    }  # fmt: skip
    with LerobotBackend(spec, parse_hardware(wiring, spec)) as backend:
        assert backend.measure().values[2:] == pytest.approx([2.0 * DEGREE, 0.5])


@pytest.mark.parametrize(
    ("robot", "options", "words"),
    [
        ({"positions": {"pan.pos": 0.0, "lift.pos": 0.0}}, {}, "observes no gripper.pos"),
        ({"action_features": {"pan.pos": float, "lift.pos": float}}, {}, "takes no gripper.pos"),
        ({}, {"unit": "degrees"}, "legal are deg, rad, normalized"),
        ({}, {"spans": {"griper": {"raw": [0, 1], "position": [0, 1]}}}, "did you mean 'gripper'"),
        ({}, {"spans": {"gripper": {"raw": [5, 5], "position": [0, 1]}}}, "two different numbers"),
        ({}, {"type": "so101_follower"}, "exactly one of type"),
        ({}, {"object": "os.system('x')"}, "expected module:callable"),
        ({}, {"keys": {"pos": "q"}}, "unknown key 'pos'"),
        ({}, {"on_close": "drop"}, "hold, release"),
        ({"disable_torque_on_disconnect": True}, {}, "say on_close"),
        ({}, {"repeats": 1.5}, "whole number"),
        ({}, {"tolerance": 0}, "above 0"),
        ({}, {"velocity": "guessed"}, "measured, difference"),
        ({}, {"speed": 1}, "unknown key 'speed'"),
    ],
)
def test_what_does_not_fit_is_refused(robot: dict, options: dict, words: str) -> None:
    """Features and options are checked by name before anything is connected."""
    with pytest.raises(RobotSpecError, match=words):
        connect(robot=robot, **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:make", "no_such_module"),
        ("lerobot_stand_in:no_such_callable", "no_such_callable"),
        ("lerobot_stand_in:make_nothing", "is no LeRobot Robot: it lacks observation_features"),
        ("lerobot_stand_in:write_package", "failed: TypeError"),
    ],
)
def test_an_object_that_is_none(name: str, words: str) -> None:
    """A callable that is not there, fails, or returns something else is named."""
    with pytest.raises(BackendError, match=words):
        connect(object=name)


def test_only_positions() -> None:
    """An effort is not what LeRobot's arms take."""
    spec = parse_robot({**ROBOT, "action": [{**term, "kind": "effort", "unit": "N m"} for term in ROBOT["action"]]})
    with pytest.raises(RobotSpecError, match="take positions.*elbow, shoulder, gripper"):
        connect(spec)


def test_failing_to_connect_or_disconnect_is_told() -> None:
    """An error of LeRobot's own comes with its words."""
    backend = connect(robot={"failures": {"connect": 1, "disconnect": 1}})
    with pytest.raises(BackendError, match="connect failed: ConnectionError: connect has no answer"):
        backend.measure()
    backend.measure()
    with pytest.raises(BackendError, match="disconnect failed"):
        backend.close()
    backend.close()


def imported(module: str, seen: dict[str, set[str]]) -> dict[str, set[str]]:
    """{module of ours: what else it imports}, from one on and all that it imports of ours."""
    if module in seen:
        return seen
    path = ROOT / (module.replace(".", "/") + ".py")
    tree = ast.parse((path if path.exists() else path.with_suffix("") / "__init__.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    ours = {name for name in names if name.split(".")[0] == "robots"}
    seen[module] = {name.split(".")[0] for name in names - ours}
    for name in {"robots", *ours}:
        imported(name, seen)
    return seen


def test_imports_walked() -> None:
    """The driver and all it imports of ours name nothing but numpy, pyyaml and the standard library."""
    found = imported("robots.lerobot_robot", {})
    assert {"robots.lerobot_load", "robots.hardware", "robots.hardware_yaml"} - set(found) == {"robots.hardware_yaml"}
    everything = set().union(*found.values()) | set().union(*imported("robots.hardware_yaml", {}).values())
    assert everything - set(sys.stdlib_module_names) == {"numpy", "yaml"}


RUN = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is behind the wall", name=name)
ALLOWED = {"robots", "numpy", "yaml", "_yaml", "lerobot", "draccus", "lerobot_robot_plugged", "lerobot_stand_in"}
sys.meta_path.insert(0, Wall())
from robots.hardware_yaml import parse_hardware
from robots.lerobot_robot import LerobotBackend
from robots.robot_yaml import parse_robot
robot, wiring = ROBOT, WIRING
wiring["lerobot"] = {"unit": "deg", "spans": wiring["lerobot"]["spans"], **SECTION}
spec = parse_robot(robot)
try:
    with LerobotBackend(spec, parse_hardware(wiring, spec)) as backend:
        backend.reset()
    print(backend.robot.config)
except Exception as error:
    print(type(error).__name__, error)
"""


def run_apart(folder: Path, section: dict) -> str:
    """What comes of it in a fresh interpreter where nothing but the allowed packages can be imported."""
    code = (
        RUN.replace("ROBOT,", f"{ROBOT!r},").replace(", WIRING", f", {WIRING!r}").replace("**SECTION", f"**{section!r}")
    )
    environment = {"PYTHONPATH": f"{ROOT}:{folder}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_by_type_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """In a process that can import LeRobot and hardly anything else, its registry gives the robot, which then holds."""
    lerobot_stand_in.write_package(tmp_path)
    said = run_apart(tmp_path, {"type": "so101_follower", "config": {"port": "/dev/ttyACM0", "id": "blue"}})
    assert said == "SO101FollowerConfig(port='/dev/ttyACM0', id='blue', disable_torque_on_disconnect=False)"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"type": "so102_follower"},
            "did you mean 'so101_follower'?); LeRobot knows plugged, so101_follower; these parts",
        ),
        ({"type": "so102_follower"}, "lerobot.robots.broken (ModuleNotFoundError"),
        ({"type": "so101_follower"}, "could not make a so101_follower of {}: TypeError"),
        ({"type": "so101_follower", "config": {"prt": 1}}, "unexpected keyword argument 'prt'"),
    ],
)
def test_a_type_that_lerobot_cannot_make(tmp_path: Path, section: dict, words: str) -> None:
    """An unknown type is answered with the known ones and with what did not import; a bad config with its error."""
    lerobot_stand_in.write_package(tmp_path)
    assert words in run_apart(tmp_path, section)


def test_without_lerobot(tmp_path: Path) -> None:
    """Elsewhere than in LeRobot's environment a type is an error that says where to go."""
    assert "run this in the environment that LeRobot is installed in" in run_apart(tmp_path, {"type": "so101_follower"})


def test_the_stand_in_is_like_lerobot() -> None:
    """The default of LeRobot's own followers is to let go, or the tests of closing would show nothing."""
    assert Config().disable_torque_on_disconnect and Bus().torque
