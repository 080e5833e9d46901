"""A socket that was closed to strangers hears its peers and nobody else, in the kernel."""

import socket
import sys

import pytest

from robots import BackendError
from robots.peer_filter import hear_only

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
SO_GET_FILTER = 26


def listening() -> tuple[socket.socket, int]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 0))
    sock.settimeout(5.0)
    return sock, sock.getsockname()[1]


def say(text: bytes, source: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.sendto(text, ("127.0.0.1", port))


@pytest.mark.parametrize("peers", [["127.0.0.2"], ["127.0.0.9", "127.0.0.2"], ["127.0.0.2", "127.0.0.9"]])
def test_only_peers_are_heard(peers: list[str]) -> None:
    """Of packets from four addresses of this machine, those of the peers arrive, wherever they stand in the list."""
    sock, port = listening()
    with sock:
        assert hear_only([port], peers) == 1
        for source in ("127.0.0.1", "127.0.0.9", "127.0.0.3", "127.0.0.2"):
            say(source.encode(), source, port)
        heard = [sock.recv(100).decode()]
        while heard[-1] != "127.0.0.2":
            heard.append(sock.recv(100).decode())
        assert heard == [peer for peer in ("127.0.0.9", "127.0.0.2") if peer in peers]


def test_no_peers_is_nobody() -> None:
    """With an empty list nothing arrives."""
    sock, port = listening()
    with sock:
        hear_only([port], [])
        say(b"x", "127.0.0.1", port)
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(100)


def test_other_sockets_stay_open() -> None:
    """A socket on another port is left as it is."""
    sock, port = listening()
    other, other_port = listening()
    with sock, other:
        hear_only([port], [])
        say(b"x", "127.0.0.1", other_port)
        assert other.recv(100) == b"x"


def test_for_good() -> None:
    """The filter cannot be taken off or exchanged again."""
    sock, port = listening()
    with sock:
        hear_only([port], ["127.0.0.1"])
        with pytest.raises(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
        with pytest.raises(BackendError, match="strangers"):
            hear_only([port], ["127.0.0.2"])


def test_no_socket_no_start() -> None:
    """Where the socket is not found, nothing is said to be safe."""
    sock, port = listening()
    sock.close()
    with pytest.raises(BackendError, match="cannot find"):
        hear_only([port], ["127.0.0.1"])
