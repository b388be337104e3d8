"""Many units: what one costs, and how much of the machine the units get."""

from __future__ import annotations

from time import perf_counter

from tests.bench.adapters import Library
from tests.bench.calls import noop, same, spin
from tests.bench.scale import Figures, Scale

# Without a chunk size these take 50 to 200 us for each item; they map a tenth of the items, and the figure is that of one item.
SLOW_MAPPERS = {"ExecutorFork", "ExecutorForkserver", "Loky", "Pebble", "Deadpool"}


def queue(library: Library, scale: Scale) -> Figures:
    """No-ops queued one by one, and all results collected."""
    library.start_warm(2, scale.loops_per_ms)
    return {"unit_us": _price_us(library, scale.pick(20_000, 1000))}


def map_trivial(library: Library, scale: Scale) -> Figures:
    """A map over whole numbers, with the library's defaults."""
    library.start_warm(2, scale.loops_per_ms)
    count = scale.pick(200_000, 20_000) // (10 if type(library).__name__ in SLOW_MAPPERS else 1)
    library.map(same, range(1000))
    items = range(count)
    began = perf_counter()
    results = library.map(same, items)
    took = perf_counter() - began
    assert len(results) == count
    assert results[-1] == count - 1
    return {"unit_us": took / count * 1e6}


def busy(library: Library, scale: Scale, milliseconds: int) -> Figures:
    """Units that keep a core busy for so long, two workers."""
    library.start_warm(2, scale.loops_per_ms)
    count = units_of(milliseconds, scale)
    began = perf_counter()
    library.gather(count, spin, milliseconds * scale.loops_per_ms)
    return {"unit_us": (perf_counter() - began) / count * 1e6}


def units_of(milliseconds: int, scale: Scale) -> int:
    """Return how many units make two seconds of work, one on each core."""
    return scale.pick(2000, 200) // milliseconds


def million(library: Library, scale: Scale) -> Figures:
    """The price of a unit among a million, and among ten thousand."""
    library.start_warm(2, scale.loops_per_ms)
    few, many = scale.pick(10_000, 1000), scale.pick(1_000_000, 30_000)
    prices = sorted(_price_us(library, few) for _ in range(9))
    price_of_many = sorted(_price_us(library, many) for _ in range(3))[1]
    return {"few_us": prices[4], "many_us": price_of_many, "growth": price_of_many / prices[4]}


def _price_us(library: Library, count: int) -> float:
    began = perf_counter()
    results = library.gather(count, noop)
    took = perf_counter() - began
    assert len(results) == count
    return took / count * 1e6
