"""EnvPool beside gcl: installed into a virtual environment of its own, and driven there by a small script."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from types import TracebackType

from robots.spec import RobotSpec, ToolkitError

FOLDER = Path("runs/rivals/envpool")
_PATIENCE = 120.0  # [s] without an answer
REQUIREMENTS = ("envpool==1.2.5", "numpy<2.5")
# One worker process a robot. It answers each line it reads with the seconds of one round; EnvPool resets by itself.
WORKER = """
import sys, time
import numpy as np
import envpool
task, envs, steps, threads = sys.argv[1], *map(int, sys.argv[2:])
pool = envpool.make(task, env_type="gymnasium", num_envs=envs, num_threads=threads, seed=0)
pool.reset()
rng = np.random.default_rng(0)
actions = rng.uniform(-1.0, 1.0, (steps, envs, *pool.action_space.shape))
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    for action in actions:
        pool.step(action)
    print(time.perf_counter() - started, flush=True)
"""


class RivalError(ToolkitError):
    """The rival cannot be measured here."""


class EnvPoolRival:
    """EnvPool's version of a robot's dm_control task, in a process of its own. A context manager."""

    def __init__(self, spec: RobotSpec, envs: int, steps: int, threads: int) -> None:
        """Installs EnvPool if it is not there yet, and starts it.

        Args:
            spec: The robot; its task must be one of dm_control's suite.
            envs: Environments side by side.
            steps: Control steps of a round.
            threads: Of EnvPool's pool.

        Raises:
            RivalError: No such task, or it neither installs nor starts.
        """
        task = task_name(spec)
        python = installed()
        arguments = [str(python), "-c", WORKER, task, *(str(n) for n in (envs, steps, threads))]
        # A file and no pipe: a worker that says much would wait for ever for somebody to read it.
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._answer("ready")

    def __enter__(self) -> EnvPoolRival:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def round(self) -> float:
        """Seconds of one round.

        Raises:
            RivalError: It ended, or said nothing for minutes.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer("a time"))

    def _answer(self, expected: str) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise RivalError(f"EnvPool did not say {expected} within {_PATIENCE:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["nothing on stderr"])[-1]
            raise RivalError(f"EnvPool ended before it said {expected}: {last}")
        return line


def task_name(spec: RobotSpec) -> str:
    """EnvPool's name of a robot's task.

    Args:
        spec: The robot.

    Returns:
        "CheetahRun-v1" for "dm_control.suite:cheetah/run".

    Raises:
        RivalError: The task is none of dm_control's suite.
    """
    kind, _, name = (spec.task or "").partition(":")
    if kind != "dm_control.suite":
        raise RivalError(f"{spec.name}: EnvPool has dm_control.suite's tasks only; its task is {spec.task}")
    return "".join(word.capitalize() for word in name.replace("/", "_").split("_")) + "-v1"


def installed(folder: Path = FOLDER) -> Path:
    """Makes the virtual environment unless it is there and complete.

    Args:
        folder: Where.

    Returns:
        Its Python.

    Raises:
        RivalError: pip fails; its last line is quoted.
    """
    python = folder.absolute() / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    complete = folder / "complete"  # written last, so that a half-made one is made again
    if not complete.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RivalError(f"pip could not install {' '.join(REQUIREMENTS)} into {folder}: {last}")
        complete.write_text("\n".join(REQUIREMENTS) + "\n", encoding="utf-8")
    return python
