"""Immutable snapshots with a readable repr: what people look at in the REPL, and programs read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, overload

from workq.core.states import WorkerState
from workq.process import probe

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.records import Queue, Worker


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The counters of one queue at one moment. Counters never fall; times are seconds."""

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
    uncollected: int  # ended units that sync(), wait_one() or as_completed() have not handed out

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        return asdict(self)

    def __repr__(self) -> str:
        names = [field.name for field in fields(self)]
        return table([names], [[str(getattr(self, name)) for name in names]])


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


class WorkerTable(Sequence[WorkerRow]):
    """Rows of workers; prints as a table."""

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
        return [asdict(row) for row in self._rows]

    def __repr__(self) -> str:
        head = ["pid", "name", "state", "queue", "unit", "since", "units", "memory", "cpu"]
        lines = [
            [
                str(row.pid),
                row.name,
                row.state,
                row.queue or "-",
                row.unit or "-",
                seconds(row.since_s),
                str(row.units_done),
                "-" if row.rss_bytes is None else f"{row.rss_bytes / 2**20:.0f} MiB",
                "-" if row.cpu_s is None else seconds(row.cpu_s),
            ]
            for row in self._rows
        ]
        return table([head], lines) if lines else "no workers"


@dataclass(frozen=True, slots=True)
class Metrics:
    """The counters of a controller at one moment. Counters never fall."""

    active_workers: int
    waiting_workers: int
    blocked_workers: int
    retired_workers: int
    units_queued: int
    units_done: int
    units_failed: int
    units_cancelled: int
    units_timed_out: int
    units_lost: int
    workers_started: int
    workers_interrupted: int
    workers_killed: int
    workers_halted: int
    collecting_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return the same as a plain dict."""
        return asdict(self)

    def __repr__(self) -> str:
        rows = [
            [field.name, f"{value:.6g}" if isinstance(value := getattr(self, field.name), float) else str(value)] for field in fields(self)
        ]
        return table([], rows)


def queue_statistics(queue: Queue) -> QueueStatistics:
    """Return one queue's counters."""
    running = sum(bool(worker.batches) for worker in list(queue.workers))
    return QueueStatistics(
        queue.name,
        queue.category,
        queue.max_workers,
        len(queue.workers),
        max(0, queue.open_units() - running),
        running,
        queue.done,
        queue.failed,
        queue.cancelled,
        queue.timed_out,
        queue.lost,
        max(queue.peak_depth, queue.depth()),
        len(queue.ended),
    )


def worker_table(controller: Controller) -> WorkerTable:
    """Return all workers of a controller."""
    loop = controller.loop
    if loop is None or controller.forked:
        return WorkerTable(())
    now = time.monotonic()
    rows = []
    for worker in list(loop.dispatcher.workers):
        row = loop.core.workers.get(worker.number)
        if row is not None and worker.pid:
            rows.append(worker_row(controller, worker, row, now))
    return WorkerTable(rows)


def worker_row(controller: Controller, worker: Worker, row: Any, now: float) -> WorkerRow:
    """Return what is known of one worker."""
    loop = controller.loop
    assert loop is not None
    running = loop.dispatcher.running(worker)
    state = row.state
    if state in (WorkerState.ACTIVE, WorkerState.WAITING_FOR_UNITS):  # the core hears of these later than they happen
        state = WorkerState.ACTIVE if worker.batches else WorkerState.WAITING_FOR_UNITS
    usage = probe.usage(worker.pid)
    return WorkerRow(
        worker.pid,
        worker.name,
        worker.process_info_id,
        state.value,
        worker.category,
        worker.queue.name if worker.queue is not None else None,
        running[0].label if running is not None else None,
        now - (running[1] if running is not None else row.since),
        worker.units_done,
        usage.rss_bytes if usage is not None else None,
        usage.cpu_s if usage is not None else None,
        row.blocked_how.value if row.blocked_how is not None else None,
    )


def metrics(controller: Controller) -> Metrics:
    """Return a controller's counters."""
    states = [row.state for row in worker_table(controller)]
    past = dict(controller.past)
    queues = list(controller.queues.values())
    counters = controller.loop.counters if controller.loop is not None else {}
    return Metrics(
        states.count("active"),
        states.count("waiting to attach") + states.count("waiting for units"),
        states.count("blocked"),
        states.count("retired"),
        sum(queue.open_units() for queue in queues),
        past["done"] + sum(queue.done for queue in queues),
        past["failed"] + sum(queue.failed for queue in queues),
        past["cancelled"] + sum(queue.cancelled for queue in queues),
        past["timed_out"] + sum(queue.timed_out for queue in queues),
        past["lost"] + sum(queue.lost for queue in queues),
        counters.get("started", 0),
        counters.get("interrupted", 0),
        counters.get("killed", 0),
        counters.get("halted", 0),
        controller.loop.collecting_s if controller.loop is not None else 0.0,
    )


def seconds(value: float) -> str:
    """Return a time as people say it.

    >>> seconds(0.0123), seconds(75)
    ('12 ms', '75 s')
    """
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def table(head: list[list[str]], rows: list[list[str]]) -> str:
    """Return rows as an aligned table; numbers to the right."""
    every = head + rows
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))] if every else []
    lines = []
    for row in every:
        cells = [cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
