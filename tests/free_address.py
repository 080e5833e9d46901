"""An address on this machine that nobody listens on."""

import socket


def free_address() -> str:
    """HOST:PORT for UDP; somebody else may take it before it is used, as a rule nobody does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"
