"""What the tests of workers' surroundings, set-up, sessions, limits and replacement have workers do. Workers import this, not the tests."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

import workq

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def seen(*names: str) -> list[str | None]:
    """Return what variables say."""
    return [os.environ.get(name) for name in names]


def seen_when_imported() -> Any:
    """Return what the module `tests.system.crew_early` saw when it was imported."""
    from tests.system import crew_early

    return crew_early.SEEN


def see_in_initializer() -> None:
    """Keep what an initializer sees."""
    worker = workq.current_worker()
    assert worker is not None
    KEPT["rank"] = worker.rank
    KEPT["seen"] = (os.environ.get("CREW"), os.getcwd(), sorted(os.sched_getaffinity(0)))


KEPT: dict[str, Any] = {}


def kept(name: str) -> Any:
    """Return what is kept here."""
    return KEPT.get(name)


def rank() -> int:
    """Return this worker's rank."""
    worker = workq.current_worker()
    assert worker is not None
    return worker.rank


def rank_and_wait(fifo: str) -> tuple[int, int]:
    """Return rank and pid once somebody has opened the other end of a fifo and closed it."""
    with open(fifo, "rb") as waiting:
        waiting.read()
    return rank(), os.getpid()


def device_and_wait(fifo: str) -> tuple[int, str | None, str | None]:
    """Return rank and device, now and as it was when the preload was imported."""
    return rank_and_wait(fifo)[0], os.environ.get("CUDA_VISIBLE_DEVICES"), seen_when_imported()["CUDA_VISIBLE_DEVICES"]


def cpus() -> list[int]:
    """Return the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


def numbers() -> tuple[float, float]:
    """Return random numbers, Python's and numpy's."""
    import numpy as np

    return random.random(), float(np.random.random())


def hour() -> int:
    """Return the hour of the epoch in the local time zone."""
    return time.localtime(0).tm_hour


def loaded(name: str) -> bool:
    """Return whether a module is loaded."""
    return name in sys.modules
