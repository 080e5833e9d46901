"""The command line: quick to answer, helpful to read, and one line with exit code 2 for a user's mistake."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from robots.spec import ToolkitError
from toolkit import cli

GCL = str(Path(sys.executable).parent / "gcl")  # the installed command, as a user starts it


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below `command`, groups included, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_helps_with_an_example(verb: str) -> None:
    """`--help` of a verb and of each of its subcommands names options and ends with an example to copy."""
    command = importlib.import_module(f"toolkit.commands.{verb}").command
    for words, _ in leaves(command, (verb,)):
        result = CliRunner().invoke(cli.main, [*words, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage:" in result.output
        assert "Example" in result.output, f"gcl {' '.join(words)} --help shows no example"
        assert f"gcl {words[0]}" in result.output.split("Example", 1)[1]


def test_help_lists_every_verb_without_importing_one() -> None:
    """`gcl --help` shows each verb's line, and the verbs stay unimported."""
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from toolkit import cli\n"
        "output = CliRunner().invoke(cli.main, ['--help']).output\n"
        "assert all(verb in output for verb in cli.VERBS), output\n"
        "heavy = {'torch', 'mujoco', 'dm_control', 'zarr', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "verbs = [name for name in sys.modules if name.startswith('toolkit.commands.')]\n"
        "assert not heavy and not verbs, (heavy, verbs)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_help_costs_little_more_than_its_libraries() -> None:
    """`gcl --help` takes at most twice what importing numpy and click alone takes here: best of nine each, in turns."""

    def seconds(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        return time.perf_counter() - start

    turns = [(seconds(GCL, "--help"), seconds(sys.executable, "-c", "import numpy, click")) for _ in range(9)]
    assert min(ours for ours, _ in turns) < 2.0 * min(alone for _, alone in turns)


def test_unknown_verb_is_exit_2_in_words() -> None:
    """A verb that does not exist is refused by name, with no traceback."""
    process = subprocess.run([GCL, "fly"], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "fly" in process.stderr
    assert "Traceback" not in process.stderr


def test_console_script_is_installed() -> None:
    """The `gcl` beside this interpreter answers with the version of the distribution."""
    process = subprocess.run([GCL, "--version"], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert importlib.metadata.version("gcl-toolkit") in process.stdout


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """A verb `broken` that raises what the test puts into the list."""
    raised: list[Exception] = []

    @click.command
    def command() -> None:
        raise raised[0]

    module = type(sys)("toolkit.commands.broken")
    module.command = command  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "toolkit.commands.broken", module)
    monkeypatch.setitem(cli.VERBS, "broken", "Raises.")
    yield raised


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "15000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_torchs_threads_let_go_of_their_cores(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In time for torch, which a verb imports; what the user has set stays."""
    seen: list[str | None] = []
    command = click.Command("robots", callback=lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    monkeypatch.setattr(cli.LazyVerbs, "get_command", lambda *_: command)
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # is put back afterwards, whatever the command does
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(cli.main, ["robots"]).exit_code == 0
    assert seen == [expected]


def test_users_mistake_is_one_line_and_exit_2(verb: list[Exception]) -> None:
    """A ToolkitError becomes its message on stderr, one line, exit code 2."""
    verb.append(ToolkitError("speed 7; legal are 1 to 5"))
    result = CliRunner().invoke(cli.main, ["broken"])
    assert result.exit_code == 2
    assert result.stderr == "gcl: speed 7; legal are 1 to 5\n"


def test_missing_extra_names_what_brings_it(verb: list[Exception]) -> None:
    """Without torch, the message says which extra to install."""
    verb.append(ModuleNotFoundError("No module named 'torch'", name="torch"))
    result = CliRunner().invoke(cli.main, ["broken"])
    assert result.exit_code == 2
    assert "gcl-toolkit[train]" in result.stderr


def test_our_own_mistake_keeps_its_traceback(verb: list[Exception]) -> None:
    """A fault of the toolkit is not dressed up as the user's: a missing module of ours comes through as it is."""
    verb.append(ModuleNotFoundError("No module named 'robots.nowhere'", name="robots.nowhere"))
    assert isinstance(CliRunner().invoke(cli.main, ["broken"]).exception, ModuleNotFoundError)
    verb[0] = RuntimeError("a bug")
    assert isinstance(CliRunner().invoke(cli.main, ["broken"]).exception, RuntimeError)
