"""The Python stacks of this process, for the parent that asks for them; see ``workq.process.stack``.

A question is a byte in a pipe that the watch thread polls: it writes the stacks with the interpreter's lock in hand, so the main thread
is not interrupted, and what it waits for in C goes on. Where C code keeps that lock the parent sends a signal, and faulthandler writes in
the handler itself. Both write to a memfd that the parent reads by way of /proc.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import os

from workq.transport.board import ASK_SHIFT, STACK_ASK, STACK_FD, STACK_MEMORY, STACK_SIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

HIGH = 200  # the least number of our descriptors, out of the way of units that close all that they know
_fd = -1
_ask_fd = -1  # of both ends, so that it never says that the other one is gone
_identities: dict[int, tuple[int, int]] = {}  # which files the two lead to: a unit may close them, and open others there


def offer(words: memoryview) -> None:
    """Be ready to be asked. Without a memfd, or without a descriptor for it, nobody can ask."""
    global _fd, _ask_fd
    try:
        import fcntl

        low = os.memfd_create(STACK_MEMORY, os.MFD_CLOEXEC)
        _fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH)
        os.close(low)
        fcntl.fcntl(_fd, fcntl.F_SETFL, os.O_APPEND)
        _identities[_fd] = _identity(_fd)
        _ask_fd = _make_pipe()
        _identities[_ask_fd] = _identity(_ask_fd)
    except (AttributeError, OSError):
        if _fd < 0:
            return
    offer_again()
    if _ask_fd >= 0:
        words[STACK_ASK] = _identities[_ask_fd][1] << ASK_SHIFT | _ask_fd
    words[STACK_FD] = _fd


def _make_pipe() -> int:
    import fcntl

    ends = os.pipe2(os.O_CLOEXEC)
    try:
        both = os.open(f"/proc/self/fd/{ends[0]}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return fcntl.fcntl(both, fcntl.F_DUPFD_CLOEXEC, HIGH)
        finally:
            os.close(both)
    finally:
        for end in ends:
            os.close(end)


def offer_again() -> None:
    """Take the signal, or take it back from a unit that has changed its handler."""
    import faulthandler

    if _fd >= 0:
        faulthandler.unregister(STACK_SIGNAL)  # else it believes that the signal is its own still
        signal.signal(STACK_SIGNAL, signal.SIG_IGN)  # what it chains to; only where it chains does it leave errno as it was
        faulthandler.register(STACK_SIGNAL, file=_as_file(_fd), all_threads=True, chain=True)


def questions() -> int:
    """Return the descriptor at which questions come; -1: none do."""
    return _ask_fd


def answer() -> bool:
    """Answer, if whoever has asked has not lost patience: then the signal has answered. In the watch thread.

    Returns:
        False where the descriptors are ours no more: a unit has closed them, and nobody can ask here again.
    """
    global _ask_fd
    try:
        if any(_identity(fd) != known for fd, known in _identities.items()):
            raise OSError
        os.read(_ask_fd, 64)
        if os.fstat(_fd).st_size == 0:
            import faulthandler

            faulthandler.dump_traceback(_as_file(_fd), all_threads=True)
    except (BlockingIOError, RuntimeError):  # the question was taken back; or faulthandler cannot
        pass
    except OSError:
        _ask_fd = -1
        return False
    return True


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _as_file(fd: int) -> TextIO:
    return fd  # type: ignore[return-value]  # faulthandler takes numbers too
