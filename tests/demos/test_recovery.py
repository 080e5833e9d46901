"""A journal that makes no episode is set aside, and keeps nobody from the store."""

import dataclasses
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demos.episode import Episode
from demos.journal import Journal
from demos.recovery import journal_folder
from demos.store import DemoStore

MakeEpisode = Callable[..., Episode]


def write(store: DemoStore, reward: float = 1.0, **changes: Any) -> Path:
    """The journal of three steps that somebody did not live to save; its header with changes."""
    header = dataclasses.replace(store.start_journal(1, "test").header, **changes)
    assert store._journal is not None
    store._journal.discard()
    journal = Journal(journal_folder(store.path), header)
    journal.start(np.zeros(header.obs_dim), 0.0)
    for step in range(1, 4):
        journal.step(np.zeros(header.act_dim), reward, np.zeros(header.obs_dim), 0.01 * step)
    journal.close()
    return journal.path


def of_another_version(data: bytes, more: dict[str, Any]) -> bytes:
    """The journal with more in its header, and the right checksum."""
    start = 16 + int.from_bytes(data[8:12], "little")
    header = json.dumps(json.loads(data[16:start]) | more).encode()
    return data[:8] + struct.pack("<II", len(header), zlib.crc32(header)) + header + data[start:]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"reward": np.inf}, "rewards: infinite"),
        ({"obs_dim": 3}, "observations of 3 elements"),
        ({"seed": 2**63}, "too "),
        ({"another": 1}, "unexpected keyword argument 'another'"),
    ],
)
def test_one_that_makes_no_episode_is_set_aside(store: DemoStore, kind: dict[str, Any], reason: str) -> None:
    """Its bytes are kept under another name, which is told with the reason; the others come back all the same."""
    if "another" in kind:
        bad = write(store)
        bad.write_bytes(of_another_version(bad.read_bytes(), kind))
    else:
        bad = write(store, **kind)
    content = bad.read_bytes()
    good = [write(store, start_time_ns=ns) for ns in (5, 6)]
    store.close()
    with DemoStore.open(store.path, mode="a") as opened:
        assert opened.recovery.restored == (0, 1) and opened.verify() == []
        (line,) = opened.recovery.set_aside
        kept = bad.with_suffix(".unfit")
        assert str(kept) in line and reason in line and "\n" not in line
        assert opened.recovery.lines() == ["brought back from the journal: episode 0, 1", line]
    assert kept.read_bytes() == content and not any(file.exists() for file in (bad, *good))
    with DemoStore.open(store.path, mode="a") as again:
        assert again.recovery.lines() == [] and len(again) == 2 and kept.exists()
