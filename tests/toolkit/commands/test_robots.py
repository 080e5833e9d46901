"""`gcl robots`: what a person and a script see, with and without a simulator installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from robots import load_robot, robot_names
from toolkit.cli import main

MJCF = (
    "<mujoco><worldbody><body><joint name='hip'/><geom size='.1'/></body></worldbody>"
    "<actuator><motor name='hip' joint='hip'/></actuator></mujoco>"
)
YAML = """
name: toy
mjcf: toy.xml
control_dt: 0.01
episode_seconds: 1
observation: [{name: q, joint_pos: [hip], unit: rad}]
action: [{actuator: hip, kind: effort, unit: N m, scale: 1}]
"""


def gcl(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["robots", *arguments])


def test_list() -> None:
    """Every shipped robot is listed, for eyes and for scripts."""
    result = gcl("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in robot_names())
    rows = json.loads(gcl("list", "--json").output)
    assert [row["name"] for row in rows] == robot_names()
    assert next(row for row in rows if row["name"] == "cheetah")["obs_dim"] == 17


def test_show() -> None:
    """A robot is shown with its whole hash, its terms and its limits."""
    result = gcl("show", "quadruped")
    assert result.exit_code == 0
    for word in (load_robot("quadruped").sha256, "toe_force", "arcsinh", "lift_back_left", "1.1", "rad"):
        assert word in result.output
    data = json.loads(gcl("show", "quadruped", "--json").output)
    assert data["sha256"] == load_robot("quadruped").sha256


def test_check(tmp_path: Path) -> None:
    """A robot that fits its model passes, by its name and by its path."""
    assert gcl("check", "cartpole").exit_code == 0
    (tmp_path / "toy.xml").write_text(MJCF)
    (tmp_path / "robot.yaml").write_text(YAML)
    result = gcl("check", str(tmp_path / "robot.yaml"), "--json")
    assert result.exit_code == 0
    facts = json.loads(result.output)
    assert facts["ok"] and facts["substeps"] == 5 and facts["model"] == str(tmp_path / "toy.xml")


def test_check_notes_joints_that_nobody_names(tmp_path: Path) -> None:
    """A servo that is not called like its joint: until robot.yaml names that, nobody knows where it stands."""
    (tmp_path / "toy.xml").write_text(MJCF.replace("motor name='hip'", "position name='servo'"))
    for said, noted in (("", {"servo": "hip"}), ("joint: hip, ", {})):
        action = f"{{actuator: servo, {said}kind: position, unit: rad, scale: 1}}"
        yaml = YAML.replace("{actuator: hip, kind: effort, unit: N m, scale: 1}", action)
        (tmp_path / "robot.yaml").write_text(yaml)
        assert json.loads(gcl("check", str(tmp_path), "--json").output)["unsaid_joints"] == noted
        assert ("`joint: hip`" in gcl("check", str(tmp_path)).stderr) == bool(noted)
    assert json.loads(gcl("check", "quadruped", "--json").output)["unsaid_joints"] == {}


@pytest.mark.parametrize(("robot", "noted"), [("cheetah", ["position/rooty"]), ("reacher", [])])
def test_check_notes_angles_that_count_turns(robot: str, noted: list[str]) -> None:
    """A joint without limits that is observed as a plain angle is named, with what to write instead."""
    assert json.loads(gcl("check", robot, "--json").output)["endless_angles"] == noted
    said = gcl("check", robot).stderr
    assert ("transform: cos" in said) == bool(noted) and all(name in said for name in noted)


@pytest.mark.parametrize(
    ("swap", "word"),
    [
        (("joint_pos: [hip]", "joint_pos: [hipp]"), "did you mean 'hip'"),
        (("control_dt", "controldt"), "did you mean 'control_dt'"),
        (("toy.xml", "tyo.xml"), "tyo.xml"),
        (("episode_seconds: 1", "episode_seconds: 1\nreset: {joint_pos: {hip: limits}}"), "no limits"),
    ],
)
def test_check_finds(tmp_path: Path, swap: tuple[str, str], word: str) -> None:
    """What does not fit is one line on stderr and exit code 2."""
    (tmp_path / "toy.xml").write_text(MJCF)
    (tmp_path / "robot.yaml").write_text(YAML.replace(*swap))
    result = gcl("check", str(tmp_path))
    assert result.exit_code == 2 and result.stdout == ""
    assert word in result.stderr and result.stderr.startswith("gcl: ") and result.stderr.count("\n") == 1


def test_unknown_robot() -> None:
    """A name of no robot is one line and exit code 2."""
    result = gcl("show", "cheeta")
    assert result.exit_code == 2 and "did you mean 'cheetah'" in result.stderr


def test_without_a_simulator() -> None:
    """List and show run where mujoco is absent; check says which extra brings it."""
    code = (
        "import sys\n"
        "for name in ('mujoco', 'dm_control', 'torch', 'zarr'): sys.modules[name] = None\n"
        "from toolkit.cli import main\n"
        "main(sys.argv[1:])\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "robots", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])

    assert run("list").returncode == 0
    assert "cheetah" in run("show", "cheetah").stdout
    refused = run("check", "cheetah")
    assert refused.returncode == 2 and "gcl-toolkit[train]" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", [(), ("list",), ("show",), ("check",)])
def test_help_has_an_example(verb: tuple[str, ...]) -> None:
    """Every help text ends with an example."""
    assert "gcl robots" in gcl(*verb, "--help").output.split("Example")[1]


def test_show_tells_how_long_training_practises() -> None:
    """Of a robot whose robot.yaml says so; of another as long as an episode lasts."""
    for robot, expected in (("walker", 250), ("cheetah", 1000)):
        told = gcl("show", robot)
        assert told.exit_code == 0 and f"practice_steps  {expected}\n" in told.output


def test_where_a_task_is_over_for_good(tmp_path: Path) -> None:
    """Show says it; check refuses a robot whose episodes would be over as they begin."""
    path = tmp_path / "cartpole.yaml"
    path.write_text("name: cartpole\nvariant_of: cartpole\nterminate: {position: {lower: -1, upper: 1.5}}\n")
    assert "terminate       position below -1 or above 1.5\n" in gcl("show", str(path)).output
    assert "terminate       never\n" in gcl("show", "cartpole").output
    assert gcl("check", str(path)).exit_code == 0
    path.write_text("name: cartpole\nvariant_of: cartpole\nterminate: {pole_cos: {lower: 0}}\n")
    refused = gcl("check", str(path))
    assert refused.exit_code == 2 and "would be over as they begin: pole_cos/hinge_1 -" in refused.stderr
