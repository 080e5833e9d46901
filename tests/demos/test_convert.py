import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demos.convert import copy_episodes, export_npz, export_zarr2, import_npz
from demos.episode import Episode
from demos.store import DemoStore, StoreError

MakeEpisode = Callable[..., Episode]
ROOT = Path(__file__).resolve().parents[2]
# The verb, hit by a signal while it writes its third episode
STRUCK = """
import os, sys
from demos.store import DemoStore
from toolkit.cli import main

write, count = DemoStore._write, 0

def struck(store, episode, excluded):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), int(sys.argv[1]))
    return write(store, episode, excluded)

DemoStore._write = struck
main(sys.argv[2:])
"""


@pytest.fixture
def filled(store: DemoStore, make_episode: MakeEpisode) -> DemoStore:
    store.append(make_episode(4, seed=0, success=True))
    store.append(make_episode(3, seed=1, rewards=None, ended_by="interrupted"))
    store.append(make_episode(6, seed=2, operator="you", ended_by="termination"))
    return store


def test_npz_there_and_back(filled: DemoStore, tmp_path: Path) -> None:
    """A store that went through one .npz file is the same store: same episodes, same chain, same exclusions."""
    export_npz(filled, tmp_path / "a.npz")
    with import_npz(tmp_path / "a.npz", tmp_path / "copy.zarr") as copy:
        assert copy.identity() == filled.identity() and copy.verify() == []
        assert str(copy.table()) == str(filled.table())  # as text, since one return is NaN
        assert copy.attributes["source"] == "import:npz"


def test_npz_needs_only_numpy(filled: DemoStore, tmp_path: Path) -> None:
    """The exported file says everything in plain arrays and one JSON text."""
    export_npz(filled, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["data/observation"].shape == (13, 17) and file["meta/episode_ends"].tolist() == [4, 7, 13]
        assert json.loads(str(file["attributes"]))["spec"]["robot"]["name"] == "cheetah"


def test_a_broken_npz_makes_no_store(filled: DemoStore, tmp_path: Path) -> None:
    """A file cut anywhere, changed, or of something else is refused in one line, and no store is left behind."""
    export_npz(filled, tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    contents = [whole[:size] for size in range(0, len(whole), len(whole) // 12)]
    with np.load(tmp_path / "a.npz") as file:
        entries = dict(file)
    entries["data/action"][5, 1] += 1.0
    np.savez(tmp_path / "b.npz", **entries)
    contents += [b"", b"text", (tmp_path / "b.npz").read_bytes()]
    for content in contents:
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(StoreError, match="not a whole export of a demo store") as caught:
            import_npz(tmp_path / "bad.npz", tmp_path / "bad.zarr")
        assert "\n" not in str(caught.value) and not (tmp_path / "bad.zarr").exists()


@pytest.mark.parametrize(
    ("verb", "number"),
    [("import", signal.SIGINT), ("import", signal.SIGTERM), ("import", signal.SIGKILL), ("copy", signal.SIGKILL)],
)
def test_stopped_on_the_way_leaves_no_store(
    filled: DemoStore, tmp_path: Path, verb: str, number: signal.Signals
) -> None:
    """Ctrl-C, SIGTERM or `kill -9` leaves no part of a store under the name of the whole; the verb may be repeated."""
    export_npz(filled, tmp_path / "a.npz")
    source, out = tmp_path / "a.npz" if verb == "import" else filled.path, tmp_path / "out.zarr"
    words = [sys.executable, "-c", STRUCK, str(number.value), "demos", verb, str(source), str(out)]
    killed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode != 0 and not out.exists(), killed.stderr
    with import_npz(source, out) if verb == "import" else copy_episodes(filled, out, range(3)).store as made:
        assert made.chain_sha256 == filled.chain_sha256 and made.verify() == []
    assert list(tmp_path.glob("out.zarr.*")) == []


def test_a_full_disk_leaves_no_store(filled: DemoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode that cannot be written on the way leaves nothing, and the message is about the store asked for."""
    export_npz(filled, tmp_path / "a.npz")
    write = DemoStore._write

    def full(store: DemoStore, episode: Episode, excluded: bool) -> dict:
        if episode.seed == 2:
            raise OSError(28, "No space left on device")
        return write(store, episode, excluded)

    monkeypatch.setattr(DemoStore, "_write", full)
    with pytest.raises(StoreError, match=r"b\.zarr: no store can be made here: No space left on device"):
        import_npz(tmp_path / "a.npz", tmp_path / "b.zarr")
    assert list(tmp_path.glob("b.zarr*")) == []


def test_notes_go_along(filled: DemoStore, make_episode: MakeEpisode, tmp_path: Path) -> None:
    """What was noted of an episode stays with it through .npz and in a copy, whatever its number there."""
    filled.append(make_episode(5, seed=3), note={"flight": "a.npz", "fault": ""})
    export_npz(filled, tmp_path / "a.npz")
    with import_npz(tmp_path / "a.npz", tmp_path / "again.zarr") as again:
        assert [again.note(i) for i in range(4)] == [None, None, None, {"flight": "a.npz", "fault": ""}]
    with copy_episodes(filled, tmp_path / "mix.zarr", [3, 0]).store as mix:
        assert mix.attributes["notes"] == {"0": {"flight": "a.npz", "fault": ""}}
    with copy_episodes(filled, tmp_path / "mix.zarr", [1, 3], actions=False).store as mix:
        assert mix.note(2) is None and mix.note(3) == mix.note(0)


def test_a_dropped_episode_is_missed(filled: DemoStore, tmp_path: Path) -> None:
    """Whole episodes taken away, which no digest of theirs can tell, break the chain."""
    export_npz(filled, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        entries = dict(file)
    attributes = json.loads(str(entries["attributes"]))
    entries["attributes"] = np.array(json.dumps(attributes | {"n_episodes": 2}))
    np.savez(tmp_path / "b.npz", **entries)
    with pytest.raises(StoreError, match="chain_sha256"):
        import_npz(tmp_path / "b.npz", tmp_path / "bad.zarr")


def test_zarr2_holds_what_may_be_learned_from(filled: DemoStore, tmp_path: Path) -> None:
    """The format 2 copy has equal lengths per step array, ends per episode, and no excluded episode."""
    import zarr

    export_zarr2(filled, tmp_path / "v2.zarr")
    assert json.loads((tmp_path / "v2.zarr" / ".zgroup").read_text()) == {"zarr_format": 2}
    root = zarr.open_group(tmp_path / "v2.zarr", mode="r", zarr_format=2)
    assert np.asarray(root["meta/episode_ends"]).tolist() == [4, 10]
    kept = filled.episodes()
    assert np.array_equal(np.asarray(root["data/action"]), np.concatenate([episode.actions for episode in kept]))
    assert len(np.asarray(root["data/observation"])) == len(np.asarray(root["data/timestamp"])) == 10
    with pytest.raises(StoreError, match="something is there already"):
        export_zarr2(filled, tmp_path / "v2.zarr")


def test_nowhere_to_write(filled: DemoStore, tmp_path: Path) -> None:
    """A place that cannot be written is one line."""
    (tmp_path / "file").write_text("")
    for export in (export_npz, export_zarr2):
        with pytest.raises(StoreError, match="not written: Not a directory"):
            export(filled, tmp_path / "file" / "a")


def test_copy_takes_episodes_as_they_are(filled: DemoStore, tmp_path: Path) -> None:
    """Copied episodes keep their digest and whether they are excluded; a second copy is added to the first."""
    with copy_episodes(filled, tmp_path / "mix.zarr", [2, 1]).store as mix:
        assert [e.sha256 for e in mix.episodes(True)] == [e.sha256 for e in filled.select([2, 1])]
        assert mix.identity()["excluded"] == [1] and mix.verify() == []
    with copy_episodes(filled, tmp_path / "mix.zarr", [0]).store as mix:
        assert mix.n_episodes == 3 and mix.table()[2].success is True
    with pytest.raises(StoreError, match="no episode 9"):
        copy_episodes(filled, tmp_path / "other.zarr", [9])
    assert not (tmp_path / "other.zarr").exists()


def test_a_copy_repeated_doubles_nothing(filled: DemoStore, tmp_path: Path) -> None:
    """What a store has already is told and not added again, and what differs in its actions is not the same."""
    copy_episodes(filled, tmp_path / "mix.zarr", [2]).store.close()
    for skipped in ([2], [0, 1, 2]):
        copied = copy_episodes(filled, tmp_path / "mix.zarr", range(3))
        with copied.store as made:
            assert copied.there == skipped and made.n_episodes == 3 and made.verify() == []
    copied = copy_episodes(filled, tmp_path / "mix.zarr", [0], actions=False)
    with copied.store as made:
        assert copied.there == [] and made.n_episodes == 4
    filled.exclude([1])
    copied = copy_episodes(filled, tmp_path / "mix.zarr", [1])
    with copied.store as made:
        there = made.digests().index(filled.digests()[1])
        assert copied.there == [1] and there in made.identity()["excluded"]


def test_a_store_is_not_copied_into_itself(filled: DemoStore, tmp_path: Path) -> None:
    """Neither by its name nor by a link to it."""
    filled.close()
    (tmp_path / "link.zarr").symlink_to(filled.path)
    for name in (filled.path, tmp_path / "link.zarr"):
        with pytest.raises(StoreError, match="not copied into itself"):
            copy_episodes(DemoStore.open(filled.path), name, [0])
    assert len(DemoStore.open(filled.path)) == 3


def test_copy_without_actions(filled: DemoStore, tmp_path: Path) -> None:
    """A store of observations only is sound, survives .npz, and says of each episode that its actions are unknown."""
    with copy_episodes(filled, tmp_path / "seen.zarr", [0, 2], actions=False).store as seen:
        assert seen.verify() == [] and not any(e.actions_known for e in seen.episodes())
        assert np.array_equal(seen.episodes()[1].observations, filled.select([2])[0].observations)
        export_npz(seen, tmp_path / "seen.npz")
        with import_npz(tmp_path / "seen.npz", tmp_path / "again.zarr") as again:
            assert again.chain_sha256 == seen.chain_sha256


def resting(before: int, moving: int, after: int, seed: int) -> Episode:
    """A cheetah that stands, then does something, then stands again; lengths in steps of 10 ms."""
    rng, steps = np.random.default_rng(seed), before + moving + after
    busy = np.zeros(steps, bool)
    busy[before : before + moving] = True
    walk = np.concatenate(
        [np.zeros((1, 17)), np.cumsum(np.where(busy[:, None], rng.choice([-1.0, 1.0], (steps, 17)), 0.0), 0)]
    )
    actions = np.where(busy[:, None], rng.uniform(-1.0, 1.0, (steps, 6)), 0.0)
    rewards = np.ones(steps, np.float32)
    times = np.arange(steps + 1) * 0.01
    return Episode(walk.astype(np.float32), actions.astype(np.float32), times, "truncation", rewards, "me", seed=seed)


def test_copy_cuts_idle_ends_and_says_so(store: DemoStore, tmp_path: Path) -> None:
    """The copy begins and ends with something going on; what was excluded and what is busy throughout stays whole."""
    store.append(resting(100, 300, 80, 1), note={"from": "a flight"})
    store.append(resting(0, 300, 0, 2))
    store.append(resting(60, 300, 0, 3), excluded=True)
    copied = copy_episodes(store, tmp_path / "cut.zarr", range(3), trim=True)
    with copied.store as cut:
        # The action before the first motion is at rest as well, the one after the last is where the motion ends
        ((start, stop),) = copied.shortened.values()
        assert list(copied.shortened) == [0] and abs(start - 100) <= 1 and abs(stop - 400) <= 1
        assert cut.verify() == [] and cut.identity()["excluded"] == [2]
        assert [e.length for e in cut.episodes(True)] == [stop - start, 300, 360]
        assert np.array_equal(cut.episodes()[0].observations, store.episodes()[0].observations[start : stop + 1])
        assert cut.note(0) == {"from": "a flight", "trimmed": {"start": start, "stop": stop, "of_steps": 480}}
        assert cut.note(1) is None and cut.episodes()[0].rewards is None and cut.episodes()[1].return_ == 300.0
    again = copy_episodes(store, tmp_path / "cut.zarr", [0], trim=True)
    with again.store:
        assert again.there == [0]


def test_what_is_idle_is_judged_beside_all_demos(store: DemoStore, tmp_path: Path) -> None:
    """One that hardly moves is copied by itself as it would be with the others, who show what moving is."""
    store.append(resting(100, 300, 0, 1))
    store.append(resting(0, 300, 0, 2))
    alone = copy_episodes(store, tmp_path / "alone.zarr", [0], trim=True)
    both = copy_episodes(store, tmp_path / "both.zarr", [0, 1], trim=True)
    with alone.store, both.store:
        assert alone.shortened == both.shortened != {}


@pytest.mark.parametrize("export", [export_npz, export_zarr2])
def test_an_export_that_is_interrupted_leaves_nothing(
    filled: DemoStore, tmp_path: Path, export: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the last bytes are on their way."""

    def struck(self: Path, target: Path) -> Path:
        if target == tmp_path / "a":
            raise KeyboardInterrupt
        os.replace(self, target)  # zarr renames files of its own, in threads of its own
        return Path(target)

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, struck)
    with pytest.raises(KeyboardInterrupt):
        export(filled, tmp_path / "a")
    assert not list(tmp_path.glob("a*"))
