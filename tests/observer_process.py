"""A real observer process for tests, ended with its context by closing its standard input."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from export.black_box import BlackBox

ROOT = Path(__file__).resolve().parents[1]


class ObserverProcess:
    """`python -m export.observer` on a box."""

    def __init__(self, box: BlackBox, log: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "export.observer", "--fd", str(box.fd), "--log", str(log), *options],
            pass_fds=(box.fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def finish(self) -> dict[str, Any]:
        """Closes its standard input, as the end of the controller does; what it said last."""
        output, errors = self.process.communicate(timeout=30)
        assert errors == ""
        return json.loads(output.splitlines()[-1])

    def __enter__(self) -> "ObserverProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
