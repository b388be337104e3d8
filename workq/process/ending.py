"""Ending processes for good: a worker, its group, and what left the group.

Used on both sides. In the launcher it is cheap to import; psutil comes only where there is no /proc.

Whose child is an orphan? Three marks survive that a process loses its parent: its session, which ``setsid`` changes; the
environment variable ``MARK``, which lives through fork and exec; and the process name, which is the worker's own until an exec.
A process with none of them is left alone until everything ends: it may be the daemon of a worker that still lives.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import os

MARK = "WORKQ_WORKER"
NAME_PREFIX = "worker_"
PIDFD_SIGNAL_PROCESS_GROUP = 4  # Linux 6.9; Python has no name for it


def kill_group(pid: int, pidfd: int = -1) -> None:
    """SIGKILL a worker and its process group; no error if they are gone.

    The leader comes first and by itself: between its fork and its ``setsid`` it is not yet in a group of its own.
    With a pidfd and a recent kernel no number is used at all. Else the group's number is: the kernel gives it to nobody else while
    the group has a member or the leader is a zombie, and once both are gone the caller has been told so.
    """
    if pidfd >= 0:
        _kill_by_pidfd(pidfd, 0)
        if _kill_by_pidfd(pidfd, PIDFD_SIGNAL_PROCESS_GROUP):
            return
    else:
        kill_process(pid)
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def kill_process(pid: int) -> None:
    """SIGKILL one process; no error if it is gone or not ours."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def _kill_by_pidfd(pidfd: int, flags: int) -> bool:
    """Return False where the kernel does not know the flag."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, flags)
    except (ProcessLookupError, PermissionError):
        return True
    except OSError:
        return False
    return True


def kill_tree(pid: int, pidfd: int = -1) -> None:
    """SIGKILL a worker, its group, and those of its descendants that have left the group."""
    escaped = [one for one in descendants(pid) if _group_of(one) != pid]
    kill_group(pid, pidfd)
    for one in escaped:
        kill_process(one)


def sweep(names: set[str]) -> None:
    """SIGKILL whatever on this machine bears the mark of one of these workers, all of which must be dead."""
    for pid in _all_processes():
        if owner_of(pid) in names:
            kill_process(pid)


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return [] if os.path.exists("/proc/self") else _children_by_psutil(pid)
    found: list[int] = []
    for thread in threads:
        found += map(int, read_small_file(f"/proc/{pid}/task/{thread}/children").split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the children of a process and theirs, as far as they are not orphans."""
    found = children(pid)
    for one in found:  # the list grows while it is walked
        found += children(one)
    return found


def owner_of(pid: int) -> str:
    """Return the name of the worker that this process descends from, or something else if that cannot be seen.

    The name of the process comes first: what was forked but not executed still shows the environment of the launcher,
    which in a launcher that a unit started bears the mark of another worker.
    """
    name = read_small_file(f"/proc/{pid}/comm").decode(errors="replace").strip()
    if name.startswith(NAME_PREFIX):
        return name
    mark = MARK.encode() + b"="
    for variable in read_small_file(f"/proc/{pid}/environ").split(b"\0"):
        if variable.startswith(mark):
            return variable[len(mark) :].decode(errors="replace")
    return ""


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _all_processes() -> list[int]:
    try:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and int(entry) != os.getpid()]
    except OSError:
        return []


def read_small_file(path: str) -> bytes:
    """Return a small file of /proc, or nothing if its process is gone. ``open()`` would cost twice as much."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = b""
        while more := os.read(descriptor, 1 << 16):
            data += more
        return data
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _children_by_psutil(pid: int) -> list[int]:
    from workq.process import probe

    return probe.children(pid)
