"""A real guardian process for tests, ended with its context."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

from robots.spec import RobotSpec

ROOT = Path(__file__).parents[1]


class GuardianProcess:
    """`python -m export.guardian` with a simulated or mock robot on a free port."""

    def __init__(self, spec: RobotSpec, folder: Path, *options: str, patient: bool = True, nohup: bool = False) -> None:
        # A busy machine may stall a test for long; only tests of the watchdog want it awake.
        safety = dataclasses.replace(spec.safety, watchdog_seconds=60.0, stale_seconds=60.0) if patient else spec.safety
        description = folder / "robot.json"
        description.write_text(json.dumps(dataclasses.replace(spec, safety=safety).to_dict()))
        self.events_path = folder / "events.jsonl"
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "export.guardian", "--robot", str(description), "--events",
                str(self.events_path), *options,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            # Said, since whoever runs the tests may be under nohup himself
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL),
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.address = f"127.0.0.1:{self.ready['port']}"

    def events(self) -> list[dict]:
        """What made it act so far, as recorded."""
        if not self.events_path.exists():
            return []
        return [json.loads(line) for line in self.events_path.read_text().splitlines()]

    def end(self) -> int:
        """Closes its lifeline and waits for it to go; returns its exit code."""
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> "GuardianProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()
