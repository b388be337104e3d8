"""The table: each row is one figure of one workload, and what it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ONE_CORE_SHARE = "one_core_share"  # figure: the share of the runs that ended with caller and worker on the same core
ON_ONE_CORE, ON_TWO_CORES = "-one-core", "-two-cores"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure of workq should be: itself, or its ratio to that of another in the same round.

    Attributes:
        bound: The number that must not be missed.
        against: Whose figure it is compared with; None: the figure itself is meant.
        faster: The ratio is the other's figure by ours, and should be at least the bound. Else ours by the other's, at most the bound.
        least: For a figure by itself: it should be at least the bound, and not at most.
        placed: Where the processes lie decides, so the other is measured held to one core, and to two, and taken as ours was placed.
    """

    bound: float
    against: str | None = None
    faster: bool = False
    least: bool = False
    placed: bool = False

    def opponent(self, ours: Mapping[str, float]) -> str | None:
        """Return whom our figures of a round are compared with."""
        if self.against is None or not self.placed:
            return self.against
        return self.against + (ON_ONE_CORE if ours.get(ONE_CORE_SHARE, 0.0) > 0.5 else ON_TWO_CORES)

    def opponents(self) -> tuple[str, ...]:
        """Return all with whom it may be compared."""
        if self.against is None:
            return ()
        return (self.against + ON_ONE_CORE, self.against + ON_TWO_CORES) if self.placed else (self.against,)

    def value(self, ours: float, other: float | None) -> float | None:
        """Return what is compared with the bound; None where the other has no figure."""
        if self.against is None:
            return ours
        if other is None or (self.faster and ours == 0) or (not self.faster and other == 0):
            return None
        return other / ours if self.faster else ours / other

    def met(self, value: float) -> bool:
        """Tell whether it is good enough."""
        return value >= self.bound if self.faster or self.least else value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.faster or self.least else "<="
        if self.against is None:
            return f"{sign} {self.bound:g}"
        return f"{sign} {self.bound:g} x {self.against}" + ("'s rate" if self.faster else "") + (", placed alike" if self.placed else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: What ``--only`` takes.
        title: What is measured.
        workload: Where the figure comes from; rows of the same workload are measured together.
        figure: Which of its figures.
        unit: Of the figure.
        goal: What it should be; None: it is shown only.
    """

    name: str
    title: str
    workload: str
    figure: str
    unit: str
    goal: Goal | None

    @property
    def more_is_better(self) -> bool:
        """Tell how to find the best peer."""
        return self.goal is not None and self.goal.least


ROWS = (
    Row("queue", "20,000 no-ops, queued one by one and collected", "queue", "unit_us", "us", Goal(40, "ppe-fork", faster=True)),
    Row("map", "map of 200,000 trivial items, defaults", "map", "unit_us", "us", Goal(1.2, "pool", faster=True)),
    Row("trip", "lone round trip, p50", "trip", "p50_us", "us", Goal(1.5, "raw", placed=True)),
    Row("trip-tail", "its p99, in multiples of its p50", "trip", "tail", "x", Goal(5)),
    Row("trip-one-core", "lone round trip, all on one core, p50", "trip-one-core", "p50_us", "us", Goal(2, "raw")),
    Row("trip-one-core-tail", "its p99, in multiples of its p50", "trip-one-core", "tail", "x", Goal(5)),
    Row("array-1mb", "numpy array of 1 MB, there and back", "array-1mb", "ms", "ms", Goal(0.12, "ppe-fork")),
    Row("array-100mb", "numpy array of 100 MB, there and back", "array-100mb", "ms", "ms", Goal(0.25, "ppe-fork")),
    Row("shared", "the same array of 1 MB to 200 units", "shared", "unit_us", "us", None),
    Row("busy-1ms", "units of 1 ms on two workers", "busy-1ms", "unit_us", "us", Goal(0.95, "plain", faster=True)),
    Row("busy-10ms", "units of 10 ms on two workers", "busy-10ms", "unit_us", "us", Goal(0.99, "plain", faster=True)),
    Row("start", "start to first result", "start", "first_ms", "ms", Goal(0.4, "ppe-forkserver")),
    Row("worker", "each further worker", "start", "further_ms", "ms", Goal(2)),
    Row("start-4gb", "start to first result, 4 GB in the parent", "start-4gb", "first_ms", "ms", Goal(0.4, "ppe-forkserver")),
    Row("worker-4gb", "each further worker, 4 GB in the parent", "start-4gb", "further_ms", "ms", Goal(2)),
    Row("memory", "memory of a queued unit", "memory", "bytes", "B", Goal(300)),
    Row("million", "cost of a unit: of a million, by of ten thousand", "million", "growth", "x", Goal(1.2)),
    Row("kill", "worker killed: the next unit runs", "kill", "next_ms", "ms", Goal(15)),
    Row("kill-lost", "worker killed: lost of 20 queued units", "kill", "lost", "", Goal(0)),
    Row("interrupt", "unit interrupted: the worker's next unit runs", "cancel", "after_interrupt_ms", "ms", Goal(1)),
    Row("cancel", "running unit cancelled: the next unit runs", "cancel", "after_cancel_ms", "ms", None),
    Row("beside", "400 no-ops beside a unit of 300 ms: the last no-op", "beside", "last_ms", "ms", Goal(15)),
    Row("idle", "CPU of the parent while 8 workers idle", "idle", "percent", "%", Goal(0.1)),
    Row("fair", "1,000 queues of 100 units: last finish by first", "fair", "spread", "x", Goal(1.5)),
    Row("threads", "8 threads queue and wait: rate by that of one", "threads", "share", "x", Goal(0.7, least=True)),
    Row("computing", "main thread computes: rate of 1 ms units kept", "computing", "share", "x", Goal(0.9, least=True)),
    Row("asyncio", "10,000 awaited units: price by their plain one", "asyncio", "price", "x", Goal(2)),
    Row("asyncio-gap", "10,000 awaited units: the loop's longest gap", "asyncio", "longest_gap_ms", "ms", Goal(2)),
)


def opponents_of(workload: str) -> set[str]:
    """Return whom the goals of a workload's rows need."""
    return {name for row in ROWS if row.workload == workload and row.goal for name in row.goal.opponents()}
