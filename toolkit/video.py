"""A short video of a policy at work, where this machine can render."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from robots.spec import RobotSpec, ToolkitError

_SIZE = (240, 320)  # [pixel] height, width
_FRAME_RATE = 25  # [1/s]


class VideoError(ToolkitError):
    """This machine cannot render: no GL library, or no encoder."""


def record_video(
    spec: RobotSpec, act: Callable[[np.ndarray], np.ndarray], path: Path, seconds: float, seed: int = 0
) -> Path:
    """Films one episode of the robot's task.

    Args:
        spec: The robot; must have a task.
        act: The policy, observation (obs_dim,) -> action (act_dim,).
        path: The .mp4 to write.
        seconds: Length [s].
        seed: Of the episode.

    Returns:
        `path`.

    Raises:
        VideoError: No OpenGL on this machine, or no imageio with ffmpeg.
    """
    from robots.task import TaskEnv

    try:
        import imageio.v2 as imageio
    except ModuleNotFoundError as error:
        raise VideoError("no video: imageio is not installed (pip install 'gcl-toolkit[train]')") from error
    env = TaskEnv(spec, seed=seed)
    observation = env.reset()
    every = max(1, round(1.0 / (_FRAME_RATE * spec.control_dt)))
    frames = []
    for step in range(round(seconds / spec.control_dt)):
        if step % every == 0:
            try:
                frames.append(env.physics.render(*_SIZE, camera_id=0))
            except Exception as error:  # each GL back end fails in its own way
                raise VideoError(f"no video: cannot render here ({type(error).__name__}: {error})") from error
        observation, _, termination, truncation = env.step(act(observation))
        if termination or truncation:
            break
    imageio.mimsave(path, frames, fps=round(1.0 / (every * spec.control_dt)), macro_block_size=16)
    return path
