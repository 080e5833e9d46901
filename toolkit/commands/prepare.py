"""From what a user asked for to a run that can start: settings, robot, demos, and what the policy is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from demos.episode import Episode
from demos.store import DemoStore
from robots.robot_yaml import load_robot, robot_names
from robots.spec import RobotSpec
from toolkit.checkpoint import load
from toolkit.config import ADVERSARIAL, FROM_DEMOS, OBJECTIVES, TrainConfig, config_from_dict
from toolkit.frozen_reward import load_frozen_reward
from toolkit.guide import GUIDE, GUIDE_STEPS
from toolkit.run import Run, new_folder
from toolkit.settings import ConfigError, put
from toolkit.trainer import Trainer, TrainingError


def prepare(demos: Path | None, robot: str | None, out: Path | None, options: dict[str, Any]) -> Run[Trainer]:
    """Turns command-line options into a Run.

    Args:
        demos: Demo store, or None for the objectives that take none.
        robot: Robot name or path, for those; with demos, a robot they must fit.
        out: Run folder, or None for a fresh one.
        options: The remaining options of `gcl train` by name.

    Returns:
        The run, not started.

    Raises:
        ToolkitError: Anything the user can mend.
    """
    if options["background"] is not None:
        raise TrainingError("--background is for --offline; otherwise the policy's own experience is the background")
    given = ["objective=reward"] if options["reward_file"] is not None else []
    config = config_from_options(options, given)
    if config.objective == "offline":
        raise TrainingError("objective 'offline' without --offline")
    if (config.objective == "reward") != (options["reward_file"] is not None):
        raise TrainingError(f"objective {config.objective!r}: 'reward' needs --reward, and no other takes one")
    if config.objective in FROM_DEMOS:
        if demos is None:
            raise TrainingError(f"--objective {config.objective} needs --demos, the store to learn from")
        wanted = load_robot(robot) if robot is not None else None
        spec, episodes, identity = open_demos(demos, wanted, options["count"])
        trainer = Trainer(spec, config, episodes)
    else:
        if robot is None or demos is not None or options["count"] is not None:
            raise TrainingError(f"--objective {config.objective} needs --robot and takes neither --demos nor --count")
        episodes = []
        trainer, identity = _judged_by_given_reward(load_robot(robot), config, options)
    if options["start"] is not None:
        identity["start"] = trainer.start_from(load(options["start"]))
    return Run(out or new_folder(trainer.spec.name), trainer, identity, episodes)


def open_demos(
    demos: Path, wanted: RobotSpec | None, count: int | None
) -> tuple[RobotSpec, list[Episode], dict[str, Any]]:
    """Reads demos.

    Args:
        demos: The store.
        wanted: Robot they must fit, or None for their own.
        count: Take the first so many; None for all.

    Returns:
        The robot, its demos, and which they are.

    Raises:
        ToolkitError: No such store, one of another robot, or too few demos.
    """
    store = DemoStore.open(demos, wanted)
    episodes, identity = store.episodes(), {**store.identity(), "path": str(demos)}
    if count is not None:
        if len(episodes) < count:
            raise TrainingError(f"{demos} holds {len(episodes)} demos to learn from; --count {count} needs that many")
        episodes, identity["used"] = episodes[:count], count
    return wanted or _as_trained_today(store.spec), episodes, identity


def _as_trained_today(spec: RobotSpec) -> RobotSpec:
    """A recorded robot that ships, with what its robot.yaml says of training: the store may be older than that."""
    if spec.name not in robot_names() or (today := load_robot(spec.name)).sha256 != spec.sha256:
        return spec
    return dataclasses.replace(
        spec,
        randomize=spec.randomize or today.randomize,
        practice_seconds=spec.practice_seconds or today.practice_seconds,
        terminate=spec.terminate or today.terminate,
    )


def _judged_by_given_reward(
    spec: RobotSpec, config: TrainConfig, options: dict[str, Any]
) -> tuple[Trainer, dict[str, Any]]:
    path = options["reward_file"]
    if path is not None:
        learned = load_frozen_reward(path, spec)
        if learned.alpha is not None:
            config = config_from_options(options, ["objective=reward", f"reward.alpha={learned.alpha!r}"])
        identity = {
            "reward": str(path), "reward_sha256": learned.sha256, "reward_alpha": learned.alpha,
            "learned_from": learned.demos,
        }  # fmt: skip
        return Trainer(spec, config, [], frozen_reward=learned.score), identity
    from robots.task import TaskReward

    return Trainer(spec, config, [], TaskReward(spec)), {}


def config_from_options(options: dict[str, Any], defaults: Sequence[str] = ()) -> TrainConfig:
    """The settings: defaults, then those of --guide, the YAML file, the named options, and each --set.

    Args:
        options: The options of `gcl train` by name.
        defaults: "dotted.name=value" where a way of training has defaults other than `toolkit.config`'s own.

    Returns:
        The checked settings.

    Raises:
        ConfigError: An unknown setting or an impossible value.
    """
    data = TrainConfig().to_dict()
    for setting in (*defaults, *((f"total_steps={GUIDE_STEPS}", *GUIDE) if options["guide"] else ())):
        put(data, setting)
    if (resumed := options.get("resumed")) is not None:
        data["total_steps"] = resumed.total_steps
    if options["config_file"] is not None:
        _put_file(data, options["config_file"])
    named = {
        "objective": options["objective"],
        "generator": options["generator"],
        "total_steps": options["steps"],
        "seed": options["seed"],
        "device": options["device"],
    }
    settings = [f"{name}={value}" for name, value in named.items() if value is not None]
    settings += ["randomize=true"] if options["randomize"] else []
    if options["segment"] is not None:
        settings.append(f"reward.segment={0 if options['segment'] == 'episode' else options['segment']}")
    for setting in (*settings, *options["settings"]):
        put(data, setting)
    if options["guide"] and data["objective"] in OBJECTIVES and data["objective"] not in ADVERSARIAL:
        raise ConfigError(f"--guide with objective {data['objective']!r}; it goes with {', '.join(ADVERSARIAL)}")
    return config_from_dict(data)


def _put_file(data: dict[str, Any], path: Path) -> None:
    """Puts the settings of a YAML file into nested plain data, group by group."""
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a mapping, got {given!r}")
    for key, value in given.items():
        grouped = isinstance(value, dict) and isinstance(data.get(key), dict)
        data[key] = {**data[key], **value} if grouped else value
