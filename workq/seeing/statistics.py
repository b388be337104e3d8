"""Immutable snapshots with a readable repr: what people look at in the REPL and in a notebook, and programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, overload

from workq.core.times import cumulative, quantile_s
from workq.given.arguments import check_seconds, check_share
from workq.process.stack import NOWHERE, Desk, stack_of
from workq.seeing.tables import described, html_table, rate, seconds, share, size, table

FIRST_BUCKET, LAST_BUCKET, BUCKET_STEP = 10, 40, 2  # that `Histogram.buckets` tells of: 1 us, 4 us, … 18 min
NOTHING: Mapping[str, Any] = MappingProxyType({})


def _plain(value: Any) -> Any:
    """Return a field of a snapshot as plain data."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.as_dict() if hasattr(value, "as_dict") else value


def _fields_of(snapshot: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(snapshot, each.name)) for each in fields(snapshot) if not each.name.startswith("_")}


@dataclass(frozen=True, slots=True, repr=False)
class Histogram:
    """How long things took: how many, their sum, and how they are spread.

    Number and sum are exact. A quantile is off by 40 % at most, as times are counted in powers of two; units that take less than a few
    milliseconds are counted as the mean of the batch that they travelled in.

    Attributes:
        count: How many there were.
        total_s: All of them together, seconds.
    """

    count: int
    total_s: float
    _buckets: tuple[int, ...] = ()

    @property
    def mean_s(self) -> float | None:
        """Their mean, seconds; None where there are none."""
        return self.total_s / self.count if self.count else None

    def quantile_s(self, share: float) -> float | None:
        """Return the time, seconds, that this share of them did not exceed; None where there are none.

        Args:
            share: From 0 to 1, as 0.99.

        Raises:
            ArgumentError: It is no such number.

        >>> Histogram(0, 0.0).quantile_s(0.99) is None
        True
        """
        check_share("share", share)
        return quantile_s(self._buckets, share)

    def buckets(self) -> list[tuple[float, int]]:
        """Return upper bounds, seconds, each with how many took no longer: 1 us, 4 us, 16 us, … 18 minutes."""
        return list(cumulative(self._buckets, FIRST_BUCKET, LAST_BUCKET, BUCKET_STEP))

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        found = {f"p{percent}_s": self.quantile_s(percent / 100) for percent in (50, 90, 99)}
        return {"count": self.count, "total_s": self.total_s, "mean_s": self.mean_s, **found}

    def __repr__(self) -> str:
        if not self.count:
            return "none"
        return f"{seconds(self.mean_s)} (99 %: {seconds(self.quantile_s(0.99))})"


NO_TIMES = Histogram(0, 0.0)


@dataclass(frozen=True, slots=True, repr=False)
class QueueStatistics:
    """The counters of one queue at one moment. Counters never fall; times are seconds.

    Attributes:
        name: The queue's name.
        category: Its category's.
        max_workers: The most workers that serve it at once.
        workers: How many are attached to it now.
        active_workers: How many of them run a unit and are not blocked.
        blocked_workers: How many of them are in a unit that waits for something.
        judged_workers: How many of those were judged by what they do; the others have said it.
        queued: Units that have not begun.
        running: Units that run.
        done, failed, cancelled, timed_out, lost: Units that have ended so.
        peak_depth: The most units that ever waited at once.
        uncollected: Ended units that ``sync()``, ``wait_one()`` or ``as_completed()`` have not handed out.
        units_per_second: Units that ended after they had run, in each of the last seconds (up to eight), on average.
        wait_time: How long units waited before they began.
        run_time: How long they ran.
        busy_s: How long workers were in units of it, all together.
        busy: The share of the time of ``max_workers`` workers since its first unit that they were in units of it; None before that.
        bytes_to_workers: Arguments and functions.
        bytes_from_workers: Results and exceptions.
        leaked_locks: Which units have ended, or died, and still held a ``workq.Lock``; the last hundred of the controller's.
    """

    name: str
    category: str
    max_workers: int
    workers: int
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    timed_out: int
    lost: int
    peak_depth: int
    uncollected: int
    active_workers: int = 0
    blocked_workers: int = 0
    units_per_second: float = 0.0
    wait_time: Histogram = NO_TIMES
    run_time: Histogram = NO_TIMES
    busy_s: float = 0.0
    busy: float | None = None
    bytes_to_workers: int = 0
    bytes_from_workers: int = 0
    leaked_locks: tuple[str, ...] = ()
    judged_workers: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        return _fields_of(self)

    def _title(self) -> str:
        workers = f"{self.workers} of {self.max_workers} worker{'s' * (self.max_workers != 1)}"
        return f"queue {self.name} ({self.category}): {workers}, {rate(self.units_per_second)} units/s, busy {share(self.busy)}"

    def _cells(self) -> tuple[list[str], list[str]]:
        names = ["queued", "running", "done", "failed", "cancelled", "timed_out", "lost", "peak_depth", "uncollected"]
        cells = [str(getattr(self, name)) for name in names]
        head = [*(name.replace("_", " ") for name in names), "wait time", "run time"]
        return head, [*cells, seconds(self.wait_time.mean_s), seconds(self.run_time.mean_s)]

    def __repr__(self) -> str:
        head, cells = self._cells()
        return f"{self._title()}\n{table([head], [cells])}"

    def _repr_html_(self) -> str:
        head, cells = self._cells()
        return html_table(self._title(), [head], [cells])


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process at one moment.

    Attributes:
        pid: Its process number.
        name: ``worker_`` and the first 8 digits of ``process_info_id``; ``ps`` and ``top`` show it.
        process_info_id: A uuid4, new at each start.
        state: One of the states of ``docs/states.md``, as text.
        category: The category that it serves.
        queue: The queue that it is attached to, or None.
        unit: The label of the unit that it runs, or None.
        since_s: Seconds in this state.
        units_done: How many units it has ended.
        rss_bytes: Resident memory, bytes, or None where it cannot be read.
        cpu_s: CPU time, seconds, or None.
        blocked: How it is known that it is blocked (``"declared"``, ``"judged"``), or None.
        waits_for: The lock and who holds it, or the event, that its unit waits for; or None.
        slow: Whether its unit runs far beyond the usual time of its function, see ``Settings.slow_factor``.
        stalled_s: For how long it has had no heartbeat, seconds, where that is longer than ``Settings.stalled_after_s``: it is stopped, or
            C code of its unit keeps the interpreter's lock. Else None.
        progress: What its unit says with ``workq.progress``: how far it is, from 0 to 1 or None, and at what; or None.
    """

    pid: int
    name: str
    process_info_id: str
    state: str
    category: str
    queue: str | None
    unit: str | None
    since_s: float
    units_done: int
    rss_bytes: int | None
    cpu_s: float | None
    blocked: str | None = None
    waits_for: str | None = None
    progress: tuple[float | None, str] | None = None
    slow: bool = False
    stalled_s: float | None = None
    _desk: Desk = NOWHERE

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        return _fields_of(self)

    def stack(self, timeout: float = 1.0) -> str:
        """Return the Python stacks of its threads as they are now, most recent call first; also where it is stuck, in C code for example.

        Args:
            timeout: Seconds to wait for its answer at most. Without one it says why, and what the kernel knows.
        """
        check_seconds("timeout", timeout)
        return stack_of(self.pid, self._desk, timeout)

    def cells(self) -> list[str]:
        """Return it as a row of the table."""
        return [
            str(self.pid),
            self.name,
            self.state,
            self.queue or "-",
            (self.unit or "-") + (f" ({described(*self.progress)})" if self.progress is not None else ""),
            ", ".join([seconds(self.since_s), *self._remarks()]),
            str(self.units_done),
            "-" if self.rss_bytes is None else f"{self.rss_bytes / 2**20:.0f} MiB",
            seconds(self.cpu_s),
        ]

    def _remarks(self) -> list[str]:
        """Return what is unusual about its time."""
        stalled = [] if self.stalled_s is None else [f"stalled for {seconds(self.stalled_s)}"]
        return ["slow", *stalled] if self.slow else stalled


class WorkerTable(Sequence[WorkerRow]):
    """Rows of workers; prints as a table."""

    HEAD = ("pid", "name", "state", "queue", "unit", "since", "units", "memory", "cpu")

    def __init__(self, rows: Sequence[WorkerRow]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> WorkerRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WorkerRow]: ...
    def __getitem__(self, index: int | slice) -> WorkerRow | Sequence[WorkerRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain dicts."""
        return [row.as_dict() for row in self._rows]

    def __repr__(self) -> str:
        return table(*self._cells()) if self._rows else "no workers"

    def _repr_html_(self) -> str:
        return html_table("", *self._cells()) if self._rows else "no workers"

    def _cells(self) -> tuple[list[list[str]], list[list[str]]]:
        """Return head and rows; what is waited for has a column where any unit waits for a lock or an event."""
        cells = [row.cells() for row in self._rows]
        if not any(row.waits_for for row in self._rows):
            return [[*self.HEAD]], cells
        return [[*self.HEAD, "waits for"]], [[*line, row.waits_for or "-"] for line, row in zip(cells, self._rows, strict=True)]


@dataclass(frozen=True, slots=True, repr=False)
class Metrics:
    """The counters of all categories, or of one, at one moment. Counters never fall, also not when queues are deleted.

    Attributes:
        category: The category's name; None for all together.
        active_workers: Workers that run a unit and are not blocked.
        waiting_workers: Workers that have nothing to do.
        blocked_workers: Workers in a unit that waits for a lock, an event, or other units.
        retired_workers: Workers that are parked, and activated again at once.
        starting_workers, stopping_workers: Workers that come, and that go.
        peak_active_workers: The most that were ever active at once; of all categories: the highest of theirs.
        units_queued: Units that have not begun.
        units_running: Units that run.
        units_done, units_failed, units_cancelled, units_timed_out, units_lost: Units that have ended so.
        peak_depth: The most units that ever waited in one queue.
        units_per_second: Units that ended after they had run, in each of the last seconds (up to eight), on average.
        wait_time: How long units waited before they began.
        run_time: How long they ran.
        workers_started: Worker processes that were started.
        workers_retired: How often one was retired.
        workers_interrupted: How often a unit was interrupted.
        workers_killed: Workers that workq has killed.
        workers_halted: Workers that ended by themselves.
        workers_recycled: Workers that were replaced as planned, for their age, their units or their memory.
        inactive_queues: Queues that were deleted as nobody could use them any more: detached and not attached in time, or lost.
        worker_halts: Of those that halted, how many for which reason: the signal's name, ``"exit code 3"``, ``"out of memory"``.
        bytes_to_workers: Arguments and functions.
        bytes_from_workers: Results and exceptions.
        worker_s: How long workers were there, all together, seconds.
        busy_s: How long they were in units.
        busy: The share of ``worker_s`` that they were in units; None where there were no workers.
        controller_s: How long the controller has worked, seconds.
        collecting_s: How long it took to collect this.
        categories: The same for each category, by name. Empty in that of a category.
    """

    category: str | None = None
    active_workers: int = 0
    waiting_workers: int = 0
    blocked_workers: int = 0
    retired_workers: int = 0
    starting_workers: int = 0
    stopping_workers: int = 0
    peak_active_workers: int = 0
    units_queued: int = 0
    units_running: int = 0
    units_done: int = 0
    units_failed: int = 0
    units_cancelled: int = 0
    units_timed_out: int = 0
    units_lost: int = 0
    peak_depth: int = 0
    units_per_second: float = 0.0
    wait_time: Histogram = NO_TIMES
    run_time: Histogram = NO_TIMES
    workers_started: int = 0
    workers_retired: int = 0
    workers_interrupted: int = 0
    workers_killed: int = 0
    workers_halted: int = 0
    workers_recycled: int = 0
    inactive_queues: int = 0
    worker_halts: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    bytes_to_workers: int = 0
    bytes_from_workers: int = 0
    worker_s: float = 0.0
    busy_s: float = 0.0
    busy: float | None = None
    controller_s: float = 0.0
    collecting_s: float = 0.0
    categories: Mapping[str, Metrics] = field(default_factory=lambda: NOTHING)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict, categories included."""
        return _fields_of(self)

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Return a column for all, and one for each category in which anything has happened."""
        busy = [each for each in self.categories.values() if each.workers_started or each.units_queued or each.units_cancelled]
        columns = [self, *(busy if len(busy) > 1 else ())]
        names = [each.name for each in fields(self) if each.name not in ("category", "categories")]
        rows = [[name, *(_cell(name, getattr(column, name)) for column in columns)] for name in names]
        return ["", *(column.category or "all" for column in columns)], rows

    def __repr__(self) -> str:
        head, rows = self._rows()
        return table([head] if len(head) > 2 else [], rows)

    def _repr_html_(self) -> str:
        head, rows = self._rows()
        return html_table("", [head], rows)


def _cell(name: str, value: Any) -> str:
    """Return a figure of the metrics as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{number} {reason}" for reason, number in value.items()) or "-"
    if isinstance(value, Histogram):
        return repr(value) if value.count else "-"
    if name == "busy":
        return share(value)
    if name.startswith("bytes"):
        return size(value)
    if name.endswith("_s"):
        return seconds(value)
    return rate(value) if isinstance(value, float) else str(value)
