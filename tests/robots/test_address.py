"""Addresses as people type them, and which of them stay on this machine."""

import pytest

from robots.address import is_loopback, parse_address
from robots.backend import BackendError


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:", ":99", "127.0.0.1:0", "127.0.0.1:70000", "h:²"])
def test_bad_address(address: str) -> None:
    """An address that is none is refused with the form expected."""
    with pytest.raises(BackendError, match="HOST:PORT"):
        parse_address(address)


def test_good_addresses() -> None:
    """A name for this machine is its address."""
    assert parse_address("10.0.0.7:9870") == ("10.0.0.7", 9870)
    assert parse_address("localhost:1") == ("127.0.0.1", 1)


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "robot.local", "8.8.8.8"])
def test_others_can_reach_it(host: str) -> None:
    """A name counts as going out, whatever it stands for."""
    assert not is_loopback(host)


def test_this_machine() -> None:
    """All of 127.0.0.0/8 stays here."""
    assert is_loopback("127.0.0.1") and is_loopback("127.8.9.10")
