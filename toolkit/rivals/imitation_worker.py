"""GAIL or AIRL of the `imitation` package on our demos, by its public API and with the settings it was published with.

A script, run by `gcl bench rival` with the Python of a virtual environment that has `imitation` and lacks us. It reads
the robot's world from a folder and plays back what our own environment did there before it begins to learn.
"""
# pyright: reportMissingImports=false
# pyright: reportAttributeAccessIssue=false
# What is imported below is in the rival's environment, not in ours.

from __future__ import annotations

import argparse
import csv
import functools
import importlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "disable")  # no picture is drawn, and dm_control warns about a missing screen
os.environ.setdefault("TQDM_DISABLE", "1")

import gymnasium
import mujoco
import numpy as np
import torch
from dm_control import suite
from dm_control.mujoco import wrapper
from dm_control.rl import control
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data.types import Trajectory
from imitation.rewards.reward_nets import NormalizedRewardNet
from imitation.util import logger as imitation_logger
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

NUM_ENVS = 8  # the `imitation` scripts' own default
COLUMNS = ["seconds", "wall_seconds", "cpu_seconds", "steps", "mean", "std"]
_UFUNC = {"sin": np.sin, "cos": np.cos, "log1p": np.log1p, "arcsinh": np.arcsinh}


class World:
    """The robot as the parent wrote it down: model, task, what is observed, what an action does."""

    def __init__(self, folder: Path) -> None:
        """Reads `world.json`, `world.npz` and `model.mjb`."""
        self.folder = folder
        facts = json.loads((folder / "world.json").read_text())
        self.domain, self.task, self.episode_seconds = facts["domain"], facts["task"], facts["episode_seconds"]
        arrays = np.load(folder / "world.npz")
        self.index, self.offset, self.scale = arrays["index"], arrays["offset"], arrays["scale"]
        transforms = np.array(facts["transforms"])
        self.transformed = [(f, np.flatnonzero(transforms == name)) for name, f in _UFUNC.items() if name in transforms]
        self.ctrl_offset, self.ctrl_gain = arrays["ctrl_offset"], arrays["ctrl_gain"]

    def environment(self, seed: int) -> control.Environment:
        """dm_control's environment of the task around the robot's model."""
        original = suite.load(self.domain, self.task, task_kwargs={"random": seed})
        model = mujoco.MjModel.from_binary_path(str(self.folder / "model.mjb"))
        physics = type(original.physics).from_model(wrapper.MjModel(model))
        return control.Environment(
            physics, original.task, time_limit=self.episode_seconds, control_timestep=original.control_timestep()
        )


class DmControlEnv(gymnasium.Env):
    """The world as a gymnasium environment. Its reward is 0: the true one is for `episode_return` only."""

    def __init__(self, world: World, seed: int) -> None:
        """Builds the environment; `seed` decides the beginnings of all its episodes, in order."""
        self._world, self._environment = world, world.environment(seed)
        model = self._environment.physics.model.ptr
        self._state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
        size, actions = len(world.index), world.ctrl_gain.shape[1]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        self.true_reward = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begins an episode as the task does. `seed` is ignored: the constructor's holds."""
        self._environment.reset()
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One control step of an action in [-1, 1]."""
        ctrl = self._world.ctrl_offset + self._world.ctrl_gain @ np.clip(action, -1.0, 1.0)
        timestep = self._environment.step(ctrl)
        self.true_reward = float(timestep.reward)
        termination = timestep.last() and timestep.discount == 0.0
        return self._observe(), 0.0, termination, timestep.last() and not termination, {}

    def _observe(self) -> np.ndarray:
        world, physics = self._world, self._environment.physics
        mujoco.mj_getState(physics.model.ptr, physics.data.ptr, self._state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        raw = np.concatenate((self._state, physics.data.ptr.sensordata))[world.index]
        observation = (raw - world.offset) * world.scale
        for ufunc, columns in world.transformed:
            observation[columns] = ufunc(observation[columns])
        return observation.astype(np.float32)


class Clock:
    """Wall and processor seconds spent learning: what happens while it is paused does not count."""

    def __init__(self) -> None:
        """Starts."""
        self.children: list[int] = []  # process ids whose processor time counts too
        self._wall = self._cpu = 0.0
        self.resume()

    def pause(self) -> tuple[float, float]:
        """Stops; returns wall and processor seconds so far."""
        wall, cpu = self.read()
        self._wall, self._cpu = wall, cpu
        return wall, cpu

    def resume(self) -> None:
        """Goes on."""
        self._started = time.perf_counter(), self._processor()

    def read(self) -> tuple[float, float]:
        """Wall and processor seconds so far, while running."""
        wall, cpu = self._started
        return self._wall + time.perf_counter() - wall, self._cpu + self._processor() - cpu

    def _processor(self) -> float:
        total = time.process_time()
        for pid in self.children:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total


def check_same_world(world: World) -> None:
    """Plays the parent's probe: same seed, same actions. Raises RuntimeError unless all that comes back is the same."""
    probe = np.load(world.folder / "probe.npz")
    env = DmControlEnv(world, int(probe["seed"]))
    observations, rewards = [env.reset()[0]], []
    for action in probe["actions"]:
        observations.append(env.step(action)[0])
        rewards.append(env.true_reward)
    for name, ours, theirs in (
        ("observations", probe["observations"], np.array(observations)),
        ("rewards", probe["rewards"], np.array(rewards)),
    ):
        difference = float(np.abs(ours - theirs).max())
        if not difference < 1e-5:
            raise RuntimeError(f"not the same world: {name} differ by up to {difference:g}")


def episode_return(world: World, seed: int, policy: Any) -> float:
    """Sum of the true reward of one episode of the deterministic policy."""
    env = DmControlEnv(world, seed)
    observation, total, ended = env.reset()[0], 0.0, False
    while not ended:
        observation, _, termination, truncation, _ = env.step(policy.predict(observation, deterministic=True)[0])
        total += env.true_reward
        ended = termination or truncation
    return total


def published_settings(objective: str, tuned_for: str) -> dict[str, Any]:
    """The tuned settings that `imitation` ships for one of its own tasks, such as "half_cheetah"."""
    folder = Path(importlib.import_module("imitation.scripts.config").__path__[0]) / "tuned_hps"
    return json.loads((folder / f"{objective}_seals_{tuned_for}_best_hp_eval.json").read_text())


def apply_changes(settings: dict[str, Any], changes: list[str]) -> None:
    """Applies "rl.rl_kwargs.gamma=0.99" and the like, in place. Raises KeyError for a name that is not there."""
    for change in changes:
        name, _, text = change.partition("=")
        *groups, leaf = name.split(".")
        node = functools.reduce(lambda inner, group: inner[group], groups, settings)
        if leaf not in node:
            raise KeyError(f"setting {name!r}; legal here are {', '.join(node)}")
        node[leaf] = json.loads(text)


def _named(value: Any) -> Any:
    """Replaces {"py/type": "a.b.C"} by the class, at any depth."""
    if not isinstance(value, dict):
        return value
    if "py/type" in value:
        module, _, name = value["py/type"].rpartition(".")
        return getattr(importlib.import_module(module), name)
    return {key: _named(inner) for key, inner in value.items()}


def make_envs(world: World, seed: int, threads: int) -> DummyVecEnv | SubprocVecEnv:
    """Eight environments; with more than one thread, in processes if a trial shows that to be the faster way here."""
    makers = [functools.partial(DmControlEnv, world, seed * NUM_ENVS + i) for i in range(NUM_ENVS)]
    if threads == 1:
        return DummyVecEnv(makers)
    seconds = {}
    for kind in (DummyVecEnv, SubprocVecEnv):
        envs = kind(makers)
        envs.reset()
        actions = np.zeros((NUM_ENVS, *envs.action_space.shape), np.float32)
        started = time.perf_counter()
        for _ in range(500):
            envs.step(actions)
        seconds[kind] = time.perf_counter() - started
        envs.close()
    return min(seconds, key=seconds.__getitem__)(makers)


def make_trainer(args: argparse.Namespace, world: World, envs: Any, settings: dict[str, Any]) -> GAIL | AIRL:
    """The trainer as the package's own script puts it together from such settings."""
    demos = np.load(args.folder / "world" / "demos.npz")
    # An episode that came to its end by the clock is terminal in their sense: it is whole.
    pairs = zip(demos["observations"], demos["actions"], strict=True)
    trajectories = [Trajectory(obs=o, acts=a, infos=None, terminal=True) for o, a in pairs]
    algorithm = dict(settings["algorithm_kwargs"])
    # The published batch may be larger than all demos together, which the package refuses.
    algorithm["demo_batch_size"] = min(algorithm["demo_batch_size"], sum(map(len, trajectories)))
    reward, policy, rl = (_named(settings[key]) for key in ("reward", "policy", "rl"))
    network = reward["net_cls"](envs.observation_space, envs.action_space, **reward["net_kwargs"])
    if reward["normalize_output_layer"] is not None:
        network = NormalizedRewardNet(network, reward["normalize_output_layer"])
    generator = PPO(
        policy["policy_cls"],
        envs,
        policy_kwargs=policy["policy_kwargs"],
        n_steps=rl["batch_size"] // NUM_ENVS,
        seed=args.seed,
        device="cpu",
        **rl["rl_kwargs"],
    )
    return {"gail": GAIL, "airl": AIRL}[args.objective](
        demonstrations=trajectories,
        venv=envs,
        gen_algo=generator,
        reward_net=network,
        log_dir=str(args.folder / "imitation"),
        custom_logger=imitation_logger.configure(str(args.folder / "imitation"), []),
        **algorithm,
    )


def learn(args: argparse.Namespace, world: World) -> dict[str, Any]:
    """Trains until the seconds are used up, and writes a row of returns at each of the given times."""
    settings = published_settings(args.objective, args.tuned_for)
    apply_changes(settings, args.changes)
    envs = make_envs(world, args.seed, args.threads)
    clock = Clock()
    clock.children = [process.pid for process in getattr(envs, "processes", [])]
    clock.resume()
    trainer = make_trainer(args, world, envs, settings)
    times, steps = [float(t) for t in args.times.split(",")], 0
    with (args.folder / f"{args.objective}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        while True:
            wall, cpu = clock.read()
            seconds = cpu if args.clock == "cpu" else wall
            if times and seconds >= times[0]:
                clock.pause()
                returns = [episode_return(world, args.eval_seed + i, trainer.policy) for i in range(args.eval_episodes)]
                row = (seconds, wall, cpu, steps, float(np.mean(returns)), float(np.std(returns)))
                writer.writerow(dict(zip(COLUMNS, row, strict=True)))
                file.flush()
                times = [t for t in times if t > seconds]
                clock.resume()
            if not times:
                break
            trainer.train(trainer.gen_train_timesteps)
            steps += trainer.gen_train_timesteps
    facts = {"vec_env": type(envs).__name__, "demo_batch_size": trainer.demo_batch_size, "settings": settings}
    envs.close()
    return {"seconds": seconds, "wall_seconds": wall, "cpu_seconds": cpu, "steps": steps, **facts}


def main() -> None:
    """Reads the world, checks it, learns, and writes `<objective>.json` as a sign that the run came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what gcl bench rival wrote; results go there too")
    parser.add_argument("--objective", choices=("gail", "airl"), required=True)
    parser.add_argument("--times", required=True, help="seconds at which to evaluate; the last one ends the run")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tuned-for", default="half_cheetah")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=JSON")
    parser.add_argument("--eval-seed", type=int, required=True)
    parser.add_argument("--eval-episodes", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("absl").setLevel(logging.ERROR)  # deprecations inside dm_control's models, at every load
    world = World(args.folder / "world")
    check_same_world(world)
    result = learn(args, world)
    (args.folder / f"{args.objective}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
