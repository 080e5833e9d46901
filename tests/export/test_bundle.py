"""The bundle folder: read whole or refused, written whole or not at all."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.bundle import MANIFEST_NAME, read_bundle, write_bundle_folder
from export.manifest import FILE_NAMES, BundleError, FileRecord, write_manifest
from export.runtime import load_bundle
from robots.spec import RobotSpec


def test_read_back(pristine: Path, arm: RobotSpec) -> None:
    """A bundle gives back the robot it was made for, and the bytes that were hashed."""
    bundle = read_bundle(pristine)
    assert bundle.spec == arm and bundle.spec.sha256 == bundle.manifest.spec_sha256
    assert bundle.policy_onnx == (pristine / "policy.onnx").read_bytes()
    assert bundle.manifest.settings["learning_rate"] == 0.1 + 0.2
    assert len(bundle.parity.observation) >= 64


@pytest.mark.parametrize("name", [*FILE_NAMES, MANIFEST_NAME])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_refused(bundle: Path, name: str, data: st.DataObject) -> None:
    """One changed byte in any file makes the whole bundle unreadable, in one line."""
    path = bundle / name
    original = path.read_bytes()
    damaged = bytearray(original)
    damaged[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(damaged))
    try:
        with pytest.raises(BundleError) as caught:
            read_bundle(bundle)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", [*FILE_NAMES, MANIFEST_NAME])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_truncated_and_missing_files_are_refused(bundle: Path, name: str, keep: float) -> None:
    """A file cut short, and then a file gone, are refused by name."""
    path = bundle / name
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle)


def test_a_file_that_grew_is_refused_before_it_is_read(bundle: Path) -> None:
    """A size other than the manifest's is refused however large: a sparse terabyte is not read."""
    os.truncate(bundle / "policy.onnx", 2**40)
    with pytest.raises(BundleError, match=r"policy.onnx: 1099511627776 bytes, expected"):
        read_bundle(bundle)
    os.truncate(bundle / MANIFEST_NAME, 2**40)
    with pytest.raises(BundleError, match="expected at most"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [*FILE_NAMES, MANIFEST_NAME])
def test_links_and_pipes_are_refused(bundle: Path, name: str, tmp_path: Path) -> None:
    """A link to the very same bytes outside the bundle is refused, and so is a pipe, without waiting on it."""
    path = bundle / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a symbolic link"):
        read_bundle(bundle)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="not an ordinary file"):
        read_bundle(bundle)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["../policy.onnx", "/etc/passwd", "policy.onnx.data"])
def test_a_manifest_cannot_name_files_elsewhere(bundle: Path, name: str) -> None:
    """Names other than the bundle's own three are refused even in a manifest with correct hashes."""
    manifest = read_bundle(bundle).manifest
    files = {**manifest.files, name: FileRecord("0" * 64, 1)}
    (bundle / MANIFEST_NAME).write_bytes(write_manifest(dataclasses.replace(manifest, files=files)))
    with pytest.raises(BundleError, match="legal are exactly"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["policy.onnx.data", ".hidden", "policy.int8.onnx", "notes"])
def test_what_the_manifest_does_not_list_is_refused(bundle: Path, name: str) -> None:
    """A file or folder too many is named: nobody vouches for it, and an engine might look for it."""
    (bundle / name).mkdir() if name == "notes" else (bundle / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=f"holds {name}, which the manifest does not list"):
        read_bundle(bundle)


def test_a_bundle_of_the_first_format_still_runs() -> None:
    """One that gcl 0.1 wrote loads, with nothing of what came later; what is not of its format is refused."""
    old = Path(__file__).parent / "format-1.bundle"
    bundle, policy, _ = load_bundle(old)
    manifest = bundle.manifest
    assert manifest.format_version == 1 and manifest.variants == {} and manifest.parity_sequence == 1
    assert write_manifest(manifest) == (old / MANIFEST_NAME).read_bytes()
    assert not policy.remembers


def test_what_is_not_a_bundle_is_told(tmp_path: Path) -> None:
    """Nothing there, a file, and a folder without manifest are three different mistakes."""
    (tmp_path / "file").write_text("x")
    for path, message in (
        (tmp_path / "none", "not there"),
        (tmp_path / "file", "not a folder"),
        (tmp_path, "has no bundle.json"),
    ):
        with pytest.raises(BundleError, match=message):
            read_bundle(path)


def contents_of(path: Path) -> dict[str, bytes]:
    """The networks and vectors of a bundle."""
    return {name: (path / name).read_bytes() for name in FILE_NAMES}


def test_written_again_it_replaces_the_old_one(bundle: Path) -> None:
    """Writing over a bundle leaves the new one whole and nothing beside it."""
    manifest = dataclasses.replace(read_bundle(bundle).manifest, settings={"second": True})
    write_bundle_folder(bundle, manifest, contents_of(bundle))
    assert read_bundle(bundle).manifest.settings == {"second": True}
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_something_else_is_never_overwritten(bundle: Path, tmp_path: Path) -> None:
    """A folder, a file and a dangling link at the path are refused and stay as they were."""
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    file.write_text("x")
    link.symlink_to(tmp_path / "nowhere")
    for path in (folder, file, link):
        with pytest.raises(BundleError, match="not a bundle"):
            write_bundle_folder(path, read_bundle(bundle).manifest, contents_of(bundle))
    assert (folder / "thesis.tex").read_text() == "years of work" and file.read_text() == "x" and link.is_symlink()


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("call", range(12))
def test_a_failure_at_any_call_leaves_the_old_or_none(
    bundle: Path, call: int, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fails at the n-th flush or rename, the old bundle (or nothing) is there, whole, and no litter."""
    manifest, contents = read_bundle(bundle).manifest, contents_of(bundle)
    if not existing:
        shutil.rmtree(bundle)
    counted = 0

    def failing(real: object) -> object:
        def fail(*args: object, **kwargs: object) -> object:
            nonlocal counted
            counted += 1
            if counted == call + 1:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)  # type: ignore[operator]

        return fail

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    new = dataclasses.replace(manifest, settings={"new": True})
    try:
        write_bundle_folder(bundle, new, contents)
        assert counted <= call + 1
    except BundleError as error:
        assert "No space left" in str(error)
    monkeypatch.undo()
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []
    if bundle.exists():
        assert read_bundle(bundle).manifest.settings in (manifest.settings, {"new": True})
    else:
        assert not existing
