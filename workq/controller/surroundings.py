"""What a new worker is told of its surroundings: its rank, its environment, its folder, its CPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from workq.core.ranks import lowest_free
from workq.core.threads import count_threads
from workq.given.cpus import usable_cpus
from workq.given.surroundings import DEVICES, MARK

if TYPE_CHECKING:
    from workq.category import Category
    from workq.controller.loop import Loop

LEADING_VARIABLE = "OMP_NUM_THREADS"  # the libraries of the others follow it where theirs is not set
THREAD_VARIABLES = (LEADING_VARIABLE, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment() -> dict[bytes, bytes]:
    """Return a copy of this process's environment: of the dictionary itself, in one step, as another thread may change it."""
    data = getattr(os.environ, "_data", None)
    return data.copy() if isinstance(data, dict) else dict(os.environb)


def free_rank(loop: Loop, category: str) -> int:
    """Return the lowest rank that no living worker of a category has."""
    return lowest_free({worker.rank for worker in loop.by_number.values() if worker.category == category})


def of_worker(loop: Loop, category: Category, rank: int) -> dict[str, Any]:
    """Return what the worker of this rank has to set up before anything else."""
    sets = cast("tuple[tuple[int, ...], ...]", category.affinity or ((),))  # as `checked_affinity` has left it
    cpus = sets[rank % len(sets)]
    return {
        "rank": rank,
        "env": variables(loop, category, rank, len(cpus)),
        "cwd": category.cwd or "",
        "cpus": cpus,
    }


def variables(loop: Loop, category: Category, rank: int, own_cpus: int) -> dict[str, str | None]:
    """Return the variables to set, or to unset (None): later ones go before earlier ones."""
    now = environment()
    changed = changes(loop.environment, now)
    threads = thread_variables(loop, category, now, own_cpus)
    devices = {DEVICES: str(category.devices[rank % len(category.devices)])} if category.devices else {}
    return {**changed, **threads, **devices, **category.env}


def changes(before: dict[bytes, bytes], now: dict[bytes, bytes]) -> dict[str, str | None]:
    """Return what the application has changed of its environment since its launcher, whose environment workers have, was started."""
    if before == now:
        return {}
    decode = os.fsdecode
    changed: dict[str, str | None] = {decode(name): decode(value) for name, value in now.items() if before.get(name) != value}
    changed.update((decode(name), None) for name in before.keys() - now.keys())
    changed.pop(MARK, None)
    return changed


def thread_variables(loop: Loop, category: Category, now: dict[bytes, bytes], own_cpus: int) -> dict[str, str | None]:
    """Return how many threads the numeric libraries of one worker may start: its share of the CPUs. What the user has set stays."""
    given = {name for name in THREAD_VARIABLES if name.encode() in now or name in category.env}
    if LEADING_VARIABLE in given:
        return {}
    queues = [queue.max_workers for queue in loop.controller.every_queue() if queue.category == category.name and not queue.closed]
    number = own_cpus or count_threads(usable_cpus(), sum(queues), category.max_active_workers)
    return {name: str(number) for name in THREAD_VARIABLES if name not in given}
