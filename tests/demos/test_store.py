import dataclasses
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demos.episode import Episode
from demos.journal import Journal
from demos.recovery import journal_folder
from demos.store import DemoStore, StoreError
from robots import RobotSpec, load_robot

MakeEpisode = Callable[..., Episode]
ROOT = Path(__file__).resolve().parents[2]


def digests(episodes: list[Episode]) -> list[bytes]:
    return [episode.sha256 for episode in episodes]


def test_episodes_come_back_as_they_were(store: DemoStore, make_episode: MakeEpisode) -> None:
    """What was appended is read back bit for bit, with every entry, across a closing and reopening."""
    saved = [
        make_episode(5, seed=1),
        make_episode(9, seed=2, rewards=None, operator="you", success=True, ended_by="termination"),
        make_episode(1, seed=3, rewards=np.array([np.nan], np.float32), success=False),
    ]
    assert [store.append(episode) for episode in saved] == [0, 1, 2]
    store.close()
    opened = DemoStore.open(store.path)
    loaded = opened.episodes()
    assert digests(loaded) == digests(saved)
    assert [episode.success for episode in loaded] == [None, True, False]
    assert [episode.operator for episode in loaded] == ["test", "you", "test"]
    assert loaded[1].rewards is None and loaded[1].ended_by == "termination"
    assert (opened.n_episodes, opened.n_steps, len(opened)) == (3, 15, 3)
    assert opened.verify() == []


def test_a_store_knows_its_robot(store: DemoStore, spec: RobotSpec) -> None:
    """The robot is rebuilt from the store alone, and its identity starts the chain of digests."""
    opened = DemoStore.open(store.path, spec)
    assert opened.spec == spec and opened.spec_sha256 == spec.sha256
    assert opened.identity() == {
        "spec_sha256": spec.sha256, "chain_sha256": spec.sha256, "n_episodes": 0, "n_steps": 0, "excluded": [],
    }  # fmt: skip
    assert opened.episodes() == [] and opened.verify() == [] and opened.table() == []


def test_any_zarr_reader_finds_its_way(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Plain zarr sees arrays of equal length with units and names, and an end for each episode."""
    import zarr

    for seed, length in enumerate((3, 4)):
        store.append(make_episode(length, seed=seed))
    root = zarr.open_group(store.path, mode="r")
    names = ("observation", "action", "timestamp", "reward")
    assert [len(np.asarray(root[f"data/{name}"])) for name in names] == [7] * 4
    assert np.asarray(root["meta/episode_ends"]).tolist() == [3, 7]
    assert root["data/timestamp"].attrs["unit"] == "s"
    assert root["data/action"].attrs["names"] == list(store.spec.action_names)


def test_chain_depends_on_order_and_content(tmp_path: Path, spec: RobotSpec, make_episode: MakeEpisode) -> None:
    """The same episodes in the same order give the same chain, in another order another."""
    chains = []
    for name, seeds in (("a", (1, 2)), ("b", (1, 2)), ("c", (2, 1))):
        with DemoStore.create(tmp_path / f"{name}.zarr", spec) as made:
            for seed in seeds:
                made.append(make_episode(seed=seed))
            chains.append(made.chain_sha256)
    assert chains[0] == chains[1] != chains[2]


def test_exclude_hides_and_brings_back(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Excluding hides an episode from learning, changes no digest, and can be undone; a wrong index changes nothing."""
    for seed in range(4):
        store.append(make_episode(seed=seed))
    chain = store.chain_sha256
    store.exclude([1, 3])
    reader = DemoStore.open(store.path)
    assert [episode.seed for episode in reader.episodes()] == [0, 2]
    assert [episode.seed for episode in reader.episodes(include_excluded=True)] == [0, 1, 2, 3]
    assert reader.identity()["excluded"] == [1, 3] and reader.chain_sha256 == chain
    with pytest.raises(StoreError, match="no episode 4; legal are 0 to 3"):
        store.exclude([0, 4])
    store.exclude([1], excluded=False)
    assert store.identity()["excluded"] == [3] and store.verify() == []


def test_interrupted_episodes_are_excluded_unless_told(store: DemoStore, make_episode: MakeEpisode) -> None:
    """An episode somebody cut short is kept, but not learned from by default."""
    store.append(make_episode(seed=0, ended_by="interrupted"))
    store.append(make_episode(seed=1, ended_by="interrupted"), excluded=False)
    assert [info.excluded for info in store.table()] == [True, False]


def test_table_of_contents(store: DemoStore, make_episode: MakeEpisode) -> None:
    """The table says length, return and origin of each episode."""
    store.append(make_episode(2, seed=8, rewards=np.array([1, 2], np.float32)))
    store.append(make_episode(3, seed=9, rewards=np.array([1, np.nan, 2], np.float32)))
    first, second = store.table()
    assert (first.length, first.return_, first.seed, first.operator, first.task) == (2, 3.0, 8, "test", "to test")
    assert second.length == 3 and np.isnan(second.return_)


def test_more_rows_than_a_chunk(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Episodes that straddle the border between chunks come back whole."""
    saved = [make_episode(9_000, seed=seed) for seed in range(4)]
    for episode in saved:
        store.append(episode)
    assert digests(DemoStore.open(store.path).episodes()) == digests(saved)
    assert store.verify() == []


def test_second_writer_is_refused(store: DemoStore) -> None:
    """While one process records, another cannot, and hears which one it is; reading goes on."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        message = pool.apply(_message_of_second_writer, (str(store.path),))
    assert "takes one writer" in message and f"process {multiprocessing.current_process().pid} " in message
    DemoStore.open(store.path)
    store.close()
    DemoStore.open(store.path, mode="a").close()


def _message_of_second_writer(path: str) -> str:
    try:
        DemoStore.open(path, mode="a")
    except StoreError as error:
        return str(error)
    return "no error"


def test_another_robot_is_refused(store: DemoStore) -> None:
    """The store of one robot is not opened for another, and the difference is named."""
    with pytest.raises(StoreError, match=r"'cheetah' \(.{8}\), not of 'walker' .* control_dt \(0.01, not 0.025\)"):
        DemoStore.open(store.path, load_robot("walker"))


def test_another_robots_episode_is_refused(store: DemoStore, make_episode: MakeEpisode) -> None:
    """An episode of a wrong size never reaches the disk."""
    with pytest.raises(Exception, match="observations of 3 elements"):
        store.append(make_episode(4, observations=np.zeros((5, 3), np.float32)))
    assert store.n_episodes == 0 and store.verify() == []


@pytest.mark.parametrize("kind", ["nothing", "file", "folder", "foreign", "text", "newer", "no count", "other robot"])
def test_what_is_not_a_store(store: DemoStore, tmp_path: Path, kind: str) -> None:
    """Whatever else lies at the path is refused in one line, and nothing is written beside it."""
    path = tmp_path / "other.zarr"
    words = {
        "nothing": "no demo store there", "file": "not a demo store", "folder": "no zarr.json", "text": "not readable",
        "foreign": "lacks schema 'gcl.demos'", "newer": "store format 2.0; this version of gcl reads up to 1.0",
        "no count": "n_steps is None", "other robot": "is not the one it was made for",
    }[kind]  # fmt: skip
    if kind == "file":
        path.write_text("x")
    elif kind != "nothing":
        shutil.copytree(store.path, path)
        root = json.loads((path / "zarr.json").read_text())
        if kind == "folder":
            (path / "zarr.json").unlink()
        elif kind == "text":
            (path / "zarr.json").write_text("{")
        else:
            changes = {"foreign": {"schema": "x"}, "newer": {"schema_version": "2.0"}, "no count": {"n_steps": None}}
            root["attributes"] |= changes.get(kind, {})
            if kind == "other robot":
                root["attributes"]["spec"]["robot"]["control_dt"] = 0.02
            (path / "zarr.json").write_text(json.dumps(root))
    for mode in ("r", "a"):
        with pytest.raises(StoreError) as caught:
            DemoStore.open(path, mode=mode)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert kind == "other robot" or not journal_folder(path).exists()


def test_create_refuses_what_is_there(store: DemoStore, tmp_path: Path, spec: RobotSpec) -> None:
    """Neither an existing store nor a name of another kind is taken for a new one."""
    store.close()
    with pytest.raises(StoreError, match="something is there already"):
        DemoStore.create(store.path, spec)
    with pytest.raises(StoreError, match="ends in .zarr"):
        DemoStore.create(tmp_path / "demos", spec)


def test_reading_mode_writes_nothing(store: DemoStore, make_episode: MakeEpisode) -> None:
    """A store opened for reading refuses to change."""
    store.append(make_episode())
    reader = DemoStore.open(store.path)
    for act in (
        lambda: reader.append(make_episode()),
        lambda: reader.exclude([0]),
        lambda: reader.start_journal(0, "x"),
    ):
        with pytest.raises(StoreError, match="opened for reading"):
            act()


def test_a_flipped_bit_is_caught(store: DemoStore, make_episode: MakeEpisode) -> None:
    """One bit changed anywhere in any chunk is found by verify, and never read as a number."""
    store.append(make_episode(40))
    chunks = [file for file in sorted(store.path.rglob("c/*")) + sorted(store.path.rglob("c/*/*")) if file.is_file()]
    assert len(chunks) == 15
    rng = np.random.default_rng(0)
    for chunk in chunks:
        whole = chunk.read_bytes()
        rotten = bytearray(whole)
        rotten[rng.integers(len(rotten))] ^= 1 << int(rng.integers(8))
        chunk.write_bytes(rotten)
        problems = DemoStore.open(store.path).verify()
        assert any(str(chunk.relative_to(store.path)).split("/c/")[0] in problem for problem in problems), chunk
        with pytest.raises(StoreError, match="damaged"):
            DemoStore.open(store.path).episodes()
        chunk.write_bytes(whole)
    assert DemoStore.open(store.path).verify() == []


def test_a_lost_chunk_is_caught(store: DemoStore, make_episode: MakeEpisode) -> None:
    """A chunk that is gone, which zarr reads as fill values without a word, is a problem by name."""
    store.append(make_episode())
    (store.path / "data" / "action" / "c" / "0" / "0").unlink()
    reader = DemoStore.open(store.path)
    assert "data/action: 1 of 1 chunks are missing" in reader.verify()
    with pytest.raises(StoreError, match="episode 0 is damaged: it is not what was saved"):
        reader.episodes()


def test_a_swapped_episode_is_caught(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Numbers rewritten with valid checksums still do not pass for what was recorded."""
    for seed in range(3):
        store.append(make_episode(seed=seed))
    store.array("data/action")[8, 0] = 0.125
    problems = DemoStore.open(store.path).verify()
    assert len(problems) == 1 and "episode 1 is damaged: it is not what was saved" in problems[0]
    store.array("meta/sha256")[1] = 0
    assert any("chain_sha256" in problem for problem in DemoStore.open(store.path).verify())


def test_a_torn_tail_is_invisible_and_trimmed(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Rows beyond the commit do not exist for readers; the next writer cuts them off and sweeps half-written files."""
    for seed in range(2):
        store.append(make_episode(seed=seed))
    store.array("data/action").resize((25, 6))
    store.array("meta/seed").resize((3,))
    half = store.path / "data" / "action" / "c" / "0" / "0.123.partial"
    half.write_bytes(b"half")
    store.close()
    reader = DemoStore.open(store.path)
    assert len(reader.episodes()) == 2 and any("never committed" in problem for problem in reader.verify())
    with DemoStore.open(store.path, mode="a") as mended:
        assert (mended.recovery.trimmed_steps, mended.recovery.swept_files, half.exists()) == (11, 1, False)
        mended.append(make_episode(seed=2))
        assert mended.verify() == [] and [e.seed for e in mended.episodes()] == [0, 1, 2]


def test_missing_rows_are_not_mended_over(store: DemoStore, make_episode: MakeEpisode) -> None:
    """A store that lost committed rows is not recorded into."""
    store.append(make_episode())
    store.array("data/action").resize((3, 6))
    store.close()
    with pytest.raises(StoreError, match="data/action is damaged: it has 3 rows of the 7 committed"):
        DemoStore.open(store.path, mode="a")


def record_into_journal(store: DemoStore, episode: Episode, steps: int, finish: bool) -> Journal:
    journal = store.start_journal(episode.seed, episode.operator)
    journal.start(episode.observations[0], 0.0)
    for t in range(steps):
        journal.step(episode.actions[t], 1.0, episode.observations[t + 1], episode.timestamps[t + 1])
    if finish:
        journal.finish(episode.ended_by)
    return journal


@pytest.mark.parametrize(
    ("finish", "ended_by", "excluded"), [(False, "interrupted", True), (True, "truncation", False)]
)
def test_journals_come_back(
    store: DemoStore, make_episode: MakeEpisode, finish: bool, ended_by: str, excluded: bool
) -> None:
    """An episode without a commit is restored once: cut short as interrupted and excluded, finished as it was."""
    episode = make_episode(6, seed=4)
    record_into_journal(store, episode, steps=6 if finish else 4, finish=finish)
    store.close()
    with DemoStore.open(store.path, mode="a") as mended:
        assert mended.recovery.restored == (0,)
        info = mended.table()[0]
        assert (info.ended_by, info.excluded, info.seed, info.length) == (ended_by, excluded, 4, 6 if finish else 4)
    with DemoStore.open(store.path, mode="a") as again:
        assert again.recovery.restored == () and len(again) == 1
    assert list(journal_folder(store.path).glob("*.bin")) == []


def test_a_journal_of_a_committed_episode_is_dropped(store: DemoStore, make_episode: MakeEpisode) -> None:
    """Killed between the commit and the removal of the journal, the episode does not come back a second time."""
    episode = make_episode(seed=3)
    journal = record_into_journal(store, episode, steps=7, finish=True)
    store._journal = None  # what the kill does: nobody is left to remove it
    store.append(dataclasses.replace(episode, start_time_ns=journal.header.start_time_ns))
    store.close()
    with DemoStore.open(store.path, mode="a") as mended:
        assert (mended.recovery.restored, mended.recovery.dropped_journals, len(mended)) == ((), 1, 1)


def test_a_journal_of_a_former_store_is_left_alone(
    store: DemoStore, spec: RobotSpec, make_episode: MakeEpisode
) -> None:
    """A store made anew under an old name does not take in what was meant for the old one."""
    record_into_journal(store, make_episode(), steps=3, finish=True)
    store.close()
    shutil.rmtree(store.path)
    with DemoStore.create(store.path, spec):
        pass
    with DemoStore.open(store.path, mode="a") as opened:
        assert opened.recovery.restored == () and len(list(journal_folder(store.path).glob("*.bin"))) == 1


@pytest.mark.parametrize("length", [3, 7, 12])
def test_append_after_a_failed_append(store: DemoStore, make_episode: MakeEpisode, length: int) -> None:
    """An array whose files cannot be written spoils one episode; when it can be again, recording goes on."""
    store.append(make_episode(seed=0))
    folder, aside = store.path / "meta" / "seed", store.path.parent / "aside"
    folder.rename(aside)
    folder.write_text("in the way")
    with pytest.raises(StoreError, match="episode not saved: .* the 1 saved before are intact"):
        store.append(make_episode(seed=1))
    assert len(DemoStore.open(_restored(folder, aside, store.path)).episodes()) == 1
    assert store.append(make_episode(length, seed=2)) == 1
    assert store.verify() == [] and [episode.seed for episode in store.episodes()] == [0, 2]


def _restored(folder: Path, aside: Path, store: Path) -> Path:
    folder.unlink()
    aside.rename(folder)
    return store


# Runs where a file system of 400 kB is mounted: saves until it is full, makes room, and saves again
ON_A_SMALL_DISK = """
import sys, numpy as np
from pathlib import Path
from demos.episode import Episode
from demos.store import DemoStore, StoreError
from robots import load_robot
spec, disk = load_robot("cheetah"), Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(bytes(100_000))
rng = np.random.default_rng(0)
def episode(seed):
    observations = rng.normal(size=(201, spec.obs_dim)).astype("f4")
    actions = rng.uniform(-1, 1, size=(200, spec.act_dim)).astype("f4")
    return Episode(observations, actions, np.arange(201) * 0.01, "truncation", seed=seed, start_time_ns=seed)
saved, store = [], DemoStore.create(disk / "demos.zarr", spec)
try:
    for seed in range(100):
        journal = store.start_journal(seed, "test")
        one = episode(seed)
        journal.start(one.observations[0], 0.0)
        for t in range(200):
            journal.step(one.actions[t], 0.0, one.observations[t + 1], one.timestamps[t + 1])
        journal.finish("truncation")
        store.append(Episode(one.observations, one.actions, one.timestamps, "truncation", seed=seed,
                             start_time_ns=journal.header.start_time_ns))
        saved.append(one.actions)
except StoreError as error:
    print(error)
store.close()
reader = DemoStore.open(disk / "demos.zarr")
assert saved and all((a.actions == b).all() for a, b in zip(reader.episodes(), saved, strict=True))
ballast.unlink()
with DemoStore.open(disk / "demos.zarr", mode="a") as store:
    print("restored", len(store.recovery.restored), "lost", len(saved) - len(store) + len(store.recovery.restored))
    assert store.verify() == []
"""


def test_disk_full(tmp_path: Path) -> None:
    """A full disk ends in one line; what was saved is intact, and with room again the last episode comes back."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    script = f'mount -t tmpfs -o size=400k tmpfs {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    process = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, ON_A_SMALL_DISK],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    message, mended = process.stdout.splitlines()
    assert "No space left on device" in message or "the disk is full" in message
    assert mended == "restored 1 lost 0"
