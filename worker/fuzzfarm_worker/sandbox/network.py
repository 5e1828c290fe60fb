"""Leaving the network: a namespace in which there is nothing but a loopback."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""unshare(2)."""

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
"""netdevice(7)."""

IFREQ = struct.Struct("16sh22x")
"""The name of an interface and its flags, in the size of a `struct ifreq`."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def leave_network() -> None:
    """Move this process, which has one thread, to a network of its own with a loopback; it cannot come back.

    What it has open stays open. Needs CAP_SYS_ADMIN, or a kernel that gives everyone user namespaces.

    Raises:
        OSError: where the system does not allow it, or has no such thing.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has network namespaces")
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        _unshare_as_user()
    _bring_up_loopback()


def _unshare_as_user() -> None:
    """Do it in a user namespace, in which this process is allowed to; its user and group stay what they are.

    It may do as little outside as before (user_namespaces(7)). Other users and groups look like nobody to it.
    """
    user, group = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (
        ("setgroups", "deny"),  # or the kernel refuses the map of groups
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path("/proc/self", name).write_text(text)


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags) != 0:  # os.unshare is there since Python 3.12
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))
