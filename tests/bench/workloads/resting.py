"""What is paid while nothing happens: by units that wait, and by workers that idle."""

from __future__ import annotations

import os
import select
from time import monotonic, process_time

from tests.bench.adapters import Library
from tests.bench.calls import hold, mark, run_until_released, same
from tests.bench.scale import Figures, Scale
from tests.bench.waiting import wait_for_running


def memory_of_queued_units(library: Library, scale: Scale) -> Figures:
    """The growth of the parent's resident memory while units queue up behind two workers that are busy."""
    library.start_warm(2, scale.loops_per_ms)
    folder = str(scale.folder)
    blockers = [library.submit(run_until_released, folder) for _ in range(2)]
    wait_for_running(folder, 2)
    count = scale.pick(100_000, 10_000)
    handles: list[object] = [None] * count
    before = _resident_bytes()
    for number in range(count):
        handles[number] = library.submit(same, number)
    grown = _resident_bytes() - before
    mark(folder, "released")
    for handle in blockers:
        library.outcome(handle)
    return {"bytes": grown / count}


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def idle(library: Library, scale: Scale) -> Figures:
    """The parent's CPU time, in percent of one core, while eight workers have nothing to do."""
    library.prepare()
    library.start(8)
    for handle in [library.submit(hold, 0.2) for _ in range(8)]:
        library.outcome(handle)
    select.select([], [], [], scale.pick(1.0, 0.2))  # what follows the last unit is no idling yet
    began, cpu_before_s = monotonic(), process_time()
    select.select([], [], [], scale.pick(8.0, 1.0))
    return {"percent": (process_time() - cpu_before_s) / (monotonic() - began) * 100}
