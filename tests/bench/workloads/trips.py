"""One unit at a time: there and back."""

from __future__ import annotations

from time import perf_counter

from tests.bench.adapters import Library
from tests.bench.calls import length, noop, processor, same
from tests.bench.scale import Figures, Scale, trips_of, use_one_core


def trip(library: Library, scale: Scale) -> Figures:
    """A lone no-op, again and again; nothing else is queued."""
    library.start_warm(2, scale.loops_per_ms)
    return trips_of(lambda: library.call(noop), lambda: library.call(processor), scale)


def trip_on_one_core(library: Library, scale: Scale) -> Figures:
    """The same with all processes on one core, so that the kernel has no choice where to place them."""
    use_one_core()
    return trip(library, scale)


def arrays(library: Library, scale: Scale, megabytes: int) -> Figures:
    """A numpy array, there and back."""
    import numpy

    library.start_warm(2, scale.loops_per_ms)
    array = numpy.ones(megabytes << 17)
    times = []
    for _ in range(2 + scale.pick(max(3, 40 // megabytes), 3)):
        began = perf_counter()
        answer = library.call(same, array)
        times.append(perf_counter() - began)
        assert answer.shape == array.shape
        assert answer[-1] == 1.0
        del answer
    times = sorted(times[2:])  # both workers have imported numpy, and whatever is used again has been made
    return {"ms": times[len(times) // 2] * 1000}


def shared(library: Library, scale: Scale) -> Figures:
    """The same array of 1 MB to many units, by the library's best means for that; time for a unit."""
    import numpy

    library.start_warm(2, scale.loops_per_ms)
    array = numpy.ones(1 << 17)
    given = library.share(array)
    library.gather(20, length, given)  # both workers have imported numpy
    count = scale.pick(200, 20)
    began = perf_counter()
    lengths = library.gather(count, length, given)
    took = perf_counter() - began
    assert set(lengths) == {len(array)}
    return {"unit_us": took / count * 1e6}
