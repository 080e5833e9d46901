"""`gcl estop` as an operator runs it: a process whose terminal says that all is well, until it does not."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from free_address import free_address

from export.estop import UdpEStop
from toolkit.cli import main

KEY = b"k" * 32


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "robot.key"
    file.write_bytes(KEY)
    return file


@pytest.fixture
def address() -> str:
    return free_address()


@pytest.fixture
def button(address: str, key_file: Path) -> Iterator[subprocess.Popen]:
    code = "from toolkit.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "estop", address, "--key", str(key_file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def pressed(robot: UdpEStop) -> bool:
    """Whether it hears of a press before long."""
    until = time.monotonic() + 30.0
    while robot.check(time.monotonic_ns()) != "estop_pressed" and time.monotonic() < until:
        time.sleep(0.01)
    return robot.check(time.monotonic_ns()) == "estop_pressed"


@pytest.mark.parametrize("end", ["enter", "terminal closed", "ctrl-c"])
def test_it_says_that_all_is_well_until_it_is_pressed(address: str, button: subprocess.Popen, end: str) -> None:
    """To one robot after the other, whoever came first; Enter, a closed terminal and Ctrl-C are presses."""
    for is_last in (False, True):
        robot = UdpEStop(address, KEY)
        robot.wait(60.0)
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            assert robot.check(time.monotonic_ns()) != "estop_pressed"
            time.sleep(0.01)
        if not is_last:
            robot.close()
    assert button.stdin is not None
    if end == "enter":
        button.stdin.write("\n")
        button.stdin.flush()
    elif end == "terminal closed":
        button.stdin.close()
        button.stdin = None
    else:
        button.send_signal(signal.SIGINT)
    assert pressed(robot)
    assert "stopped" in button.communicate(timeout=30)[0] and button.returncode == 0
    robot.close()


def test_a_press_reaches_a_robot_that_comes_just_then(address: str, button: subprocess.Popen) -> None:
    """It is repeated for a while, and with the nonce of whoever begins to listen meanwhile."""
    robot = UdpEStop(address, KEY)
    robot.wait(60.0)
    robot.close()
    assert button.stdin is not None
    button.stdin.write("\n")
    button.stdin.flush()
    time.sleep(0.1)  # as a rule it is noticed by then
    robot = UdpEStop(address, KEY)
    assert pressed(robot)
    robot.close()


def test_mistakes_are_one_line(address: str, tmp_path: Path, key_file: Path) -> None:
    """A key that is missing or short, and an address that is none."""
    (tmp_path / "short").write_bytes(b"short")
    for arguments, word in (
        ([address, "--key", str(tmp_path / "nowhere")], "cannot be read"),
        ([address, "--key", str(tmp_path / "short")], "16 to 64"),
        (["robot", "--key", str(key_file)], "HOST:PORT"),
    ):
        result = CliRunner().invoke(main, ["estop", *arguments])
        assert result.exit_code == 2 and word in result.stderr and result.stderr.count("\n") == 1
