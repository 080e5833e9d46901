"""Who vouches for a bundle: an ed25519 signature over the exact bytes of its manifest, which holds every file's hash.

`cryptography` is imported only where a key is used, so a robot that trusts no key in particular needs no such package.
Keys are PEM files as OpenSSL writes them, and the signature is over plain bytes, so that OpenSSL can check it, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from export.manifest import BundleError
from robots.spec import ToolkitError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_NAME = "bundle.sig"
MAX_KEY_FILE = 4096  # [byte]; a key takes some hundred
MAX_SIGNATURE = 1024  # [byte]; a signature file takes some 250
_KIND = "gcl bundle signature, ed25519 over bundle.json"


class KeyFileError(ToolkitError):
    """A key file that is not there, is no ed25519 key, or must not be overwritten."""


@dataclass(frozen=True)
class PublicKey:
    """A key that bundles are checked with. It is no secret."""

    raw: bytes  # (32,) ed25519

    @cached_property
    def key_id(self) -> str:
        """SHA-256 of the raw key, hex: its name in signature files and messages."""
        return hashlib.sha256(self.raw).hexdigest()


def new_key_pair(path: str | Path) -> tuple[Path, Path, PublicKey]:
    """Makes a key pair: `<path>.key`, which signs and must stay secret, and `<path>.pub`, which goes on the robots.

    Args:
        path: Where, without an ending.

    Returns:
        The private key's file, readable by its owner only; the public key's; and the public key.

    Raises:
        KeyFileError: One of the files is there already, or cannot be written. Nothing is overwritten.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private_path, public_path = (Path(f"{path}{ending}") for ending in (".key", ".pub"))
    for file in (private_path, public_path):
        if os.path.lexists(file):
            raise KeyFileError(f"{file}: is there already; keys are never overwritten: give another name")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        private_path.parent.mkdir(parents=True, exist_ok=True)
        for file, content, mode in ((private_path, private, 0o600), (public_path, public, 0o644)):
            # Born with its mode: a secret that is made readable and closed afterwards can be read in between
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
                handle.write(content)
    except OSError as error:
        raise KeyFileError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from error
    return private_path, public_path, public_key_of(key)


def read_private_key(path: str | Path) -> Ed25519PrivateKey:
    """Reads the key that signs.

    Args:
        path: The `.key` file.

    Returns:
        The key.

    Raises:
        KeyFileError: Not there, or not a private ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read_key_file(path)
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = ": this is the public one, which cannot sign" if b"PUBLIC" in raw else ""
        raise KeyFileError(f"{path}: not a private key that `gcl keys new` wrote{hint}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: a {type(key).__name__}; expected ed25519")
    return key


def read_public_key(path: str | Path) -> PublicKey:
    """Reads a key that bundles are checked with.

    Args:
        path: The `.pub` file.

    Returns:
        The key.

    Raises:
        KeyFileError: Not there, or not a public ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    raw = _read_key_file(path)
    try:
        key = load_pem_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = ": this is the private one, which has no place on a robot" if b"PRIVATE" in raw else ""
        raise KeyFileError(f"{path}: not a public key that `gcl keys new` wrote{hint}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: a {type(key).__name__}; expected ed25519")
    return PublicKey(key.public_bytes_raw())


def public_key_of(key: Ed25519PrivateKey) -> PublicKey:
    """The public half of a private key."""
    return PublicKey(key.public_key().public_bytes_raw())


def sign_manifest(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The bytes of `bundle.sig`.

    Args:
        manifest: The exact bytes of `bundle.json`.
        key: Who vouches for it.

    Returns:
        UTF-8 JSON.
    """
    return _dump(public_key_of(key).key_id, key.sign(manifest))


def verify_manifest(manifest: bytes, signature: bytes, trusted: Sequence[PublicKey], where: str) -> PublicKey:
    """Says who signed a manifest, if it is someone trusted.

    Args:
        manifest: The exact bytes of `bundle.json`; not looked into.
        signature: The exact bytes of `bundle.sig`.
        trusted: Whose signature will do; none means that nobody's will.
        where: Path of the bundle for messages.

    Returns:
        The key it was signed with.

    Raises:
        BundleError: The signature file is damaged, by a key that is not trusted, or not of these bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key_id, raw = _parsed(signature, f"{where}/{SIGNATURE_NAME}")
    key = next((key for key in trusted if key.key_id == key_id), None)
    if key is None:
        names = ", ".join(key.key_id[:12] for key in trusted) or "none"
        raise BundleError(f"{where}: signed by key {key_id[:12]}, which is not trusted here; trusted: {names}")
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(raw, manifest)
    except (InvalidSignature, ValueError) as error:
        raise BundleError(
            f"{where}: bundle.json is not what key {key_id[:12]} signed: it or the signature was changed or swapped"
        ) from error
    return key


def _parsed(signature: bytes, where: str) -> tuple[str, bytes]:
    """Key id and raw signature; strict to the byte, so that one signature has one spelling."""
    try:
        data = json.loads(signature.decode("utf-8"))
        key_id, raw = data["key_id"], base64.b64decode(data["signature"], validate=True)
        exact = _dump(key_id, raw) == signature
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{where}: not a signature that `gcl keys sign` wrote") from error
    if not (exact and isinstance(key_id, str) and len(key_id) == 64 and len(raw) == 64):
        raise BundleError(f"{where}: not a signature as `gcl keys sign` wrote it: it was changed")
    return key_id, raw


def _dump(key_id: str, signature: bytes) -> bytes:
    data = {"kind": _KIND, "key_id": key_id, "signature": base64.b64encode(signature).decode("ascii")}
    return (json.dumps(data, indent=1) + "\n").encode()


def _read_key_file(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_KEY_FILE:
        raise KeyFileError(f"{path}: more than {MAX_KEY_FILE} bytes: not a key")
    return raw
