"""What the options of `gcl deploy` mean: which robot, whose signature, which driver, how to reach it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robots.backend import BackendError
from robots.seal import length_fault
from robots.spec import RobotSpec, RobotSpecError, ToolkitError
from toolkit.commands.robot_link import LinkOptions

if TYPE_CHECKING:
    from export.real_time import RealTimeOptions
    from export.signature import PublicKey


def robot_of(spec: RobotSpec, options: dict[str, Any]) -> RobotSpec:
    """The bundle's robot, with the directory of its model files, and as careful as robot.yaml and the options say."""
    from robots.robot_yaml import load_robot, robot_names

    if options["robot"] is not None:
        wanted = load_robot(options["robot"])
        if wanted.sha256 != spec.sha256:
            ours, theirs = f"{spec.name} ({spec.sha256[:12]})", f"{wanted.name} ({wanted.sha256[:12]})"
            raise RobotSpecError(
                f"the bundle is for {ours}, --robot {options['robot']} is {theirs}: export again for this robot"
            )
        spec = dataclasses.replace(spec, directory=wanted.directory, action=wanted.action, safety=wanted.safety)
    elif spec.name in robot_names() and load_robot(spec.name).sha256 == spec.sha256:
        today = load_robot(spec.name)
        # The bundle may be older than what is said today of which drive is where
        unmeasured = spec.safety.unmeasured or today.safety.unmeasured
        safety = dataclasses.replace(spec.safety, unmeasured=unmeasured)
        spec = dataclasses.replace(spec, directory=today.directory, action=today.action, safety=safety)
    safety = spec.safety
    if options["on_fault"] is not None:
        safety = dataclasses.replace(safety, on_fault=options["on_fault"])
    if options["monitor"] in ("warn", "fault"):
        safety = dataclasses.replace(safety, monitor=dataclasses.replace(safety.monitor, response=options["monitor"]))
    return dataclasses.replace(spec, safety=safety)


def trusted_keys(options: dict[str, Any]) -> list[PublicKey] | None:
    """Whose signature will do; None asks for none."""
    from export.signature import read_public_key

    return [read_public_key(path) for path in options["trusted"]] or None


def backend_name(spec: RobotSpec, options: dict[str, Any]) -> str:
    """What was asked for, or what the wiring is made for; nothing is guessed where they do not agree."""
    from robots.hardware_yaml import read_hardware

    asked = options["backend"]
    if options["hardware"] is None:
        if asked in ("serial", "ros2", "lerobot"):
            raise BackendError(f"--backend {asked} needs --hardware FILE, which says how this very robot is wired")
        return asked or "sim"
    driver = read_hardware(options["hardware"], spec).driver
    if asked not in (None, driver):
        raise BackendError(f"--backend {asked}, but {options['hardware']} is of driver {driver}")
    return driver


def shared_key(options: dict[str, Any]) -> bytes:
    """What sessions and heartbeats are sealed with; empty for a checksum only."""
    if options["key"] is None:
        if options["estop"] is not None:
            raise ToolkitError("--estop needs --key FILE, which `gcl estop` has too: anyone could say that all is well")
        return b""
    return read_key(options["key"])


def read_key(path: Path) -> bytes:
    """What is in a key's file; an empty one would be no seal at all.

    Args:
        path: The file.

    Returns:
        16 to 64 bytes.

    Raises:
        ToolkitError: It cannot be read, or is shorter or longer.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be read: {error.strerror or error}") from error
    if (fault := length_fault(key)) is not None:
        raise ToolkitError(f"{path}: {fault}: head -c 32 /dev/urandom > {path.name} makes one")
    return key


def real_time(options: dict[str, Any]) -> RealTimeOptions:
    """What the loop asks the system for."""
    from export.real_time import RealTimeOptions, privileged

    return privileged(options["cpu"]) if options["realtime"] else RealTimeOptions(cpu=options["cpu"])


def spin_ns(spec: RobotSpec, options: dict[str, Any]) -> int:
    """[ns] polled before each deadline."""
    from export.real_time import polled_ns

    if options["spin"] is not None:
        return 1000 * options["spin"]
    return polled_ns(round(1e9 * spec.control_dt)) if options["realtime"] else 0


def link_options(spec: RobotSpec, options: dict[str, Any], started: str) -> LinkOptions:
    """Which robot and how to reach it; `started` names what the guardian writes."""
    return LinkOptions(
        backend=options["backend"],
        address=options["address"],
        allow_remote=options["allow_remote"],
        key=shared_key(options),
        hardware=options["hardware"],
        driver_python=options["driver_python"],
        directory=spec.directory,
        seed=options["seed"],
        events=Path("runs") / "flight" / f"{spec.name}-{started}.guardian.jsonl",
        realtime=options["realtime"],
        controller_cpu=real_time(options).cpu,
        read_only=options["dry_run"] or options["wiring"],
    )
