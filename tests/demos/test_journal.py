import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.durable import StoreError
from demos.episode import Episode
from demos.journal import Journal, JournalHeader, read_episode, read_header

HEADER = JournalHeader("ab" * 16, "cd" * 32, obs_dim=3, act_dim=2, seed=5, operator="me", task="it", start_time_ns=17)
STEPS = 4


def write(folder: Path, header: JournalHeader = HEADER, finish: bool = True) -> Path:
    """A journal of STEPS steps whose numbers say where they are."""
    journal = Journal(folder, header)
    journal.start(np.full(3, 0.0), 0.0)
    for step in range(1, STEPS + 1):
        journal.step(np.full(2, -0.1 * step), 10.0 * step, np.full(3, float(step)), 0.01 * step)
    if finish:
        journal.finish("termination", success=True)
    journal.close()
    return journal.path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole"))


def test_comes_back_as_it_was(whole: Path) -> None:
    """A finished journal holds the whole episode, its ending and its verdict."""
    episode = read_episode(whole)
    assert episode is not None and read_header(whole) == HEADER
    assert (episode.length, episode.ended_by, episode.success) == (STEPS, "termination", True)
    assert (episode.operator, episode.task, episode.seed, episode.start_time_ns) == ("me", "it", 5, 17)
    assert episode.observations[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert np.allclose(episode.actions[:, 1], [-0.1, -0.2, -0.3, -0.4]) and episode.actions.dtype == np.float32
    assert episode.rewards is not None and episode.rewards.tolist() == [10, 20, 30, 40]
    assert np.allclose(episode.timestamps, [0, 0.01, 0.02, 0.03, 0.04])


def test_torn_at_every_byte(whole: Path, tmp_path: Path) -> None:
    """Cut off anywhere, a journal gives exactly the steps that were whole, as interrupted, and never an error."""
    data, torn = whole.read_bytes(), tmp_path / "torn.bin"
    complete = read_episode(whole)
    record = (len(data) - (header := _header_size(data))) // (STEPS + 2)
    assert complete is not None
    for size in range(len(data)):
        torn.write_bytes(data[:size])
        steps = max(0, (size - header) // record - 1)
        episode = read_episode(torn)
        if steps == 0:
            assert episode is None
        else:
            assert episode is not None and (episode.length, episode.ended_by) == (min(steps, STEPS), "interrupted")
            assert np.array_equal(episode.actions, complete.actions[:steps])


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60)
def test_a_flipped_bit_ends_the_journal_there(where: int, bit: int, whole: Path) -> None:
    """Rot in a record loses that record and those after it, and none before it."""
    content = bytearray(whole.read_bytes())
    header = _header_size(content)
    record = (len(content) - header) // (STEPS + 2)
    place = header + where % (len(content) - header)
    content[place] ^= 1 << bit
    rotten = whole.with_name("rotten.bin")
    rotten.write_bytes(content)
    episode, intact = read_episode(rotten), (place - header) // record - 1
    assert (0 if episode is None else episode.length) == max(0, min(intact, STEPS))


@given(content=st.binary(max_size=400), like_ours=st.booleans())
def test_any_bytes_are_read_without_an_error(content: bytes, like_ours: bool, whole: Path) -> None:
    """A file that is no journal gives nothing, even if it begins like one."""
    foreign = whole.with_name("foreign.bin")
    foreign.write_bytes(b"GCLWAL01" * like_ours + content)
    assert read_header(foreign) is None and read_episode(foreign) is None


def test_zeros_after_a_power_cut_are_no_steps(tmp_path: Path) -> None:
    """Blocks that the disk never got, which read as zeros, are not taken for steps."""
    path = write(tmp_path, finish=False)
    with path.open("ab") as file:
        file.write(bytes(1000))
    episode = read_episode(path)
    assert episode is not None and (episode.length, episode.ended_by) == (STEPS, "interrupted")


def test_is_of(make_episode: Callable[..., Episode]) -> None:
    """A journal knows its episode by start time and seed."""
    episode = make_episode(seed=5, start_time_ns=17)
    assert HEADER.is_of(episode)
    assert not dataclasses.replace(HEADER, seed=6).is_of(episode)


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    """A journal that cannot be made says so."""
    with pytest.raises(StoreError, match="no journal can be started: No such file"):
        Journal(tmp_path / "nowhere", HEADER)


def _header_size(data: bytes | bytearray) -> int:
    return 16 + int.from_bytes(data[8:12], "little")
