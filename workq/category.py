"""Category: a named pool's limits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from workq.errors import ArgumentError, CategoryError
from workq.given import environment
from workq.given.arguments import check_amount, check_seconds, check_whole
from workq.given.cpus import usable_cpus
from workq.given.surroundings import checked_affinity, checked_cwd, checked_devices, checked_env

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def default_limit(times: int, cpus: int | None = None) -> int:
    """Return a limit that nobody has named: what ``WORKQ_MAX_WORKERS`` says, else so many times the usable CPUs."""
    return environment.max_workers() or times * (usable_cpus() if cpus is None else cpus)


@dataclass(frozen=True)
class Category:
    """A named pool of worker processes with its own limits. Workers of one category never serve another.

    It is immutable: ``workq.categories()`` makes, changes and deletes them.

    Args:
        name: Letters, digits, ``-``, ``_``, ``.``; at most 64; case-sensitive.
        default_workers: For a queue that names no number; as any number, it is clamped to ``max_workers``. Default: the usable CPUs
            (affinity and cgroup quota).
        max_workers: The most that one queue may ask for; more is clamped to it. Default: twice the usable CPUs.
        max_active_workers: The most that may be active at once; blocked ones do not count. One more is held ready, see ``always_queue``.
            Default: twice the usable CPUs.
        max_total_workers: The only hard limit on processes: where it leaves no worker for the units of a unit, the one that waits for
            them runs them itself. Default: None, no limit.
        always_queue: False: one worker more than ``max_active_workers`` is held ready, so that a new queue's first unit never waits for
            others to end. True: where all workers are busy a new queue waits its turn.
        preload: Names of modules that each worker imports when it starts.
        initializer: A function that each worker calls when it starts, and its arguments. A worker in which it raises cannot start.
        env: Environment variables of each worker, names to str, or to None: unset. They are there before ``preload``.
        cwd: The working directory of each worker. Default: that of the application when the worker starts.
        devices: GPUs, by number or name: each worker is given one as its ``CUDA_VISIBLE_DEVICES``, by rank, counted round.
        affinity: The CPUs on which each worker runs: a sequence of sets of CPU numbers, dealt out by rank, counted round; ``"spread"``:
            one usable CPU each. Default: None, as the application.

        max_units: A worker is replaced after so many units; for 10 or more, after up to a tenth fewer, so that not all go at once.
        max_age_s: A worker is replaced, between two units, when it is so old, seconds; up to a tenth earlier.
        max_memory_mb: A worker is replaced, between two units, when it and its child processes hold so much memory, MiB.

    Where the environment variable ``WORKQ_MAX_WORKERS`` holds a number, that stands for the first three defaults.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument.

    >>> Category("reports", default_workers=2, max_workers=4).max_workers
    4
    """

    name: str
    default_workers: int = field(default_factory=lambda: default_limit(1), kw_only=True)
    max_workers: int = field(default_factory=lambda: default_limit(2), kw_only=True)
    max_active_workers: int = field(default_factory=lambda: default_limit(2), kw_only=True)
    max_total_workers: int | None = field(default=None, kw_only=True)
    always_queue: bool = field(default=False, kw_only=True)
    preload: Sequence[str] = field(default=(), kw_only=True)
    initializer: Callable[..., Any] | None = field(default=None, kw_only=True)
    initializer_args: tuple[Any, ...] = field(default=(), kw_only=True)
    env: Mapping[str, str | None] = field(default_factory=dict, kw_only=True, hash=False)
    cwd: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    devices: Sequence[int | str] | None = field(default=None, kw_only=True)
    affinity: str | Sequence[int | Iterable[int]] | None = field(default=None, kw_only=True)
    max_units: int | None = field(default=None, kw_only=True)
    max_age_s: float | None = field(default=None, kw_only=True)
    max_memory_mb: float | None = field(default=None, kw_only=True)

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
        if self.max_units is not None:
            check_whole("max_units", self.max_units, least=1)
        if self.max_age_s is not None:
            check_seconds("max_age_s", self.max_age_s, above=True, none="for no limit")
        if self.max_memory_mb is not None:
            check_amount("max_memory_mb", self.max_memory_mb, "MiB", none="for no limit")
        normal = {
            "env": checked_env(self.env, self.devices),
            "cwd": checked_cwd(self.cwd),
            "devices": checked_devices(self.devices),
            "affinity": checked_affinity(self.affinity),
        }
        for argument, value in normal.items():
            object.__setattr__(self, argument, value)

    def clamp(self, wanted: int) -> int:
        """Return how many workers a queue gets that wants so many.

        >>> Category("reports", max_workers=4).clamp(99)
        4
        """
        return max(1, min(int(wanted), self.max_workers))

    def replace(self, **limits: Any) -> Category:
        """Return one that differs in these arguments.

        >>> Category("reports", max_workers=4).replace(max_workers=8).max_workers
        8

        Raises:
            ArgumentError: There is no such argument, or its value is not allowed; the message names it.
        """
        known = [field.name for field in fields(self)]
        for argument in limits:
            if argument not in known:
                raise ArgumentError(f"a category has no {argument!r}; it has {', '.join(known)}")
        return replace(self, **limits)


def packed(categories: Iterable[Category]) -> list[tuple[Any, ...]]:
    """Return the limits of categories as a worker is told of them, to be marshalled. What prepares workers stays with the parent."""
    return [
        (str.__str__(one.name), *map(int, (one.default_workers, one.max_workers, one.max_active_workers)), total_of(one), one.always_queue)
        for one in categories
    ]


def unpacked(rows: Iterable[tuple[Any, ...]]) -> dict[str, Category]:
    """Return the categories that `packed` has packed, by name."""
    names = ("default_workers", "max_workers", "max_active_workers", "max_total_workers", "always_queue")
    return {name: Category(name, **dict(zip(names, limits, strict=True))) for name, *limits in rows}


def total_of(category: Category) -> int | None:
    """Return ``max_total_workers`` as a plain number."""
    return None if category.max_total_workers is None else int(category.max_total_workers)


STANDARD = ("Default", "SQL", "Utility")


def standard_categories() -> dict[str, Category]:
    """Return the three that always exist."""
    cpus = usable_cpus()  # once, and not for each limit: it reads files
    once, twice = default_limit(1, cpus), default_limit(2, cpus)
    limits: dict[str, Any] = {"default_workers": once, "max_workers": twice, "max_active_workers": twice}
    return {name: Category(name, always_queue=name == "Utility", **limits) for name in STANDARD}


def unknown_category(name: object, known: Sequence[str], elsewhere: bool = False) -> CategoryError:
    """Return the error for a name that no category has; it names those that exist, and says so where another controller has it."""
    if isinstance(name, Category):
        return CategoryError(
            f"category must be a name, and not a Category: add {name.name!r} with workq.categories().create(...), or pass its name; "
            f"there are {', '.join(sorted(known))}"
        )
    hint = f"; another controller has {name!r}: queues of that one are made with controller=" if elsewhere else ""
    return CategoryError(f"there is no category {name!r}; there are {', '.join(sorted(known))}{hint}")
