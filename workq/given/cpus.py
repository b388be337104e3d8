"""usable_cpus: how many CPUs this process may use, by its affinity and by the quotas of its cgroups."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

QUOTA_S = 1.0  # how long a quota is taken to hold: to look for it takes a millisecond, and each worker that starts asks
_ESCAPE = re.compile(r"\\([0-7]{3})")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and the quota of its cgroup and of every group above it.

    A quota of a part of a CPU counts as a whole one. Containers and batch systems set either; ``os.cpu_count()`` knows neither.

    >>> import workq
    >>> workq.usable_cpus() >= 1
    True
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_of_late()
    return max(1, affinity if quota is None else min(affinity, quota))


_looked: tuple[float, int | None] = (float("-inf"), None)  # when, and what was found


def _quota_of_late() -> int | None:
    """Return the quota as it was a second ago at most."""
    global _looked
    now = time.monotonic()
    when, quota = _looked
    if now - when > QUOTA_S:
        quota = cgroup_quota()
        _looked = now, quota
    return quota


def cgroup_quota(root: str = "") -> int | None:
    """Return the CPUs that the cgroups of this process allow, rounded up, or None where none sets a bound.

    Args:
        root: Stands before every path that is looked at: a folder with a copy of what the kernel shows.
    """
    shares = [share for folder in _folders(root) for share in (_share_v2(folder), _share_v1(folder)) if share is not None]
    return min((max(1, -(-micros // period)) for micros, period in shares), default=None)


def _folders(root: str) -> Iterator[str]:
    """Yield the folder of each cgroup that may bound our CPU time: our own first, then those above it, up to where it is mounted."""
    groups = dict(_groups(root))
    for kind, mounted_from, mount_point in _mounts(root):
        group = groups.get(kind)
        if group is None:
            continue
        inside = _inside(group, mounted_from)
        while inside:
            yield f"{root}{mount_point}{inside}"
            inside = inside.rpartition("/")[0]
        yield f"{root}{mount_point}"


def _inside(group: str, mounted_from: str) -> str:
    """Return where a group lies below what is mounted: ``""`` or ``"/a/b"``.

    Seen from a container a group's path may be the host's, and what is mounted is the group itself.
    """
    above = mounted_from.rstrip("/")
    return group[len(above) :].rstrip("/") if f"{group}/".startswith(f"{above}/") else ""


def _groups(root: str) -> Iterator[tuple[str, str]]:
    """Yield ``("v2", path)`` and ``("v1", path)``, where this process is in such a group."""
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "v2", path
        elif "cpu" in controllers.split(","):
            yield "v1", path


def _mounts(root: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, the group that is mounted, and where, for each mount of the cgroup file system that can tell of CPU time."""
    for line in _read(f"{root}/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, types = before.split(), after.split()
        if len(fields) < 5 or len(types) < 3:
            continue
        if types[0] == "cgroup2":
            yield "v2", _plain(fields[3]), _plain(fields[4])
        elif types[0] == "cgroup" and "cpu" in types[2].split(","):
            yield "v1", _plain(fields[3]), _plain(fields[4])


def _plain(path: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), path)


def _share_v2(folder: str) -> tuple[int, int] | None:
    return _share(_read(f"{folder}/cpu.max").split())


def _share_v1(folder: str) -> tuple[int, int] | None:
    return _share([_read(f"{folder}/cpu.cfs_quota_us"), _read(f"{folder}/cpu.cfs_period_us")])


def _share(words: list[str]) -> tuple[int, int] | None:
    """Return quota and period, microseconds; None where there is no quota (``max``, -1, or no such file)."""
    try:
        micros, period = map(int, words)
    except ValueError:
        return None
    return (micros, period) if micros > 0 and period > 0 else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
