"""The chain of digests, by hand."""

import hashlib

from demos.chain import chained


def test_each_link_holds_all_before_it() -> None:
    """c_1 = SHA256(c_0 || d_1), c_2 = SHA256(c_1 || d_2); in parts it is the same chain."""
    start, first, second = bytes(32), b"\x01" * 32, b"\x02" * 32
    one = hashlib.sha256(start + first).digest()
    two = hashlib.sha256(one + second).hexdigest()
    assert chained(start.hex(), [first, second]) == two == chained(one.hex(), [second])
    assert chained(start.hex(), []) == start.hex() and chained(start.hex(), [second, first]) != two
