"""Lets a UDP socket that somebody else opened hear some addresses only: a packet of any other dies in the kernel.

Cyclone DDS binds its sockets to every address of the machine, whatever interface and peers its configuration names, and
believes whoever speaks the protocol. So the wall is put in front of it: a classic BPF program on each of its sockets,
which needs no privilege, and which the kernel runs before the packet is queued.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Container, Sequence

from robots.backend import BackendError

_ATTACH_FILTER, _LOCK_FILTER = 26, 44  # SO_* of Linux that Python's socket module does not name
_SOURCE_ADDRESS = -0x100000 + 12  # SKF_NET_OFF + offset of the source in an IPv4 header
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS; BPF_JMP | BPF_JEQ | BPF_K; BPF_RET | BPF_K
_WHOLE, _NOTHING = 0x40000, 0  # bytes of the packet that pass


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def hear_only(ports: Container[int], peers: Sequence[str]) -> int:
    """Closes this process's UDP sockets on some ports to all addresses but some, for good.

    Args:
        ports: Local ports of the sockets that are meant.
        peers: IPv4 addresses, at most 250.

    Returns:
        How many sockets were closed off.

    Raises:
        BackendError: The system has no such filter, or none of the sockets was found: then nothing may start.
    """
    if sys.platform != "linux":
        raise BackendError(f"only Linux can keep strangers from the robot's sockets, not {sys.platform}")
    text = _program(peers)
    code = ctypes.create_string_buffer(text, len(text))
    program = _Program(len(code.raw) // 8, ctypes.addressof(code))
    closed = 0
    try:
        for sock in _sockets(ports):
            with sock:
                sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, bytes(program))
                sock.setsockopt(socket.SOL_SOCKET, _LOCK_FILTER, 1)
                closed += 1
    except OSError as error:
        raise BackendError(f"cannot keep strangers from the robot's sockets: {error}") from error
    if not closed:
        raise BackendError("cannot find the robot's sockets to keep strangers from them")
    return closed


def _program(peers: Sequence[str]) -> bytes:
    """The filter: load the source address, pass if it is one of the peers."""
    code = [struct.pack("=HBBi", _LOAD, 0, 0, _SOURCE_ADDRESS)]
    for i, peer in enumerate(peers):
        # A hit jumps over the remaining comparisons and the refusal.
        code.append(struct.pack("=HBBI", _IF_EQUAL, len(peers) - i, 0, int(ipaddress.IPv4Address(peer))))
    code += [struct.pack("=HBBI", _RETURN, 0, 0, _NOTHING), struct.pack("=HBBI", _RETURN, 0, 0, _WHOLE)]
    return b"".join(code)


def _sockets(ports: Container[int]) -> list[socket.socket]:
    """Second handles on this process's UDP sockets that are bound to one of the ports; the caller closes them."""
    found: dict[str, socket.socket] = {}  # by inode: a handle made here may get a number that is listed too
    for name in os.listdir("/proc/self/fd"):
        try:
            inode = os.readlink(f"/proc/self/fd/{name}")
            if not inode.startswith("socket:") or inode in found:
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # gone since it was listed, such as the listing's own
        if sock.family == socket.AF_INET and sock.type == socket.SOCK_DGRAM and sock.getsockname()[1] in ports:
            found[inode] = sock
        else:
            sock.close()
    return list(found.values())
