"""Children: their output is kept, and none outlives a stop."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from toolkit.child_commands import ChildCommands


def python() -> ChildCommands:
    return ChildCommands((sys.executable, "-c"))


def test_output_is_appended_and_the_exit_code_returned(tmp_path: Path) -> None:
    """What a second attempt says comes behind what the first one said."""
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS']); print('bad', file=sys.stderr); sys.exit(3)"
    children = python()
    assert [children.run([code], tmp_path / "log", threads=n) for n in (1, 2)] == [3, 3]
    assert (tmp_path / "log.out").read_text() == "1\n2\n"
    assert (tmp_path / "log.err").read_text() == "bad\nbad\n"


def stopped(children: ChildCommands, code: str, tmp_path: Path, patience: float) -> int:
    """Exit code of a child that is stopped as soon as it has made the file `ready`."""
    codes: list[int] = []
    ready = tmp_path / "ready"
    code = f"import pathlib, signal, time\n{code}pathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    thread = threading.Thread(target=lambda: codes.append(children.run([code], tmp_path / "log")))
    thread.start()
    while not ready.exists():
        time.sleep(0.01)
    children.stop(patience)
    thread.join(10.0)
    return codes[0]


def test_stop_lets_a_child_save(tmp_path: Path) -> None:
    """It gets the signal of Ctrl-C, and its own exit code comes back."""
    handler = "signal.signal(signal.SIGINT, lambda *_: exit(130))\n"
    assert stopped(python(), handler, tmp_path, 30.0) == 130


def test_stop_kills_a_deaf_child(tmp_path: Path) -> None:
    """One that ignores Ctrl-C is gone when the patience is."""
    handler = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert stopped(python(), handler, tmp_path, 0.3) == -signal.SIGKILL


def test_nothing_starts_after_a_stop(tmp_path: Path) -> None:
    """A job that would go on to its next command finds the door closed."""
    children = python()
    children.stop()
    assert children.run([f"open({os.fspath(tmp_path / 'made')!r}, 'w')"], tmp_path / "log") == -signal.SIGINT
    assert not (tmp_path / "made").exists()
