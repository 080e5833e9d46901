"""What this toolkit promises first: `kill -9` of `gcl record` at any instant loses no episode it has acknowledged."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demos.recovery import journal_folder
from demos.store import DemoStore

KILLS = 100
# Forks one `gcl record` process per line of input, with everything imported beforehand: an interpreter's start would
# cost more than what is tested. The children run the command as it is, from the command line's first word.
NURSERY = """
import os, sys, traceback
import demos.record, demos.store, rich.progress, robots.mock, toolkit.commands.record
from toolkit.cli import main

for line in sys.stdin:
    arguments, log = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            main(arguments.split("|"))
        except BaseException:
            traceback.print_exc()
            os._exit(70)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def nursery() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=30)


def acknowledged(log: Path) -> list[str]:
    """Digests that the recorder has promised to keep; its last line may be cut off."""
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line)["sha256"] for line in lines if line.startswith("{") and line.endswith("\n")]


def running(process: int) -> bool:
    """Whether it is neither gone nor waiting to be buried, so that a recorder that fails does not hang the test."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def digests(store: DemoStore) -> list[str]:
    return [row.tobytes().hex() for row in store.column("sha256")]


@pytest.mark.timeout(300)
def test_kill_at_100_random_instants(nursery: subprocess.Popen, tmp_path: Path) -> None:
    """Every acknowledged episode is there after each kill, and what was torn is mended by the next recorder."""
    assert nursery.stdin is not None and nursery.stdout is not None
    store, log = tmp_path / "demos.zarr", tmp_path / "log"
    arguments = f"record|--robot|cheetah|--backend|mock|--json|-n|1000|--seconds|0.05|--out|{store}"
    rng = random.Random(2)
    promised: list[str] = []
    torn = 0
    for kill in range(KILLS):
        log.write_text("")
        nursery.stdin.write(f"{arguments}\t{log}\n")
        child = int(nursery.stdout.readline())
        # Some die while they open and mend the store, the others while they record
        if kill % 4 or not store.exists():
            while not acknowledged(log) and running(child):
                time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.1))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        assert int(nursery.stdout.readline()) == signal.SIGKILL, log.read_text()
        promised += acknowledged(log)
        reader = DemoStore.open(store)
        there = digests(reader)
        assert set(promised) <= set(there), f"kill {kill}: an acknowledged episode is gone"
        assert [digest for digest in there if digest in set(promised)] == promised
        journals = list(journal_folder(store).glob("*.bin"))
        longer = reader.array("data/action").shape[0] > reader.n_steps
        torn += bool(journals or longer or list(store.rglob("*.partial")))
    assert torn > KILLS // 4  # otherwise the kills hit nothing and the test shows nothing
    assert len(promised) > KILLS // 2

    with DemoStore.open(store, mode="a") as mended:
        assert mended.verify() == []
        assert list(journal_folder(store).glob("*.bin")) == []
        assert list(store.rglob("*.partial")) == []
        kept = {episode.sha256.hex() for episode in mended.episodes(include_excluded=True)}
        assert set(promised) <= kept
        seeds = mended.column("seed")
        assert len(set(seeds.tolist())) == len(seeds)  # nothing came back twice
