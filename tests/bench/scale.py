"""How large a measurement is, and how its figures are drawn from many times."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from tests.bench.calls import processor, spin
from tests.bench.rows import ONE_CORE_SHARE

T = TypeVar("T")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """What a measurement is told. ``folder`` is its own and is removed afterwards."""

    quick: bool
    loops_per_ms: int
    folder: Path

    def pick(self, full: T, quick: T) -> T:
        """Return the size that this run uses."""
        return quick if self.quick else full


def calibrate() -> int:
    """Return how many loops of `spin` take a millisecond on an undisturbed core. Taken once for a run: all get the same work."""
    loops = 20_000
    best_s = min(_time_of(loops) for _ in range(50))
    return max(1, int(loops / best_s / 1000))


def _time_of(loops: int) -> float:
    began = perf_counter()
    spin(loops)
    return perf_counter() - began


def trips_of(trip: Callable[[], object], there: Callable[[], int], scale: Scale) -> Figures:
    """Return the times of many trips, in ten runs with a pause between them: after a pause the kernel may place the processes anew.

    On which cores two processes are placed makes one trip several times as dear as another, and stays so while they keep at it. So it is
    told as well: ``there`` returns the processor of the other side.
    """
    times, on_one_core = [], 0
    for _ in range(10):
        select.select([], [], [], 0.02)
        for _ in range(scale.pick(200, 30)):
            began = perf_counter()
            trip()
            times.append(perf_counter() - began)
        on_one_core += there() == processor()
    return {**_spread_of(times), ONE_CORE_SHARE: on_one_core / 10}


def _spread_of(times_s: Sequence[float]) -> Figures:
    """Return the middle and the slow end of many times, and how far apart they are."""
    ordered = sorted(times_s)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return {"p50_us": p50 * 1e6, "p99_us": p99 * 1e6, "tail": p99 / p50}


def use_one_core() -> None:
    """Have this process and all that it starts share one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
