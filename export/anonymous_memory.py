"""Memory that another process may map: a file that has a descriptor and no name, gone with the last who holds it."""

from __future__ import annotations

import fcntl
import os
import tempfile


def anonymous_memory(size: int) -> int:
    """Reserves memory behind a descriptor; nothing of it is left in the file system, however this process ends.

    Args:
        size: [bytes]

    Returns:
        The descriptor, not inherited unless it is handed on by `pass_fds`.

    Raises:
        OSError: The system would not give it.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        return fd
    fd = os.memfd_create("gcl", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # Nobody can cut it short under a reader, whom that would kill with SIGBUS
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
    except OSError:
        os.close(fd)
        raise
