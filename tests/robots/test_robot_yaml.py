"""robot.yaml is read strictly: whatever is not legal is an error in one line that says what is."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robots import RobotSpecError, load_robot, robot_names
from robots.robot_yaml import parse_robot, read_spec
from robots.spec import Distribution, ToolPose, spec_from_dict

MINIMAL = {
    "name": "toy",
    "mjcf": "toy.xml",
    "control_dt": 0.02,
    "episode_seconds": 5,
    "observation": [{"name": "position", "joint_pos": ["hip"], "unit": "rad"}],
    "action": [{"actuator": "hip", "kind": "effort", "unit": "N m", "scale": 3}],
}

TOOL = {"site": "hand", "joints": ["hip"], "box": {"lower": [0, 0, 0], "upper": [1, 1, 1]}, "quaternion": [0, 2, 0, 0]}


def changed(path: str, value: object) -> dict:
    data = copy.deepcopy(MINIMAL)
    place: object = data
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    for key in parents:
        place = place[key]  # type: ignore[index]
    place[last] = value  # type: ignore[index]
    return data


def test_minimal() -> None:
    """Six keys make a robot; limits follow from the scale."""
    spec = parse_robot(MINIMAL)
    assert (spec.obs_dim, spec.act_dim, spec.episode_steps) == (1, 1, 250)
    assert (spec.action[0].lower, spec.action[0].upper, spec.action[0].offset) == (-3.0, 3.0, 0.0)
    assert spec.task is None and spec.reset.settle_seconds == 0.0


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("controldt", 0.01, ["controldt", "did you mean 'control_dt'"]),
        ("control_dt", 0, ["control_dt", "above 0"]),
        ("control_dt", -0.02, ["above 0"]),
        ("control_dt", "fast", ["finite number", "'fast'"]),
        ("control_dt", float("nan"), ["finite number"]),
        ("control_dt", True, ["finite number"]),
        ("episode_seconds", float("inf"), ["finite number"]),
        ("name", 3, ["name", "text"]),
        ("format", 2, ["format 2"]),
        ("observation", {}, ["observation", "list"]),
        ("observation.0.unit", None, ["text"]),
        ("observation.0.transform", "tanh", ["tanh", "log1p"]),
        ("observation.0.sensor", ["gyro"], ["exactly one"]),
        ("observation.0.joint_pos", [], ["names nothing"]),
        ("observation.0.joint_pos", "hip", ["list"]),
        ("observation.0.offset", [1, 2], ["2 numbers for 1"]),
        ("observation.0.jointpos", ["hip"], ["did you mean 'joint_pos'"]),
        ("action.0.kind", "torque", ["torque", "effort"]),
        ("action.0.scale", 0, ["scale is 0"]),
        ("action.0.lower", 5, ["lower 5", "upper 3"]),
        ("action.0.slew", 0, ["above 0"]),
        ("action.0", 7, ["mapping"]),
        ("sensors", [{"name": "s"}], ["missing type"]),
        ("joint_limits", {"hip": {"lower": 1, "upper": -1}}, ["not below"]),
        ("joint_limits", {"hip": {"lower": 1}}, ["missing upper"]),
        ("overrides", {"geom_size": [1]}, ["mapping"]),
        ("overrides", {"geom_size": {"g": "big"}}, ["finite number"]),
        ("reset", {"contact": "sometimes"}, ["sometimes", "any, reject, lift"]),
        ("reset", {"random_joints": "yes"}, ["true and false"]),
        ("reset", {"joint_pos": {"hip": {"normal": [0]}}}, ["two numbers"]),
        ("reset", {"joint_pos": {"hip": {"gauss": [0, 1]}}}, ["unknown key 'gauss'"]),
        ("reset", {"joint_pos": {"hip": "random"}}, ["finite number"]),
        ("reset", {"world": [{"field": "geom_pos", "name": "t"}]}, ["exactly one of annulus, box"]),
        ("reset", {"settle_seconds": -1}, ["at least 0"]),
        ("reset", {"tool": {"site": "hand"}}, ["reset.tool", "joints"]),
        ("reset", {"tool": TOOL | {"box": {"lower": [0, 0]}}}, ["reset.tool.box", "upper"]),
        ("reset", {"tool": TOOL | {"box": {"lower": [0, 0], "upper": [1, 1, 1]}}}, ["reset.tool.box.lower", "3"]),
        ("reset", {"tool": TOOL | {"quaternion": [0, 0, 0, 0]}}, ["reset.tool.quaternion: all zero"]),
        ("reset", {"tool": TOOL | {"joints": "hip"}}, ["reset.tool.joints"]),
    ],
)
def test_mistakes(path: str, value: object, words: list[str]) -> None:
    """Each mistake is an error of one line that names what came and what is legal."""
    with pytest.raises(RobotSpecError) as caught:
        parse_robot(changed(path, value))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", list(MINIMAL))
def test_missing_key(key: str) -> None:
    """Each of the six keys is needed."""
    data = {k: v for k, v in MINIMAL.items() if k != key}
    with pytest.raises(RobotSpecError, match=f"missing {key}"):
        parse_robot(data)


@pytest.mark.parametrize("key", ["observation", "action"])
def test_named_twice(key: str) -> None:
    """Two terms of one name are refused."""
    with pytest.raises(RobotSpecError, match="named twice"):
        parse_robot(MINIMAL | {key: MINIMAL[key] * 2})


def test_channel_in_two_units() -> None:
    """One channel cannot be in two units."""
    terms = [*MINIMAL["observation"], {"name": "again", "joint_pos": ["hip"], "unit": "deg"}]
    with pytest.raises(RobotSpecError, match="'rad'.*'deg'"):
        parse_robot(MINIMAL | {"observation": terms})


def test_slices_and_per_element_numbers() -> None:
    """A slice names its elements, and each may have its own offset."""
    term = {"name": "gyro", "sensor": ["gyro[1:3]"], "unit": "rad/s", "offset": [0.5, -0.5], "scale": 2}
    spec = parse_robot(MINIMAL | {"observation": [term]})
    assert spec.channels == ("sensor/gyro[1]", "sensor/gyro[2]")
    assert spec.observation[0].offset == (0.5, -0.5) and spec.observation[0].scale == (2.0, 2.0)


def test_distributions() -> None:
    """Every way to write a joint's beginning is understood."""
    joints = {"a": 0.3, "b": "limits", "c": "rotation", "d": {"uniform": [0, 1]}, "e": {"normal": [0, 2]}}
    spec = parse_robot(MINIMAL | {"reset": {"joint_pos": joints}})
    assert dict(spec.reset.joint_pos) == {
        "a": Distribution("fixed", 0.3), "b": Distribution("limits"), "c": Distribution("rotation"),
        "d": Distribution("uniform", 0.0, 1.0), "e": Distribution("normal", 0.0, 2.0),
    }  # fmt: skip


def test_where_the_hand_begins() -> None:
    """A tool's pose is read, and its quaternion made one of length 1."""
    spec = parse_robot(MINIMAL | {"reset": {"tool": TOOL}})
    assert spec.reset.tool == ToolPose("hand", ("hip",), (0, 0, 0), (1, 1, 1), (0, 1, 0, 0))
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_by_name_by_path_by_folder(tmp_path: Path) -> None:
    """A robot is found by its shipped name, by its file and by its folder; all give the same robot."""
    shipped = load_robot("cheetah")
    file = Path(__file__).parents[2] / "robots/cheetah/robot.yaml"
    assert load_robot(file) == load_robot(file.parent) == load_robot(str(file)) == shipped
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(MINIMAL))
    assert load_robot(tmp_path).directory == tmp_path.resolve()


def test_nine_robots_ship() -> None:
    """The robots that the README promises are there."""
    wanted = ["cartpole", "cheetah", "finger", "hopper", "humanoid", "jaco", "quadruped", "reacher", "walker"]
    assert [name for name in robot_names() if name in wanted] == wanted


@pytest.mark.parametrize(
    ("name", "word"),
    [("cheeta", "did you mean 'cheetah'"), ("../cheetah", "no robot"), ("", "no robot"), ("a\0b", "no robot")],
)
def test_no_such_robot(name: str, word: str) -> None:
    """A name of no robot is an error that lists the robots."""
    with pytest.raises(RobotSpecError, match=word):
        load_robot(name)


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: !!python/object:os.system {}", b"- 1", b""])
def test_not_a_robot_file(tmp_path: Path, content: bytes) -> None:
    """A file that is no YAML, unsafe YAML or no mapping is an error of one line that names the file."""
    path = tmp_path / "robot.yaml"
    path.write_bytes(content)
    with pytest.raises(RobotSpecError) as caught:
        load_robot(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)


@given(st.sampled_from([*MINIMAL, "reset", "sensors", "overrides", "joint_limits", "default_pose", "task"]), trees)
def test_any_value_gives_a_robot_or_an_error(key: str, value: object) -> None:
    """Whatever stands behind a key, the answer is a spec or a RobotSpecError."""
    try:
        parse_robot(MINIMAL | {key: value})
    except RobotSpecError as error:
        assert str(error)


def write_variant(folder: Path, **keys: object) -> Path:
    (folder / "original.yaml").write_text(yaml.safe_dump({**MINIMAL, "description": "the original"}))
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump({"name": "toy-2", "variant_of": "original.yaml", **keys}))
    return file


def test_variant_names_what_differs(tmp_path: Path) -> None:
    """What a variant gives replaces the original's, all else is the original's; its files lie beside the original."""
    (tmp_path / "variants").mkdir()
    write_variant(tmp_path)
    file = tmp_path / "variants" / "long.yaml"
    file.write_text(yaml.safe_dump({"name": "long", "variant_of": "../original.yaml", "stretch": {"leg": 1.5}}))
    spec, original = load_robot(file), load_robot(tmp_path / "original.yaml")
    assert spec.directory == original.directory == tmp_path
    assert (spec.name, spec.stretch, original.stretch) == ("long", (("leg", 1.5),), ())
    assert dataclasses.replace(spec, name="toy", stretch=()) == original


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"observation": []}, ["unknown key 'observation'", "stretch, overrides"]),
        ({"strech": {"leg": 2}}, ["did you mean 'stretch'"]),
        ({"stretch": {"leg": 0}}, ["stretch.leg", "above 0"]),
        ({"stretch": [1]}, ["stretch", "mapping"]),
        ({"name": None}, ["name", "text"]),
        ({"variant_of": "chetah"}, ["did you mean 'cheetah'", "cheetah-weak"]),
        ({"variant_of": "cheetah-weak"}, ["not a variant"]),
        ({"variant_of": "robot.yaml"}, ["not a variant"]),
        ({"action": [{**MINIMAL["action"][0], "actuator": "knee"}]}, ["in its order, hip", "knee"]),
    ],
)
def test_variant_mistakes(tmp_path: Path, keys: dict, words: list[str]) -> None:
    """A variant changes neither what is seen nor who acts, and starts from a robot that is none."""
    file = write_variant(tmp_path, **keys)
    with pytest.raises(RobotSpecError) as caught:
        load_robot(file)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in [str(file), *words])


def test_spec_from_a_bundle(tmp_path: Path) -> None:
    """The JSON that a bundle carries is the same robot; damaged JSON is refused."""
    spec, path = load_robot("cartpole"), tmp_path / "spec.json"
    path.write_text(json.dumps(spec.to_dict()))
    assert read_spec(str(path), None).sha256 == spec.sha256
    path.write_text("{")
    with pytest.raises(RobotSpecError, match="JSON"):
        read_spec(str(path), None)


def test_practice_is_no_part_of_the_identity_and_no_longer_than_an_episode(tmp_path: Path) -> None:
    """Demos of a robot stay its own when its training is changed; what cannot be is refused."""
    text = (Path(load_robot("walker").directory or "") / "robot.yaml").read_text()
    without, longer = tmp_path / "without.yaml", tmp_path / "longer.yaml"
    without.write_text("\n".join(line for line in text.splitlines() if not line.startswith("practice_seconds")))
    longer.write_text(text.replace("practice_seconds: 6.25", "practice_seconds: 25.5"))
    walker, plain = load_robot("walker"), load_robot(without)
    assert (walker.practice_steps, plain.practice_steps, plain.practice_seconds) == (250, 1000, None)
    assert walker.sha256 == plain.sha256
    assert spec_from_dict(json.loads(json.dumps(walker.to_dict()))).practice_seconds == 6.25
    assert load_robot("walker-long").practice_steps == 250
    with pytest.raises(RobotSpecError, match="practice_seconds 25.5: longer than the episode_seconds, 25"):
        load_robot(longer)
