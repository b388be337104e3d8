"""A descriptor to wait on that anybody may make readable: an eventfd, or a pipe where the system has none.

Both take the same eight bytes and give them back; a pipe that is full has been rung already.
"""

from __future__ import annotations

import os
import sys

ONE = (1).to_bytes(8, sys.byteorder)


def make(*, blocking: bool) -> tuple[int, int]:
    """Return the end to wait on, which blocks who reads it while it is silent or does not, and the end to ring: maybe the same."""
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0, os.EFD_CLOEXEC | (0 if blocking else os.EFD_NONBLOCK))
        return fd, fd
    reader, writer = os.pipe()
    os.set_blocking(reader, blocking)
    os.set_blocking(writer, False)
    return reader, writer


def ring(fd: int) -> None:
    """Make it readable."""
    try:
        os.write(fd, ONE)
    except BlockingIOError:
        pass


def silence(fd: int) -> None:
    """Make it unreadable again, whatever number of times it was rung. BlockingIOError where it was not, and does not block."""
    os.read(fd, 4096)
