"""Units that coroutines await."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter

from tests.bench.adapters import Library
from tests.bench.calls import noop
from tests.bench.scale import Figures, Scale

SLICE = 100


def awaited(library: Library, scale: Scale) -> Figures:
    """What awaited units cost, in multiples of the same units collected by `result`; and for how long the loop was not served.

    The coroutine queues in slices and gives way between them, as a program has to that wants its loop served.
    """
    library.start_warm(2, scale.loops_per_ms)
    count = scale.pick(10_000, 1000)
    plain_s, awaited_s = [], []
    for _ in range(3):
        began = perf_counter()
        library.gather(count, noop)
        plain_s.append(perf_counter() - began)
        began = perf_counter()
        asyncio.run(_await_units(library, count))
        awaited_s.append(perf_counter() - began)
    gc.collect()  # else the interpreter's own look at all that the program holds may fall into it: some milliseconds, whoever made them
    return {"price": sorted(awaited_s)[1] / sorted(plain_s)[1], "longest_gap_ms": asyncio.run(_longest_gap_s(library, count)) * 1000}


async def _await_units(library: Library, count: int) -> None:
    handles = []
    for begin in range(0, count, SLICE):
        handles += [library.submit(noop) for _ in range(min(SLICE, count - begin))]
        await asyncio.sleep(0)
    for handle in handles:
        await library.awaitable(handle)


async def _longest_gap_s(library: Library, count: int) -> float:
    """Return the longest time between two turns of a coroutine that does nothing but give way, while units are awaited."""
    work = asyncio.ensure_future(_await_units(library, count))
    longest_s = 0.0
    last = perf_counter()
    while not work.done():
        await asyncio.sleep(0)
        turn = perf_counter()
        longest_s = max(longest_s, turn - last)
        last = turn
    await work
    return longest_s
