"""What `gcl deploy` starts beside itself: a guardian whose failure is told, a 3D view where the page is, in order."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from free_address import free_address
from plain_bundle import Constant, write_plain_bundle

from export.black_box import BlackBox
from export.estop import UdpEStop
from export.hot_swap import HotSwap
from robots import Backend
from robots.mock import MockBackend
from robots.robot_yaml import load_robot
from robots.spec import ToolkitError
from toolkit.cli import main
from toolkit.commands import observer_link, robot_link
from toolkit.commands.robot_link import LinkOptions, open_link


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain_bundle(
        tmp_path_factory.mktemp("links") / "cartpole.bundle", Constant(0.0), load_robot("cartpole")
    )


@pytest.fixture
def failing_python(tmp_path: Path) -> Path:
    """An interpreter whose guardian drives the mock for `sim`, says two things and fails at the end."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\nfor word; do shift; [ $word = sim ] && word=mock; set -- "$@" $word; done\n'
        f'{sys.executable} "$@"\n'
        "echo 'elbow was sent up to 0.3 rad away' >&2\n"
        "echo 'export.guardian: servo 3 keeps 1' >&2\n"
        "exit $CODE\n"
    )
    path.chmod(0o755)
    return path


def deploy(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["deploy", *map(str, words)])


@pytest.mark.parametrize("code", [0, 2])
def test_a_guardian_that_failed_is_exit_code_1(
    bundle: Path, failing_python: Path, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the report; and what it and its driver said reaches who started it, also when all went well."""
    monkeypatch.setenv("CODE", str(code))
    monkeypatch.chdir(tmp_path)
    words = [bundle, "--backend", "sim", "--driver-python", failing_python, "--seconds", "0.3", "--json"]
    result = deploy(*words)
    report = json.loads(result.stdout)
    if not report["faults"]:  # as a busy machine may have one of its own
        assert result.exit_code == (1 if code else 0), result.stderr
    assert "gcl: guardian: elbow was sent up to 0.3 rad away" in result.stderr
    failed = "gcl: the guardian ended with exit code 2: export.guardian: servo 3 keeps 1"
    assert (failed in result.stderr) == (code == 2)
    assert result.stderr.count("servo 3 keeps 1") == 1


def test_a_wiring_check_whose_guardian_failed(
    bundle: Path, failing_python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its exit code is 1, too, whatever was seen; nothing can be told to the robot."""
    monkeypatch.setenv("CODE", "2")
    monkeypatch.chdir(tmp_path)
    seen: list[LinkOptions] = []
    opened = robot_link.open_link

    def watched(spec: Any, link: LinkOptions, *rest: Any) -> Any:
        seen.append(link)
        return opened(spec, link, *rest)

    monkeypatch.setattr(robot_link, "open_link", watched)
    monkeypatch.setattr("toolkit.commands.wiring.show_wiring", lambda *_: 0)
    result = deploy(bundle, "--backend", "sim", "--driver-python", failing_python, "--wiring")
    assert result.exit_code == 1 and "the guardian ended with exit code 2" in result.stderr
    assert [link.read_only for link in seen] == [True]


def test_a_guardian_that_does_not_start_is_one_line(bundle: Path, tmp_path: Path) -> None:
    """Why is told once."""
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho 'export.guardian: no such robot' >&2\nexit 2\n")
    path.chmod(0o755)
    spec, failures = load_robot("cartpole"), cast(list[str], [])
    link = LinkOptions(
        "sim", None, False, b"", None, path, spec.directory, 0, tmp_path / "events", realtime=False, controller_cpu=None
    )
    with pytest.raises(ToolkitError, match="did not start: export.guardian: no such robot"):
        with open_link(spec, link, failures):
            pass
    result = deploy(bundle, "--backend", "sim", "--driver-python", path)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and failures == []


def test_the_robot_is_let_go_of_first(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the emergency stop and the watch for a new bundle, which may take seconds, and the observer last."""
    order: list[str] = []

    @contextlib.contextmanager
    def link(spec: Any, *_: Any) -> Iterator[Backend]:
        with MockBackend(spec) as backend:
            yield backend
        order.append("robot")

    @contextlib.contextmanager
    def observed(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(ready=lambda: None, flights=[], errors=[])
        order.append("observer")

    monkeypatch.setattr(robot_link, "open_link", link)
    monkeypatch.setattr(observer_link, "observed", observed)
    monkeypatch.setattr(HotSwap, "close", lambda _: order.append("swap"))
    monkeypatch.setattr(UdpEStop, "close", lambda _: order.append("estop"))
    monkeypatch.setattr(UdpEStop, "wait", lambda *_: None)
    monkeypatch.setattr(UdpEStop, "check", lambda *_: None)
    (tmp_path / "robot.key").write_bytes(b"k" * 32)
    words = ["--estop", free_address(), "--key", tmp_path / "robot.key", "--hot-swap"]
    result = deploy(bundle, "--backend", "mock", "--seconds", "0.1", *words)
    assert result.exit_code == 0, result.output
    assert order == ["robot", "estop", "swap", "observer"]


@pytest.mark.parametrize(
    ("web", "allow_remote", "listens"),
    [
        ("8080", False, "127.0.0.1:0"),
        ("8080", True, "127.0.0.1:0"),  # who is allowed something else
        ("localhost:8080", True, "127.0.0.1:0"),
        ("[::1]:8080", False, "[::1]:0"),
        ("0.0.0.0:8080", True, "0.0.0.0:0"),
    ],
)
def test_the_3d_view_listens_where_the_page_does(
    web: str, allow_remote: bool, listens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never on more interfaces than --web names."""
    started: list[list[str]] = []

    def start(arguments: list[str], **_: Any) -> Any:
        started.append(arguments)
        return SimpleNamespace(communicate=lambda **_: None, kill=lambda: None, wait=lambda: None)

    monkeypatch.setattr(observer_link.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(observer_link.subprocess, "Popen", start)
    with observer_link.ghosted(cast(BlackBox, SimpleNamespace(fd=3)), None, web, allow_remote):
        pass
    (arguments,) = started
    assert arguments[arguments.index("--web") + 1] == listens


def test_a_3d_view_for_other_machines_is_allowed_explicitly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page is."""
    monkeypatch.setattr(observer_link.importlib.util, "find_spec", lambda _: True)
    with pytest.raises(ToolkitError, match="--allow-remote"):
        with observer_link.ghosted(cast(BlackBox, SimpleNamespace(fd=3)), None, "0.0.0.0:8080"):
            pass
