"""The virtual environment of a rival: made when it is missing, with everything pinned that decides the outcome."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from toolkit.rivals.shared_world import RivalError

# `imitation` 1.0.1 pins gymnasium~=0.29 and stable-baselines3~=2.2.1. Those are older than numpy 2 and pandas 3.
# MuJoCo and dm_control are the ones our own numbers are made with.
REQUIREMENTS = (
    "imitation==1.0.1",
    "stable-baselines3==2.2.1",
    "gymnasium==0.29.1",
    "torch==2.13.0",
    "numpy==1.26.4",
    "pandas<3",
    "mujoco==3.17.0",
    "dm-control==1.0.50",
)
_MARK = "requirements.txt"  # written last: what the environment was made of


def rival_python(folder: Path) -> Path:
    """The Python of the rival's virtual environment, which is made first if it is not there.

    Args:
        folder: Where it lies or shall lie.

    Returns:
        Path of the interpreter.

    Raises:
        RivalError: It could not be made, or lies there with other requirements.
    """
    python, mark, wanted = folder / "bin" / "python", folder / _MARK, "\n".join(REQUIREMENTS) + "\n"
    if mark.is_file():
        if mark.read_text() != wanted:
            raise RivalError(f"{folder} was made of other requirements than today's; remove it and run this again")
        return python
    for words in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS],
    ):
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            tail = process.stderr.strip()[-800:]
            raise RivalError(f"{' '.join(words[:4])} failed, so there is no rival to run:\n{tail}")
    mark.write_text(wanted)
    return python
