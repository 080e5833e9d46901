"""Signed bundles: a robot that trusts a key runs what that key signed, to the byte, and nothing else."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.bundle import MANIFEST_NAME, read_bundle, sign_bundle, write_bundle_folder
from export.manifest import FILE_NAMES, BundleError
from export.runtime import load_bundle
from export.signature import (
    SIGNATURE_NAME,
    KeyFileError,
    new_key_pair,
    public_key_of,
    read_private_key,
    read_public_key,
    sign_manifest,
    verify_manifest,
)

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = (public_key_of(KEY),)


@pytest.fixture
def signed(bundle: Path) -> Path:
    """A bundle that KEY vouches for."""
    sign_bundle(bundle, KEY)
    return bundle


def test_a_signed_bundle_is_run_by_who_trusts_the_key(signed: Path) -> None:
    """It loads, says who signed it, also among several keys; without wanting a signature nobody is named."""
    bundle, *_ = load_bundle(signed, trusted=(public_key_of(OTHER), *TRUSTED))
    assert bundle.signed_by == TRUSTED[0]
    assert read_bundle(signed).signed_by is None


def test_unsigned_and_strangers_are_refused(bundle: Path) -> None:
    """No signature, one by another key, and trust in nobody are three different messages."""
    with pytest.raises(BundleError, match="is unsigned"):
        load_bundle(bundle, trusted=TRUSTED)
    sign_bundle(bundle, OTHER)
    with pytest.raises(BundleError, match=f"signed by key {public_key_of(OTHER).key_id[:12]}, which is not trusted"):
        load_bundle(bundle, trusted=TRUSTED)
    with pytest.raises(BundleError, match="trusted: none"):
        load_bundle(bundle, trusted=())
    sign_bundle(bundle, KEY)  # replaces the stranger's
    assert read_bundle(bundle, TRUSTED).signed_by == TRUSTED[0]


@pytest.mark.parametrize("name", [*FILE_NAMES, MANIFEST_NAME, SIGNATURE_NAME])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_refused(signed: Path, name: str, data: st.DataObject) -> None:
    """One changed byte in any file, the signature's included, in one line that names the file."""
    path = signed / name
    original = path.read_bytes()
    damaged = bytearray(original)
    damaged[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(damaged))
    try:
        with pytest.raises(BundleError) as caught:
            read_bundle(signed, TRUSTED)
        told = str(caught.value)
        assert "\n" not in told and (name in told or (name == SIGNATURE_NAME and "sign" in told))
    finally:
        path.write_bytes(original)


def test_rewritten_hashes_are_refused(signed: Path) -> None:
    """Someone who changes a network and makes all hashes right again lacks the key."""
    old = read_bundle(signed)
    contents = {name: (signed / name).read_bytes() for name in FILE_NAMES}
    signature = (signed / SIGNATURE_NAME).read_bytes()
    shutil.rmtree(signed)
    write_bundle_folder(signed, old.manifest, {**contents, "reward.onnx": contents["reward.onnx"] + b"\x30\x01"})
    (signed / SIGNATURE_NAME).write_bytes(signature)
    assert read_bundle(signed)  # whole in itself
    with pytest.raises(BundleError, match="bundle.json is not what key .* signed"):
        read_bundle(signed, TRUSTED)


def test_a_file_of_another_signed_bundle_is_refused(signed: Path, tmp_path: Path) -> None:
    """A signature vouches for one set of files: a network, or a signature, of another good bundle will not do."""
    old, other = read_bundle(signed), tmp_path / "other.bundle"
    contents = {name: (signed / name).read_bytes() for name in FILE_NAMES}
    write_bundle_folder(other, old.manifest, {**contents, "policy.onnx": contents["policy.onnx"] + b"\x30\x01"}, KEY)
    assert read_bundle(other, TRUSTED)
    for name, message in ((SIGNATURE_NAME, "not what key"), ("policy.onnx", "policy.onnx: .* bytes, expected")):
        mixed = shutil.copytree(signed, tmp_path / f"mixed-{name}")
        shutil.copy(other / name, mixed / name)
        with pytest.raises(BundleError, match=message):
            read_bundle(mixed, TRUSTED)


def test_nothing_is_parsed_before_the_signature_is_checked(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's parser is not even called for bytes that nobody vouches for."""
    monkeypatch.setattr("export.bundle.read_manifest", lambda *_: pytest.fail("parsed"))
    (signed / MANIFEST_NAME).write_bytes(b"{")
    with pytest.raises(BundleError, match="not what key"):
        read_bundle(signed, TRUSTED)


def test_signing_leaves_no_litter_and_refuses_what_is_damaged(bundle: Path) -> None:
    """A damaged bundle is not vouched for; a good one gains one file and nothing beside it."""
    (bundle / "policy.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="policy.onnx"):
        sign_bundle(bundle, KEY)
    assert not (bundle / SIGNATURE_NAME).exists() and list(bundle.parent.iterdir()) == [bundle]


def test_key_files(tmp_path: Path) -> None:
    """Born readable by the owner only, read back as they were, and never overwritten."""
    private, public, key = new_key_pair(tmp_path / "keys" / "mine")
    assert (private.name, public.name) == ("mine.key", "mine.pub")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert read_public_key(public) == key == public_key_of(read_private_key(private))
    assert b"PRIVATE" in private.read_bytes() and b"PRIVATE" not in public.read_bytes()
    before = private.read_bytes(), public.read_bytes()
    for there in (public, private):
        with pytest.raises(KeyFileError, match="never overwritten"):
            new_key_pair(tmp_path / "keys" / "mine")
        there.unlink()
        there.write_bytes(before[there is public])
    assert (private.read_bytes(), public.read_bytes()) == before


def test_wrong_key_files_are_refused(tmp_path: Path) -> None:
    """Missing, swapped, of another kind, too large: one line each, which says what it is."""
    private, public, _ = new_key_pair(tmp_path / "mine")
    other = X25519PrivateKey.generate()
    (tmp_path / "x.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "x.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "large").write_bytes(bytes(10_000))
    for read, path, message in (
        (read_public_key, private, "the private one"),
        (read_private_key, public, "the public one"),
        (read_public_key, tmp_path / "x.pub", "expected ed25519"),
        (read_private_key, tmp_path / "x.key", "expected ed25519"),
        (read_public_key, tmp_path / "large", "not a key"),
        (read_public_key, tmp_path / "none", "cannot be read"),
        (read_private_key, tmp_path, "cannot be read"),
    ):
        with pytest.raises(KeyFileError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_garbage_is_no_signature(raw: bytes) -> None:
    """Whatever bytes come as a signature, BundleError is all that comes out."""
    with pytest.raises(BundleError):
        verify_manifest(b"manifest", raw, TRUSTED, "x")


@pytest.mark.parametrize("change", [lambda s: s + b" ", lambda s: s.replace(b'"', b"'"), lambda s: b"[1]", bytes.upper])
def test_a_signature_has_one_spelling(change) -> None:
    """White space, case and other JSON are refused, so a signature file cannot carry anything else."""
    with pytest.raises(BundleError):
        verify_manifest(b"manifest", change(sign_manifest(b"manifest", KEY)), TRUSTED, "x")


def test_openssl_reads_the_keys_and_the_signature(tmp_path: Path) -> None:
    """Another implementation agrees, from the files alone."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    import base64
    import json

    private, public, _ = new_key_pair(tmp_path / "mine")
    (tmp_path / "message").write_bytes(b"manifest")
    signature = json.loads(sign_manifest(b"manifest", read_private_key(private)))["signature"]
    (tmp_path / "raw").write_bytes(base64.b64decode(signature))
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", "message", "-sigfile", "raw"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)


def test_who_asks_for_no_signature_needs_no_cryptography(signed: Path) -> None:
    """A robot without the extra loads a bundle; only a trusted key imports cryptography."""
    code = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "from export.runtime import load_bundle\n"
        f"load_bundle({str(signed)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
