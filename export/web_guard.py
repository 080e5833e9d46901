"""Who may look at the page and press its buttons: addresses, names, origins and the token that only the page knows.

A browser sends requests for whatever page is open in it. So a page of somebody else must neither press a button (it
lacks the token, and its origin is another) nor read ours by a name that it had pointed here (the name is none of ours).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from robots.spec import ToolkitError


class WebError(ToolkitError):
    """A page that cannot be served as asked."""


def parse_listen(text: str, allow_remote: bool) -> tuple[str, int]:
    """Where to listen.

    Args:
        text: "8080", "127.0.0.1:8080", "[::1]:8080"; port 0 takes a free one.
        allow_remote: Whether the address may be reached from other machines.

    Returns:
        Address and port.

    Raises:
        WebError: Malformed, or reachable from elsewhere without `allow_remote`.
    """
    host, colon, port = text.rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host.removeprefix("[").removesuffix("]"), host)
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdecimal() else -1
        if not 0 <= number < 65536 or (colon and not text.rpartition(":")[0]):
            raise ValueError("a port is a number below 65536")
    except ValueError as error:
        raise WebError(f"--web {text!r}: {error}; legal is PORT or ADDRESS:PORT, such as 127.0.0.1:8080") from error
    if not (allow_remote or address.is_loopback):
        raise WebError(
            f"--web {text}: reachable from other machines, and the page is not encrypted; an ssh tunnel to 127.0.0.1 "
            "is the safe way, --allow-remote the other"
        )
    return str(address), number


class WebGuard:
    """Decides about requests by their headers."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Draws the token.

        Args:
            names: Further names browsers know this machine by.
        """
        self.token = secrets.token_urlsafe(32)
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own}.local", *(name.lower().rstrip(".") for name in names)}

    def host_fault(self, host: str | None) -> str | None:
        """What is wrong with a Host header; an address is always right, for no one can point an address elsewhere.

        Args:
            host: The header.

        Returns:
            One line, or None.
        """
        name = _hostname(host or "")
        if name is None:
            return "the request has no usable Host header"
        try:
            ipaddress.ip_address(name)
            return None
        except ValueError:
            known = name in self._names or name.endswith(".localhost")
            return None if known else f"this machine is not known as {name!r}; --name {name} makes it so"

    def post_fault(self, host: str | None, origin: str | None, token: str | None) -> str | None:
        """What is wrong with a press of a button.

        Args:
            host: The Host header.
            origin: The Origin header; a program other than a browser sends none.
            token: The X-Gcl-Token header.

        Returns:
            One line, or None.
        """
        if origin is not None:
            parts = _split(origin)
            if parts is None or parts.scheme not in ("http", "https") or parts.netloc.lower() != (host or "").lower():
                return "the request comes from another page than this machine's"
        if token is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return "the request lacks this page's token: load the page anew"
        return None


def _hostname(host: str) -> str | None:
    parts = _split(f"//{host}")
    if parts is None or parts.netloc != host or "@" in host:
        return None
    return parts.hostname


def _split(url: str):  # noqa: ANN202
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname  # both raise only when they are asked for
        return parts
    except ValueError:
        return None
