"""The chain of digests that says which episodes a store holds, and in what order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def chained(start: str, digests: Iterable[bytes]) -> str:
    """c_k = SHA256(c_{k-1} || d_k): the chain after some more episodes.

    Args:
        start: Hex c_0: the robot's `sha256`, or the chain so far.
        digests: `Episode.sha256` of each that comes after.

    Returns:
        Hex digest of all of them in order.
    """
    chain = bytes.fromhex(start)
    for digest in digests:
        chain = hashlib.sha256(chain + digest).digest()
    return chain.hex()
