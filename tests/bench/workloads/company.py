"""Units, queues and threads beside each other: does one of them take from the others?"""

from __future__ import annotations

import threading
from time import monotonic, perf_counter

from tests.bench.adapters import Library
from tests.bench.calls import mark, noop, run_until_released, spin
from tests.bench.scale import Figures, Scale
from tests.bench.waiting import wait_for_running


def beside_a_long_unit(library: Library, scale: Scale) -> Figures:
    """A unit of 300 ms in the middle of 400 no-ops: when has the last no-op been collected?"""
    library.start_warm(2, scale.loops_per_ms)
    began = perf_counter()
    before = [library.submit(noop) for _ in range(200)]
    long = library.submit(spin, 300 * scale.loops_per_ms)
    after = [library.submit(noop) for _ in range(200)]
    for handle in before + after:
        library.outcome(handle)
    took = perf_counter() - began
    library.outcome(long)
    return {"last_ms": took * 1000}


def threads(library: Library, scale: Scale) -> Figures:
    """The total rate of eight threads that queue and collect no-ops, as a share of that of one thread."""
    library.start_warm(2, scale.loops_per_ms)
    count = scale.pick(16_000, 1600)
    alone_s, together_s = [], []
    for _ in range(3):
        alone_s.append(_time_of_threads(library, 1, count))
        together_s.append(_time_of_threads(library, 8, count // 8))
    return {"share": sorted(alone_s)[1] / sorted(together_s)[1]}


def _time_of_threads(library: Library, number: int, count: int) -> float:
    crowd = [threading.Thread(target=library.gather, args=(count, noop)) for _ in range(number)]
    began = perf_counter()
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return perf_counter() - began


def computing_main_thread(library: Library, scale: Scale) -> Figures:
    """The rate of units of 1 ms while the main thread computes, as a share of their rate while it waits.

    One worker: with it and the main thread both cores are busy, so that what is missing is what the main thread took.
    """
    library.start_warm(1, scale.loops_per_ms)
    count = scale.pick(1000, 100)
    quiet_s = _time_beside(library, count, scale.loops_per_ms, compute=False)
    disturbed_s = _time_beside(library, count, scale.loops_per_ms, compute=True)
    return {"share": quiet_s / disturbed_s}


def _time_beside(library: Library, count: int, loops: int, *, compute: bool) -> float:
    took: list[float] = []

    def queue_and_collect() -> None:
        began = perf_counter()
        library.gather(count, spin, loops)
        took.append(perf_counter() - began)

    thread = threading.Thread(target=queue_and_collect)
    thread.start()
    while compute and thread.is_alive():
        spin(1000)
    thread.join()
    return took[0]


def fair(library: Library, scale: Scale) -> Figures:
    """A thousand queues of 100 units share two workers: the last queue's finish, in multiples of the first one's. workq only."""
    from workq import Controller, WorkMgr
    from workq.category import Category

    Controller.default().add_category(
        Category("Fair", default_workers=2, max_workers=2, max_active_workers=2, max_total_workers=2, always_queue=True)
    )
    folder = str(scale.folder)
    with WorkMgr(2, category="Fair") as first:
        for _ in range(2):
            first.queue(run_until_released, folder)
        wait_for_running(folder, 2)
        queues = [WorkMgr(2, category="Fair") for _ in range(scale.pick(1000, 50))]
        units = [[queue.queue(noop) for _ in range(100)] for queue in queues]
        began = monotonic()
        mark(folder, "released")
        finishes = []
        for row in units:
            for unit in row:
                unit.result()
            finishes.append(max((unit.started_at or 0.0) + (unit.run_time_s or 0.0) for unit in row) - began)
        for queue in queues:
            queue.close()
    return {"spread": max(finishes) / min(finishes), "all_s": max(finishes)}
