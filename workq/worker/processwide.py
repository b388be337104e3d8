"""What one unit sets for the whole process, and the next one must not find: compared with how it was before the first unit, and put back.

The umask, soft resource limits, timers that send signals, the garbage collector, the recursion limit. ``sys.path`` is only told of, as
imports of later units may need what was added. One look costs 2 us.
"""

from __future__ import annotations

import gc
import os
import sys
from _signal import ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, getitimer, setitimer  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMITS = {  # as /proc names them
    "Max address space": "AS",
    "Max core file size": "CORE",
    "Max cpu time": "CPU",
    "Max data size": "DATA",
    "Max file size": "FSIZE",
    "Max open files": "NOFILE",
    "Max processes": "NPROC",
    "Max stack size": "STACK",
}
NAME_WIDTH = 26
TIMERS = {ITIMER_REAL: "SIGALRM", ITIMER_VIRTUAL: "SIGVTALRM", ITIMER_PROF: "SIGPROF"}


class ProcessWide:
    """The settings as they were. Owned by the worker's main thread."""

    def __init__(self) -> None:
        self._umask = os.umask(0o77)
        os.umask(self._umask)
        self._limits = soft_limits()
        self._timers = [which for which in TIMERS if not getitimer(which)[0]]  # one that runs now is an initializer's: a profiler's, say
        self._collector = gc.isenabled(), gc.get_threshold()
        self._recursion = sys.getrecursionlimit()
        self._path = list(sys.path)

    def mend(self) -> list[str]:
        """Put back what was changed, and return a sentence for each."""
        found: list[str] = []
        umask = os.umask(self._umask)  # puts it back, and says in the same call what it was
        if umask != self._umask:
            found.append(f"it changed the umask to {umask:#05o}; put back")
        if "resource" in sys.modules:  # else no Python code has changed any, and the look is spared
            found += self._limits_put_back()
        for which in self._timers:
            if getitimer(which)[0]:
                setitimer(which, 0)
                found.append(f"it left a timer running that sends {TIMERS[which]}; stopped")
        if (gc.isenabled(), gc.get_threshold()) != self._collector:
            found.append("it changed the garbage collector's settings; put back")
            (gc.enable if self._collector[0] else gc.disable)()
            gc.set_threshold(*self._collector[1])
        if sys.getrecursionlimit() != self._recursion:
            found.append(f"it changed the recursion limit to {sys.getrecursionlimit()}; put back")
            sys.setrecursionlimit(self._recursion)
        if sys.path != self._path:
            found.append(f"it changed sys.path (entries: {len(self._path)} before, {len(sys.path)} now); left as it is")
            self._path = list(sys.path)
        return found

    def _limits_put_back(self) -> list[str]:
        """Set the soft limits as they were; where a unit has lowered the hard one too, what it left is how they are from now on."""
        resource: Any = sys.modules["resource"]
        found = []
        for name, before in self._limits.items():
            number = getattr(resource, name)
            soft, hard = resource.getrlimit(number)
            if soft == before:
                continue
            try:
                resource.setrlimit(number, (before, hard))
                found.append(f"it changed the limit {name} to {soft}; put back")
            except (OSError, ValueError):
                found.append(f"it changed the limit {name} to {soft}, for good; left as it is")
                self._limits[name] = soft
        return found


def soft_limits() -> dict[str, int]:
    """Return the soft limits by name; nothing where /proc does not tell. The module `resource` would cost each start its import."""
    try:
        file = os.open("/proc/self/limits", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(file, 1 << 16).decode()
        finally:
            os.close(file)
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name = LIMITS.get(line[:NAME_WIDTH].strip())
        if name is not None:
            soft = line[NAME_WIDTH:].split()[0]
            found[f"RLIMIT_{name}"] = -1 if soft == "unlimited" else int(soft)
    return found
