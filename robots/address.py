"""Addresses on the network: what a user types, and whether it stays on this machine."""

from __future__ import annotations

import ipaddress

from robots.backend import BackendError


def parse_address(address: str) -> tuple[str, int]:
    """Splits "127.0.0.1:9870" into host and port.

    Args:
        address: An IPv4 address, or "localhost", and a port.

    Returns:
        Host and port.

    Raises:
        BackendError: Not of that form.
    """
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BackendError(f"address {address!r}; expected HOST:PORT such as 127.0.0.1:9870")
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def is_loopback(host: str) -> bool:
    """Whether an address stays on this machine; a name that is no address counts as going out."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
