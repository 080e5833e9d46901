"""A real simulator process for tests, ended with its context."""

import json
import subprocess
import sys
from pathlib import Path


class SimulatorProcess:
    """`python -m robots.simulator` on a free port."""

    def __init__(self, robot: str, *options: str) -> None:
        command = [sys.executable, "-m", "robots.simulator", "--robot", robot, *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.address = f"127.0.0.1:{self.ready['port']}"

    def __enter__(self) -> "SimulatorProcess":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
