"""Category: a named pool's limits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workq import environment
from workq.errors import ArgumentError, CategoryError
from workq.surroundings import checked_affinity, checked_cwd, checked_devices, checked_env

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and the quota of its cgroup.

    >>> usable_cpus() >= 1
    True
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, quota))


def _cgroup_quota() -> int | None:
    """Return the CPUs that the cgroup allows, rounded up, or None where it sets no bound."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        quota, period = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    try:
        micros, each = int(quota), int(period)
    except ValueError:
        return None
    return -(-micros // each) if micros > 0 and each > 0 else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


@dataclass(frozen=True)
class Category:
    """A named pool of worker processes with its own limits. Workers of one category never serve another.

    Args:
        name: Letters, digits, ``-``, ``_``, ``.``; at most 64; case-sensitive.
        default_workers: For a queue that names no number. Default: the usable CPUs (affinity and cgroup quota).
        max_workers: The most that one queue may ask for; more is clamped to it. Default: twice the usable CPUs.
        max_active_workers: The most that may be active at once; blocked ones do not count. Default: twice the usable CPUs.
        max_total_workers: The only hard limit on processes. Default: None, no limit.
        always_queue: Where all workers are busy a new queue waits its turn, instead of having the one worker that is held ready.
        preload: Names of modules that each worker imports when it starts.
        initializer: A function that each worker calls when it starts, and its arguments. A worker in which it raises cannot start.
        env: Environment variables of each worker, names to str, or to None: unset. They are there before ``preload``.
        cwd: The working directory of each worker. Default: that of the application when the worker starts.
        devices: GPUs, by number or name: each worker is given one as its ``CUDA_VISIBLE_DEVICES``, by rank, counted round.
        affinity: The CPUs on which each worker runs: a sequence of sets of CPU numbers, dealt out by rank, counted round; ``"spread"``:
            one usable CPU each. Default: None, as the application.

    Where the environment variable ``WORKQ_MAX_WORKERS`` holds a number, that stands for the first three defaults.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument.

    >>> Category("reports", default_workers=2, max_workers=4).max_workers
    4
    """

    name: str
    default_workers: int = field(default_factory=lambda: environment.max_workers() or usable_cpus(), kw_only=True)
    max_workers: int = field(default_factory=lambda: environment.max_workers() or 2 * usable_cpus(), kw_only=True)
    max_active_workers: int = field(default_factory=lambda: environment.max_workers() or 2 * usable_cpus(), kw_only=True)
    max_total_workers: int | None = field(default=None, kw_only=True)
    always_queue: bool = field(default=False, kw_only=True)
    preload: Sequence[str] = field(default=(), kw_only=True)
    initializer: Callable[..., Any] | None = field(default=None, kw_only=True)
    initializer_args: tuple[Any, ...] = field(default=(), kw_only=True)
    env: Mapping[str, str | None] = field(default_factory=dict, kw_only=True, hash=False)
    cwd: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    devices: Sequence[int | str] | None = field(default=None, kw_only=True)
    affinity: str | Sequence[int | Iterable[int]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise ArgumentError(f"name must be 1 to 64 letters, digits, '-', '_' or '.', not {self.name!r}")
        for argument in ("default_workers", "max_workers", "max_active_workers", "max_total_workers"):
            value = getattr(self, argument)
            if value is None and argument == "max_total_workers":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{argument} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.always_queue, bool):
            raise ArgumentError(f"always_queue must be True or False, not {self.always_queue!r}")
        if not isinstance(self.initializer_args, tuple):
            raise ArgumentError(f"initializer_args must be a tuple, not {self.initializer_args!r}")
        if (
            isinstance(self.preload, str)
            or not isinstance(self.preload, Sequence)
            or not all(isinstance(module, str) for module in self.preload)
        ):
            raise ArgumentError(f"preload must be a sequence of module names, not {self.preload!r}")
        if self.initializer is not None and not callable(self.initializer):
            raise ArgumentError(f"initializer must be a function or None, not {self.initializer!r}")
        normal = {
            "env": checked_env(self.env, self.devices),
            "cwd": checked_cwd(self.cwd),
            "devices": checked_devices(self.devices),
            "affinity": checked_affinity(self.affinity),
        }
        for argument, value in normal.items():
            object.__setattr__(self, argument, value)


def standard_categories() -> dict[str, Category]:
    """Return the three that always exist."""
    return {"Default": Category("Default"), "SQL": Category("SQL"), "Utility": Category("Utility", always_queue=True)}


STANDARD = ("Default", "SQL", "Utility")


def unknown_category(name: object, known: Sequence[str]) -> CategoryError:
    """Return the error for a name that no category has; it names those that exist."""
    return CategoryError(f"there is no category {name!r}; there are {', '.join(sorted(known))}")
