"""What the options of `gcl deploy` mean: the loop's core, what it polls, and what the guardian is told of it."""

import os
from typing import Any

import pytest

from export.real_time import RealTimeOptions, privileged
from robots.robot_yaml import load_robot
from toolkit.commands.deploy_choices import link_options, real_time, spin_ns

SPEC = load_robot("walker")  # 25 ms a step
NOTHING: dict[str, Any] = {
    "backend": "sim", "address": None, "allow_remote": False, "key": None, "estop": None, "hardware": None,
    "driver_python": None, "seed": 0, "realtime": False, "cpu": None, "spin": None,
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
