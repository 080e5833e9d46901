"""A short video of an exported policy at work, where this machine can render."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from robots.spec import ToolkitError

_SIZE = (240, 320)  # [pixel] height, width
_FRAME_RATE = 25  # [1/s]
_OFF_SCREEN = ("egl", "osmesa")  # GL libraries that need no screen, the quicker one first


class VideoError(ToolkitError):
    """This machine cannot render: no GL library, or no encoder."""


def record_video(bundle: Path, path: Path, seconds: float) -> Path:
    """Films one episode of the robot's task.

    Runs in a process of its own: dm_control picks its GL library once, when it is imported, and a library that is not
    there takes the process down with it.

    Args:
        bundle: The policy.
        path: The .mp4 to write.
        seconds: Length [s].

    Returns:
        `path`.

    Raises:
        VideoError: No GL library works here, or no encoder.
    """
    reason = ""
    for library in _OFF_SCREEN:
        arguments = [str(bundle), str(path), str(seconds)]
        code = "import sys; from toolkit.video import film; film(sys.argv[1], sys.argv[2], float(sys.argv[3]))"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "MUJOCO_GL": library}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return path
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise VideoError(f"none: no GL library here ({' and '.join(_OFF_SCREEN)} were tried; {reason[:80]})")


def film(bundle: str, path: str, seconds: float) -> None:
    """What the process of its own does.

    Args:
        bundle: The policy.
        path: The .mp4 to write.
        seconds: Length [s].
    """
    import imageio.v2 as imageio

    from robots.task import TaskEnv
    from toolkit.commands.eval import load_act

    spec, act = load_act(Path(bundle))
    env = TaskEnv(spec, seed=0)
    observation = env.reset()
    every = max(1, round(1.0 / (_FRAME_RATE * spec.control_dt)))
    frames = []
    for step in range(round(seconds / spec.control_dt)):
        if step % every == 0:
            frames.append(env.physics.render(*_SIZE, camera_id=0))
        observation, _, termination, truncation = env.step(act(observation))
        if termination or truncation:
            break
    imageio.mimsave(path, frames, fps=round(1.0 / (every * spec.control_dt)))  # type: ignore[arg-type]
