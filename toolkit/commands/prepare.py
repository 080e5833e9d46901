"""From what a user asked for to a run that can start: settings, robot, demos, and what the policy is judged by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from demos.episode import Episode
from demos.store import DemoStore
from robots.robot_yaml import load_robot, robot_names
from robots.spec import RobotSpec
from toolkit.checkpoint import load
from toolkit.config import FROM_DEMOS, TrainConfig, config_from_dict, with_settings
from toolkit.frozen_reward import load_frozen_reward
from toolkit.run import Run, new_folder
from toolkit.settings import ConfigError
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
    config = config_from_options(options)
    if config.objective == "offline":
        raise TrainingError("objective 'offline' without --offline")
    if (config.objective == "reward") != (options["reward_file"] is not None):
        raise TrainingError("--objective reward needs --reward, and no other objective takes one")
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
        trainer, identity = _judged_by_given_reward(load_robot(robot), config, options["reward_file"])
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
    )


def _judged_by_given_reward(
    spec: RobotSpec, config: TrainConfig, reward_file: Path | None
) -> tuple[Trainer, dict[str, Any]]:
    if reward_file is not None:
        frozen, sha256 = load_frozen_reward(reward_file, spec)
        identity = {"reward": str(reward_file), "reward_sha256": sha256}
        return Trainer(spec, config, [], frozen_reward=frozen), identity
    from robots.task import TaskReward

    return Trainer(spec, config, [], TaskReward(spec)), {}


def config_from_options(options: dict[str, Any], defaults: dict[str, Any] | None = None) -> TrainConfig:
    """The settings: defaults, then the YAML file, then the named options, then each --set.

    Args:
        options: The options of `gcl train` by name.
        defaults: Nested mapping of defaults other than `toolkit.config`'s own, for a way of training that has some.

    Returns:
        The checked settings.

    Raises:
        ConfigError: An unknown setting or an impossible value.
    """
    data: Any = {}
    if options["config_file"] is not None:
        try:
            data = yaml.safe_load(options["config_file"].read_text()) or {}
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{options['config_file']}: not readable as YAML: {' '.join(str(error).split())}"
            ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{options['config_file']}: expected a mapping, got {data!r}")
    config = config_from_dict({**(defaults or {}), **data})
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
    return with_settings(config, [*settings, *options["settings"]])
