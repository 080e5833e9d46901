"""`gcl` commands as child processes: several at once, their output in files, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

GCL = (sys.executable, "-c", "from toolkit.cli import main; main()")


class ChildCommands:
    """Runs children from any thread, until `stop` ends them all."""

    def __init__(self, program: Sequence[str] = GCL) -> None:
        """Starts nothing.

        Args:
            program: What the arguments are given to.
        """
        self._program = list(program)
        self._live: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, arguments: Sequence[str], log: Path, threads: int = 1) -> int:
        """Runs one command and waits for its end.

        Args:
            arguments: After the program's name.
            log: Its output is appended to `<log>.out` and `<log>.err`.
            threads: Of numerical libraries, for what the command itself does not settle.

        Returns:
            Its exit code, negative if a signal ended it.
        """
        # A session of its own: Ctrl-C reaches it through `stop` alone, once, and it saves what it has
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with Path(f"{log}.out").open("ab") as out, Path(f"{log}.err").open("ab") as err:
            with self._lock:
                if self.stopped:
                    return -signal.SIGINT
                child = subprocess.Popen(
                    [*self._program, *arguments],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True,
                )  # fmt: skip
                self._live.add(child)
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._live.discard(child)

    def stop(self, patience: float = 60.0) -> None:
        """Asks all children to save and end, waits for them, and kills those that do not.

        Args:
            patience: How long to wait [s]; a second Ctrl-C cuts it short.
        """
        with self._lock:
            self.stopped = True
            live = list(self._live)
        until = time.monotonic() + patience
        try:
            for child in live:
                child.send_signal(signal.SIGINT)
            for child in live:
                child.wait(max(0.0, until - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            for child in live:
                child.kill()  # does nothing to one that has ended
