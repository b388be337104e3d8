"""From nothing to the first result, and to more workers."""

from __future__ import annotations

from time import monotonic

from tests.bench.adapters import Library
from tests.bench.calls import hold, noop
from tests.bench.scale import Figures, Scale

WORKERS = 8


def first_and_further(library: Library, scale: Scale) -> Figures:
    """The first result of a fresh program that has imported the library; then what each further worker takes.

    The latter in a second pool: eight units that keep their workers begin at once, as far as there are workers. The time from
    the first beginning to the last is that of seven workers.
    """
    library.prepare()
    began = monotonic()
    library.start(2)
    library.call(noop)
    first_s = monotonic() - began
    library.close()
    library.start(WORKERS)
    handles = [library.submit(hold, 0.5) for _ in range(WORKERS)]
    beginnings = sorted(library.outcome(handle) for handle in handles)
    return {"first_ms": first_s * 1000, "further_ms": (beginnings[-1] - beginnings[0]) / (WORKERS - 1) * 1000}


def beside_much_memory(library: Library, scale: Scale) -> Figures:
    """The same in a program that holds 4 GB."""
    wanted = scale.pick(4 << 30, 256 << 20)
    if wanted * 1.25 > _available_bytes():
        raise MemoryError(f"{wanted >> 20} MB are wanted; too little memory is free")
    ballast = b"\x01" * wanted
    figures = first_and_further(library, scale)
    assert len(ballast) == wanted
    return figures


def _available_bytes() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0
