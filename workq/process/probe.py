"""What can be seen of a process from outside. The one file that imports psutil, on first use: it costs 27 ms.

For judging whether a worker is blocked, /proc where there is one: psutil knows no main thread, only the whole process, with ticks of
10 ms, and takes ten times as long. For memory and CPU time, and where /proc is not, psutil.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from workq.process import ending

if TYPE_CHECKING:
    import psutil

STAT_STATE = 0  # fields of /proc/PID/stat behind the name, which may contain anything
STAT_CPU = slice(11, 15)  # utime, stime, and those of children that were waited for
NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CPUCLOCK_SCHED = 2  # the kernel's number of another process's CPU clock: ~pid << 3 | this
CGROUP_FOLDER = "/sys/fs/cgroup"


class Usage(NamedTuple):
    """What a process uses now: resident memory, and CPU time since its start (user and system)."""

    rss_bytes: int
    cpu_s: float


class Reading(NamedTuple):
    """One look at a process: its main thread's state (the kernel's letter) and CPU time, and the CPU time of it and all below."""

    state: str
    run_ns: int
    tree_ticks: int


class Seen(NamedTuple):
    """One process of this machine, as it shows itself.

    Attributes:
        title: Its command line; of a process of ours the title that it has given itself.
        state: The kernel's word: ``running``, ``sleeping``, ``stopped``, ``zombie``, …
        created_at: When it began, ``time.time()`` seconds.
    """

    pid: int
    name: str
    title: str
    user: str
    state: str
    cpu_s: float
    rss_bytes: int
    created_at: float


def processes() -> Iterator[Seen]:
    """Yield the processes of this machine that we may see.

    Example:
        >>> import os
        >>> [seen.pid for seen in processes() if seen.pid == os.getpid()] == [os.getpid()]
        True
    """
    import psutil

    for process in psutil.process_iter():
        try:
            with process.oneshot():
                times = process.cpu_times()
                title = " ".join(part.strip() for part in process.cmdline()).strip()
                usage = process.memory_info().rss
                yield Seen(
                    process.pid,
                    process.name(),
                    title,
                    _user_of(process),
                    str(process.status()),
                    times.user + times.system,
                    usage,
                    process.create_time(),
                )
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue


def _user_of(process: psutil.Process) -> str:
    try:
        return str(process.username())
    except KeyError:  # a number without a name
        return str(process.uids().real)


def usage(pid: int) -> Usage | None:
    """Return what a process uses, or None if it is gone.

    Example:
        >>> import os
        >>> usage(os.getpid()).rss_bytes > 1_000_000
        True
    """
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(process.memory_info().rss, times.user + times.system)
    except psutil.Error:
        return None


def children(pid: int) -> list[int]:
    """Return the children of a process, as psutil sees them (for systems without /proc)."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


class ProcProbe:
    """Looks at one process by /proc. Keeps two descriptors, which makes a look eight times as cheap; close it."""

    def __init__(self, pid: int) -> None:
        """Raises OSError if there is no such process, or no /proc."""
        self.pid = pid
        self._stat = os.open(f"/proc/{pid}/task/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._schedstat = os.open(f"/proc/{pid}/task/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._schedstat = -1  # a kernel without CONFIG_SCHED_INFO: ticks of 10 ms must do

    def read(self) -> Reading | None:
        """Look once; None if the process is gone."""
        try:
            fields = fields_of_stat(os.pread(self._stat, 4096, 0))
            if self._schedstat >= 0:
                run_ns = int(os.pread(self._schedstat, 4096, 0).split()[0])
            else:
                run_ns = sum(map(int, fields[11:13])) * NS_PER_TICK
        except (OSError, IndexError):
            return None
        return Reading(fields[STAT_STATE].decode(), run_ns, tree_ticks(self.pid))

    def close(self) -> None:
        """Close the descriptors. Safe to call twice."""
        for descriptor in (self._stat, self._schedstat):
            if descriptor >= 0:
                os.close(descriptor)
        self._stat = self._schedstat = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PsutilProbe:
    """Looks at one process by psutil: the whole process stands for its main thread."""

    def __init__(self, pid: int) -> None:
        """Raises OSError if there is no such process."""
        import psutil

        self.pid = pid
        self._errors = psutil.Error
        try:
            self._process = psutil.Process(pid)
        except psutil.Error:
            raise ProcessLookupError(f"no process {pid}") from None

    def read(self) -> Reading | None:
        """Look once; None if the process is gone."""
        try:
            with self._process.oneshot():
                state = LETTERS.get(self._process.status(), "?")
                spent_ns = cpu_ns(self._process)
            below = self._process.children(recursive=True)
        except self._errors:
            return None
        return Reading(state, spent_ns, (spent_ns + sum(map(self._cpu_ns_or_0, below))) // NS_PER_TICK)

    def _cpu_ns_or_0(self, process: psutil.Process) -> int:
        try:
            return cpu_ns(process)
        except self._errors:
            return 0

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


LETTERS = {"running": "R", "sleeping": "S", "disk-sleep": "D", "stopped": "T", "tracing-stop": "t", "zombie": "Z", "dead": "X", "idle": "I"}

Probe = ProcProbe | PsutilProbe


def open_probe(pid: int) -> Probe:
    """Return what can look at this process again and again. Raises OSError if there is no such process."""
    return ProcProbe(pid) if os.path.exists(f"/proc/{pid}/stat") else PsutilProbe(pid)


def cpu_ns(process: psutil.Process) -> int:
    """Return the CPU time of a process and of those of its children that it waited for, nanoseconds."""
    times = process.cpu_times()
    return int(1e9 * (times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)))


def tree_ticks(pid: int) -> int:
    """Return the CPU ticks of a process and of all below it. Those of a dead child count on, in the parent that waited for it."""
    return sum(ticks_of(one) for one in (pid, *ending.descendants(pid)))


def ticks_of(pid: int) -> int:
    """Return the CPU ticks of one process and of the children that it waited for; 0 if it is gone."""
    try:
        return sum(map(int, fields_of_stat(ending.read_small_file(f"/proc/{pid}/stat"))[STAT_CPU]))
    except IndexError:
        return 0


def rss_bytes(pid: int) -> int:
    """Return the resident memory of one process; 0 if it is gone."""
    try:
        return int(ending.read_small_file(f"/proc/{pid}/statm").split()[1]) * PAGE_BYTES
    except IndexError:
        seen = None if os.path.exists("/proc/self") else usage(pid)
        return seen.rss_bytes if seen is not None else 0


def tree_rss_bytes(pid: int) -> int:
    """Return the resident memory of a process and of all below it. What they share counts for each.

    Example:
        >>> import os
        >>> tree_rss_bytes(os.getpid()) > 1_000_000
        True
    """
    return sum(rss_bytes(one) for one in (pid, *ending.descendants(pid)))


def tree_cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, all its threads, and all below it, nanoseconds; 0 if it is gone.

    Its own is exact, that of other processes counted in ticks of 10 ms. That of dead children counts on, in who waited for them.

    Example:
        >>> import os
        >>> tree_cpu_ns(os.getpid()) > 1_000_000
        True
    """
    try:
        own_ns = time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED)
        waited_for = sum(map(int, fields_of_stat(ending.read_small_file(f"/proc/{pid}/stat"))[13:15]))
    except (OSError, IndexError):
        seen = usage(pid)
        return int(seen.cpu_s * 1e9) if seen is not None else 0
    return own_ns + (waited_for + sum(map(ticks_of, ending.descendants(pid)))) * NS_PER_TICK


def fields_of_stat(stat: bytes) -> list[bytes]:
    """Return the fields of /proc/PID/stat that follow the name; the name may hold spaces and brackets."""
    return stat[stat.rindex(b")") + 2 :].split() if b")" in stat else []


# ---------------------------------------------------------------- out of memory


def oom_kills(pid: int) -> int | None:
    """Return how many processes of this one's memory cgroup the kernel has killed for memory, or None where it does not say.

    A process that has ended has no cgroup any more: then ours is asked, which is the same unless somebody moved the worker.
    Without a counter for cgroups it is the machine's. Compare two calls: where the number grew, a SIGKILL was probably that.
    """
    groups = ending.read_small_file(f"/proc/{pid}/cgroup") or ending.read_small_file("/proc/self/cgroup")
    return first_value([*counters_of(groups, CGROUP_FOLDER), ("/proc/vmstat", b"oom_kill")])


def first_value(counters: list[tuple[str, bytes]]) -> int | None:
    """Return the value of the first of these counters that can be read."""
    for path, key in counters:
        value = value_of(ending.read_small_file(path), key)
        if value is not None:
            return value
    return None


def counters_of(groups: bytes, folder: str) -> list[tuple[str, bytes]]:
    """Return the files that may hold the counter of these cgroups (a page of /proc/PID/cgroup), and its name in them."""
    found = []
    for line in groups.decode(errors="replace").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            found.append((f"{folder}{path}/memory.events", b"oom_kill"))
        elif "memory" in controllers.split(","):
            found.append((f"{folder}/memory{path}/memory.oom_control", b"oom_kill"))
    return found


def value_of(text: bytes, key: bytes) -> int | None:
    """Return the number behind a key in a file of lines like ``key 12``."""
    for line in text.splitlines():
        name, _, value = line.partition(b" ")
        if name == key:
            return int(value)
    return None
