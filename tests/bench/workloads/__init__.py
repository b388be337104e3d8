"""What is measured. Each workload is a function of a library and a scale that returns named figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.bench.adapters import LIBRARIES, OURS, Library
from tests.bench.limits import beside_computing, memory_copy, plain_processes, raw_trip
from tests.bench.scale import Figures, Scale
from tests.bench.workloads import company, endings, loop, resting, start, throughput, trips

ALL = tuple(LIBRARIES)
WITHOUT_JOBLIB = tuple(name for name in ALL if name != "joblib")  # it has no handles
# mpire binds a call to a worker when it is queued, and may give both blockers to the same one.
# deadpool's submit blocks at a backlog of 1,000.
BEHIND_BLOCKERS = tuple(name for name in WITHOUT_JOBLIB if name not in ("mpire", "deadpool"))
FUTURES = tuple(name for name in WITHOUT_JOBLIB if name not in ("pool", "mpire"))


@dataclass(frozen=True, slots=True)
class Workload:
    """A measurement, who takes part in it, and what the machine allows.

    Attributes:
        measure: What a library does.
        contenders: The libraries that offer it.
        limits: By name: the same without a library.
        timeout_s: A contender that needs more than this for one measurement is shown as hung.
    """

    measure: Callable[[Library, Scale], Figures]
    contenders: tuple[str, ...] = ALL
    limits: Mapping[str, Callable[[Scale], Figures]] = field(default_factory=dict)
    timeout_s: float = 60.0

    def names(self) -> tuple[str, ...]:
        """Return all who take part."""
        return (*self.contenders, *self.limits)


def _raw(cores: int) -> Callable[[Scale], Figures]:
    return lambda scale: raw_trip(scale, cores=cores)


def _busy(milliseconds: int) -> Workload:
    return Workload(
        lambda library, scale: throughput.busy(library, scale, milliseconds),
        limits={"plain": lambda scale: plain_processes(throughput.units_of(milliseconds, scale), milliseconds * scale.loops_per_ms)},
    )


def _arrays(megabytes: int) -> Workload:
    return Workload(
        lambda library, scale: trips.arrays(library, scale, megabytes),
        limits={"copy": lambda scale: memory_copy(scale, megabytes)},
    )


WORKLOADS: dict[str, Workload] = {
    "queue": Workload(throughput.queue, WITHOUT_JOBLIB),
    "map": Workload(throughput.map_trivial),
    "trip": Workload(trips.trip, limits={"raw": raw_trip, "raw-two-cores": _raw(2), "raw-one-core": _raw(1)}),
    "trip-one-core": Workload(trips.trip_on_one_core, limits={"raw": _raw(1)}),
    "array-1mb": _arrays(1),
    "array-100mb": _arrays(100),
    "shared": Workload(trips.shared, WITHOUT_JOBLIB),
    "busy-1ms": _busy(1),
    "busy-10ms": _busy(10),
    "start": Workload(start.first_and_further, WITHOUT_JOBLIB),
    "start-4gb": Workload(start.beside_much_memory, (OURS, "ppe-fork", "ppe-forkserver", "pool", "loky"), timeout_s=120.0),
    "memory": Workload(resting.memory_of_queued_units, BEHIND_BLOCKERS),
    "million": Workload(throughput.million, (OURS,), timeout_s=240.0),
    "kill": Workload(endings.kill, (*BEHIND_BLOCKERS, "deadpool"), timeout_s=30.0),
    "cancel": Workload(endings.cancel, (OURS, "pebble", "deadpool"), timeout_s=30.0),
    "beside": Workload(company.beside_a_long_unit, WITHOUT_JOBLIB),
    "idle": Workload(resting.idle, WITHOUT_JOBLIB),
    "fair": Workload(company.fair, (OURS,)),
    "threads": Workload(company.threads, WITHOUT_JOBLIB, timeout_s=20.0),  # some hang, and need not hang for long
    "computing": Workload(company.computing_main_thread, WITHOUT_JOBLIB, limits={"plain": beside_computing}),
    "asyncio": Workload(loop.awaited, FUTURES),
}
