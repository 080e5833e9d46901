import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demos.convert import copy_episodes, export_npz, export_zarr2, import_npz
from demos.episode import Episode
from demos.store import DemoStore, StoreError

MakeEpisode = Callable[..., Episode]


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
    with copy_episodes(filled, tmp_path / "mix.zarr", [2, 1]) as mix:
        assert [e.sha256 for e in mix.episodes(True)] == [e.sha256 for e in filled.select([2, 1])]
        assert mix.identity()["excluded"] == [1] and mix.verify() == []
    with copy_episodes(filled, tmp_path / "mix.zarr", [0]) as mix:
        assert mix.n_episodes == 3 and mix.table()[2].success is True
    with pytest.raises(StoreError, match="no episode 9"):
        copy_episodes(filled, tmp_path / "other.zarr", [9])
    assert not (tmp_path / "other.zarr").exists()


def test_copy_without_actions(filled: DemoStore, tmp_path: Path) -> None:
    """A store of observations only is sound, survives .npz, and says of each episode that its actions are unknown."""
    with copy_episodes(filled, tmp_path / "seen.zarr", [0, 2], actions=False) as seen:
        assert seen.verify() == [] and not any(e.actions_known for e in seen.episodes())
        assert np.array_equal(seen.episodes()[1].observations, filled.select([2])[0].observations)
        export_npz(seen, tmp_path / "seen.npz")
        with import_npz(tmp_path / "seen.npz", tmp_path / "again.zarr") as again:
            assert again.chain_sha256 == seen.chain_sha256
