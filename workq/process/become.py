"""What a process does between its fork from the launcher and its life as a worker.

The order matters. Descriptors 1 and 2 come first of all, so that whatever goes wrong later is seen; then whatever makes it die
with the launcher and the application; then its descriptors. See the docstring of each step.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import fcntl
import gc
import os
import select
import sys

from workq.process.ending import MARK
from workq.process.title import show_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
HIGHEST_DESCRIPTOR = 1024  # select() knows no higher ones
RESERVED_DESCRIPTORS = 16  # at the top, for ours

LAUNCHER_IS_GONE = 71  # exit codes that nobody is left to see
NOBODY_HOLDS_US = 72


class Ends:
    """The descriptors of a new worker, as they come with its START message, in this order."""

    _fields = ("socket", "board", "output", "error", "output_reader", "error_reader")

    def __init__(self, socket: int, board: int, output: int, error: int, output_reader: int, error_reader: int) -> None:
        self.socket = socket
        self.board = board
        self.output = output
        self.error = error
        self.output_reader = output_reader
        self.error_reader = error_reader


def become_worker(
    name: str,
    ends: Ends,
    config: dict[str, Any],
    launcher_pid: int,
    prctl: Callable[..., int] | None,
    entry_point: Callable[..., Any],
) -> NoReturn:
    """Turn this process, a fork of the launcher, into a worker, run it, and exit."""
    code = 1
    try:
        os.dup2(ends.output, 1)
        os.dup2(ends.error, 2)
        os.setsid()
        name_process(name)
        show_title(f"{name} of {config['application_pid']}")
        die_with_launcher(launcher_pid, prctl)
        own = [ends.socket, ends.board, ends.output_reader, ends.error_reader, *config["bells"]]
        lives = [watch_life(config["life_fd"]), watch_life(config["launcher_life_fd"])]
        numbers = keep_only(own, [life for life in lives if life >= 0])
        restore_signals()
        os.environ[MARK] = name
        gc.enable()
        code = entry_point(*numbers) or 0
    except SystemExit as request:
        code = exit_code_of(request)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        finish_multiprocessing()
        flush_streams()
        os._exit(code)


def name_process(name: str) -> None:
    """Show this name in ps and top; at most 15 characters."""
    try:
        comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)  # `open()` would be the dearest step of all
        try:
            os.write(comm, name.encode())
        finally:
            os.close(comm)
    except OSError:
        pass  # no /proc: a name is a convenience


def die_with_launcher(launcher_pid: int, prctl: Callable[..., int] | None) -> None:
    """Have the kernel kill us when the launcher dies, even if it died before we could ask."""
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher_pid:
        os._exit(LAUNCHER_IS_GONE)


def watch_life(life_fd: int) -> int:
    """Have the kernel kill our whole group when the last writer of a life pipe is gone; return a descriptor to keep, or -1.

    There are two such pipes, one held by the application, one by the launcher. This needs no thread and no interpreter lock, and
    reaches what we start, which a death signal does not: the kernel closes the descriptors of a dying process before it sends the
    death signals that its children have asked for. The pipe is opened anew because the owner, who gets the signal, belongs to
    the open file and not to the descriptor.
    """
    if not hasattr(fcntl, "F_SETSIG"):
        return -1
    try:
        life = os.open(f"/proc/self/fd/{life_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    waiting = select.poll()
    waiting.register(life, select.POLLIN)
    if waiting.poll(0):  # it ended before we were set up
        os._exit(NOBODY_HOLDS_US)
    return life


def keep_only(own: list[int], lives: list[int]) -> list[int]:
    """Move our descriptors to high numbers, close all others but 0, 1 and 2, and return the new numbers.

    High, because a unit that closes or reuses low descriptors must not hit them; closed, because each worker's death has to be
    seen by whoever waits for the end of one of its pipes, whatever other workers live.
    """
    limit = os.sysconf("SC_OPEN_MAX")  # soft, less than 0 for none; `resource` would be looked at after each unit (processwide.py)
    if limit < 0 or limit > HIGHEST_DESCRIPTOR:
        limit = HIGHEST_DESCRIPTOR
    numbers = [move_up(number, max(3, limit - RESERVED_DESCRIPTORS)) for number in own]
    lives = [move_up(life, max(3, limit - RESERVED_DESCRIPTORS)) for life in lives]
    close_others({0, 1, 2, *lives, *numbers})
    return numbers


def close_others(kept: set[int]) -> None:
    """Close every descriptor but these."""
    lowest = 0
    for number in sorted(kept):
        if lowest < number:  # an empty range would be taken for "all" by some versions
            os.closerange(lowest, number)
        lowest = max(lowest, number + 1)
    os.closerange(lowest, max(lowest, highest_descriptor()) + 1)  # never empty


def highest_descriptor() -> int:
    """Return the highest number of an open descriptor, or of a possible one where that cannot be seen."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return max(map(int, os.listdir(folder)))
        except (OSError, ValueError):
            continue
    return os.sysconf("SC_OPEN_MAX")


def move_up(descriptor: int, lowest: int) -> int:
    """Return a copy of the descriptor at this number or above, or itself where there is no room."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:
        return descriptor


def restore_signals() -> None:
    """Have signals as in any fresh interpreter, and let through what came meanwhile."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def exit_code_of(request: SystemExit) -> int:
    """Return what the interpreter would exit with, and print what it would print."""
    if request.code is None or isinstance(request.code, int):
        return int(request.code or 0) & 0xFF
    sys.stderr.write(f"{request.code}\n")
    return 1


def finish_multiprocessing() -> None:
    """Send what units have put into queues of multiprocessing: its threads do that, and they end with us."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        try:
            util._run_finalizers()  # of this process; those of one that it was forked from are left alone
        except BaseException:
            sys.excepthook(*sys.exc_info())


def flush_streams() -> None:
    """Write out what is still in Python's buffers, as far as possible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # it may be None, closed, or anything that a unit has put there
            pass
