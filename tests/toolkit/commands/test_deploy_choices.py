"""What the options of `gcl deploy` mean: the loop's core, what it polls, and what the guardian is told of it."""

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from export.real_time import RealTimeOptions, privileged
from robots.robot_yaml import load_robot
from robots.spec import ToolkitError
from toolkit.cli import main
from toolkit.commands.deploy_choices import link_options, read_key, real_time, shared_key, spin_ns

SPEC = load_robot("walker")  # 25 ms a step
NOTHING: dict[str, Any] = {
    "backend": "sim", "address": None, "allow_remote": False, "key": None, "estop": None, "hardware": None,
    "driver_python": None, "seed": 0, "realtime": False, "cpu": None, "spin": None, "dry_run": False, "wiring": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wishes", "spin"),
    [
        ({}, 0),
        ({"realtime": True}, 250_000),
        ({"realtime": True, "spin": 0}, 0),
        ({"realtime": True, "spin": 40}, 40_000),
        ({"spin": 100}, 100_000),
    ],
)
def test_in_real_time_it_polls_unless_told_how_long(wishes: dict[str, Any], spin: int) -> None:
    """A number that is given counts, zero as well."""
    assert spin_ns(SPEC, NOTHING | wishes) == spin


@pytest.mark.parametrize(
    ("wishes", "asked", "core"),
    [
        ({}, RealTimeOptions(), None),
        ({"cpu": 0}, RealTimeOptions(cpu=0), 0),
        ({"realtime": True}, privileged(), max(os.sched_getaffinity(0))),
        ({"realtime": True, "cpu": 0}, privileged(0), 0),
    ],
)
def test_the_guardian_is_told_the_core_that_the_loop_keeps_to(
    wishes: dict[str, Any], asked: RealTimeOptions, core: int | None
) -> None:
    """Whichever way it was chosen; a loop that keeps to none leaves it all of them."""
    assert real_time(NOTHING | wishes) == asked
    link = link_options(SPEC, NOTHING | wishes, "now")
    assert (link.realtime, link.controller_cpu) == (bool(wishes.get("realtime")), core)


@pytest.mark.parametrize("size", [0, 1, 15, 65, 100_000])
def test_a_key_that_is_too_short_or_long_is_refused(tmp_path: Path, size: int) -> None:
    """An empty file above all: without a word it would be no seal at all, and anybody could drive the robot."""
    path = tmp_path / "robot.key"
    path.write_bytes(b"k" * size)
    for read in (lambda: read_key(path), lambda: shared_key(NOTHING | {"key": path})):
        with pytest.raises(ToolkitError, match=f"robot.key: a key of {size} bytes; legal are 16 to 64"):
            read()
    result = CliRunner().invoke(main, ["estop", "127.0.0.1:9", "--key", str(path)])
    assert result.exit_code == 2 and f"{path}: a key of {size} bytes" in result.stderr


def test_keys_that_are_legal(tmp_path: Path) -> None:
    """From 16 to 64 bytes; a file that is not there is told as that, and none that was asked for is none."""
    path = tmp_path / "robot.key"
    for size in (16, 64):
        path.write_bytes(b"k" * size)
        assert shared_key(NOTHING | {"key": path}) == b"k" * size
    with pytest.raises(ToolkitError, match="cannot be read"):
        read_key(tmp_path / "nowhere")
    assert shared_key(NOTHING) == b""


def test_who_only_looks_has_a_guardian_that_passes_nothing_on() -> None:
    """Dry runs and wiring checks."""
    wishes = ({}, {"dry_run": True}, {"wiring": True})
    assert [link_options(SPEC, NOTHING | wish, "now").read_only for wish in wishes] == [False, True, True]
