"""The Python stacks of this process, written when the parent sends a signal, also while C code keeps the interpreter's lock.

faulthandler writes them in the signal handler itself, to a memfd that the parent reads by way of /proc; see ``workq.process.stack``.
"""

from __future__ import annotations

import os

from workq.transport.board import STACK_FD, STACK_MEMORY, STACK_SIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

HIGH = 200  # the least number of our descriptor, out of the way of units that close all that they know
_fd = -1


def offer(words: memoryview) -> None:
    """Be ready to be asked. Without a memfd, or without a descriptor for it, nobody can ask."""
    global _fd
    try:
        import fcntl

        low = os.memfd_create(STACK_MEMORY, os.MFD_CLOEXEC)
        _fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH)
        os.close(low)
        fcntl.fcntl(_fd, fcntl.F_SETFL, os.O_APPEND)
    except (AttributeError, OSError):
        return
    offer_again()
    words[STACK_FD] = _fd


def offer_again() -> None:
    """Take the signal, or take it back from a unit that has changed its handler."""
    import faulthandler
    import signal

    if _fd >= 0:
        faulthandler.unregister(STACK_SIGNAL)  # else it believes that the signal is its own still
        signal.signal(STACK_SIGNAL, signal.SIG_IGN)  # what it chains to; only where it chains does it leave errno as it was
        faulthandler.register(STACK_SIGNAL, file=_as_file(_fd), all_threads=True, chain=True)


def _as_file(fd: int) -> TextIO:
    return fd  # type: ignore[return-value]  # faulthandler takes numbers too
