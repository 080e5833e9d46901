"""What README and docs say is true: files, names, commands, make targets and the robot that is described."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from robots.model import compile_model
from robots.robot_yaml import load_robot
from toolkit import cli
from toolkit.commands.prepare import config_from_options
from toolkit.commands.train import command
from toolkit.config import TrainConfig, with_settings
from toolkit.studies import guides

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str, text: str = README) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def named_code() -> list[tuple[str, str]]:
    """(file, dotted name or "") of each `folder/file.ext` and `folder/file.py::Name` in the text."""
    return re.findall(
        r"`((?:robots|demos|toolkit|export|tests)/(?:\w+/)*\w+\.(?:py|yaml))(?:::([\w.]+))?`", "\n".join(PAGES)
    )


def gcl_lines() -> list[str]:
    """Each `gcl ...` command of the code blocks, without its comment; "..." stands for what was shown before."""
    lines = (line for text in PAGES for block in blocks("sh", text) for line in block.splitlines())
    return [line.split("  #")[0].replace(" ... ", " ").strip() for line in lines if line.startswith("gcl ")]


def parse(line: str) -> None:
    """Lets click take a command line apart, as far as running it."""
    words = shlex.split(line)[1:]
    command: click.Command = cli.main
    name = "gcl"
    while isinstance(command, click.Group):
        assert words, f"{line}: names no command of {name}"
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, (
            f"{line}: there is no {name!r}; there is {command.list_commands(click.Context(command))}"
        )
        command = found
    try:
        command.make_context(name, words)
    except click.BadParameter as error:
        # The demos and runs of the examples are the reader's, not ours.
        if "does not exist" not in error.format_message():
            raise


def test_readme_says_something() -> None:
    """The README has what the tests below look for, so that none of them passes on nothing."""
    assert len(named_code()) >= 10
    assert len(gcl_lines()) >= 8
    assert len(blocks("yaml")) == len(blocks("xml")) == 1


@pytest.mark.parametrize(("file", "name"), named_code())
def test_named_code_exists(file: str, name: str) -> None:
    """Each file of the trace is there, and defines the class, method or function named."""
    assert (ROOT / file).is_file()
    scope: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body if name else []
    for part in filter(None, name.split(".")):
        kinds = (ast.ClassDef, ast.FunctionDef)
        found = [node for node in scope if isinstance(node, kinds) and node.name == part]
        assert found, f"{file} defines no {part}"
        scope = found[0].body


@pytest.mark.parametrize("line", gcl_lines())
def test_command_parses(line: str) -> None:
    """Each command shown names a verb and options that exist, with values they take."""
    parse(line)


@pytest.mark.parametrize("line", ["gcl fly", "gcl train --demoz x.zarr", "gcl eval runs/first -n many", "gcl robots"])
def test_a_wrong_command_is_seen(line: str) -> None:
    """A verb, option or value that does not exist is reported."""
    with pytest.raises((AssertionError, click.UsageError)):
        parse(line)


def test_verbs_named_in_the_text_exist() -> None:
    """Each `gcl verb` in running text is a verb."""
    assert [verb for verb in re.findall(r"`gcl ([a-z][a-z-]*)[^`]*`", README) if verb not in cli.VERBS] == []


def test_make_targets_exist() -> None:
    """Each `make target` shown is in the Makefile."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE)
    assert named
    assert [target for target in named if target not in targets] == []


def test_own_robot_works(tmp_path: Path) -> None:
    """The robot of "bring your own robot" loads and compiles from exactly the two files shown."""
    (tmp_path / "arm.xml").write_text(blocks("xml")[0], encoding="utf-8")
    (tmp_path / "robot.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    spec = load_robot(tmp_path)
    model = compile_model(spec)
    assert model.nu == spec.act_dim == 2
    assert spec.obs_dim == 7


def test_the_reward_for_a_changed_robot_is_learned_as_it_was_measured() -> None:
    """The page's command has the settings of the study behind its figures, and no others."""
    guide = guides("walker")["torso strictest"]
    measured = with_settings(TrainConfig(total_steps=guide.steps), list(guide.settings))
    line = next(line for line in gcl_lines() if "--guide" in line)
    assert config_from_options(command.make_context("train", shlex.split(line)[2:]).params) == measured


def test_figures_are_filled_in() -> None:
    """No figure is left as a promise."""
    assert "TBD" not in README
