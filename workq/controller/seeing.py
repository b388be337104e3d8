"""From the rows of a controller to snapshots: workers, queues, metrics. Any thread may look; nothing is held up by it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workq.category import unknown_category
from workq.controller.tallies import QueueTimes, Totals, note_lone
from workq.core.events import BlockedHow
from workq.core.states import WorkerState
from workq.core.times import Times
from workq.process import probe
from workq.process.stack import desk_of
from workq.seeing.statistics import Histogram, Metrics, QueueStatistics, WorkerRow, WorkerTable
from workq.seeing.tables import described
from workq.transport.board import BATCH_AT, FINISHED, STARTED

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.records import Queue, Worker

W = WorkerState


def queue_statistics(queue: Queue) -> QueueStatistics:
    """Return one queue's counters."""
    later = getattr(getattr(queue.controller.loop, "dispatcher", None), "lone_times", None)  # there are none where there are no workers
    if later:
        note_lone(later)
    now_ns = time.monotonic_ns()
    workers = list(queue.workers)
    in_units = [worker for worker in workers if worker.holds_pending()]
    blocked_how = [how for worker in in_units if (how := _blocked_how(queue, worker)) is not None]
    running, blocked = len(in_units), len(blocked_how)
    times = queue.times
    running_ns = [_running_ns(worker, now_ns) for worker in workers]
    busy_ns, since_ns = times.busy_ns + sum(running_ns), now_ns - times.first_ns if times.first_ns else max(running_ns, default=0)
    return QueueStatistics(
        queue.name,
        queue.category,
        0 if queue.controller.inline else queue.max_workers,
        len(workers),
        max(0, queue.open_units() - running),
        running,
        queue.done,
        queue.failed,
        queue.cancelled,
        queue.timed_out,
        queue.lost,
        max(queue.peak_depth, queue.depth()),
        len(queue.ended),
        max(0, running - blocked),
        blocked,
        times.per_second(now_ns),
        histogram(times.wait),
        histogram(times.run),
        times.busy_ns / 1e9,
        min(1.0, busy_ns / (since_ns * queue.max_workers)) if since_ns > 0 else None,
        queue.bytes_down,
        queue.bytes_up,
        _leaked_locks(queue),
        blocked_how.count(BlockedHow.JUDGED),
    )


def num_active_workers(queue: Queue) -> int:
    """Return how many of a queue's workers run units of it, blocked ones left out."""
    return sum(bool(worker.batches) and _blocked_how(queue, worker) is None for worker in list(queue.workers))


def _blocked_how(queue: Queue, worker: Worker) -> BlockedHow | None:
    """Return how it is known that a worker is blocked; None where it is not, or where the core does not believe it (`doubted`)."""
    loop = queue.controller.loop
    row = loop.core.workers.get(worker.number) if loop is not None and worker.told_blocked else None
    return row.blocked_how if row is not None and row.state is W.BLOCKED else None


def _leaked_locks(queue: Queue) -> tuple[str, ...]:
    loop: Any = getattr(queue.controller, "loop", None)
    return loop.locks.leaks_of(queue.name) if hasattr(loop, "locks") else ()


def histogram(times: Times) -> Histogram:
    """Return times as they are now."""
    buckets = tuple(times.buckets)
    return Histogram(sum(buckets), times.total_ns / 1e9, buckets)


# ---------------------------------------------------------------- workers


def worker_table(controller: Controller) -> WorkerTable:
    """Return all workers of a controller."""
    loop = controller.loop
    if loop is None or controller.forked:
        return WorkerTable(())
    rows = []
    for worker in list(loop.dispatcher.workers):
        row = loop.core.workers.get(worker.number)
        if row is not None and worker.pid:
            rows.append(_worker_row(controller, worker, row))
    return WorkerTable(rows)


def _worker_row(controller: Controller, worker: Worker, row: Any) -> WorkerRow:
    """Return what is known of one worker."""
    loop = controller.loop
    assert loop is not None
    running = loop.dispatcher.innermost(worker)
    begun = running[1] if running is not None else row.since
    now = time.monotonic()  # after it has begun, so that no time is negative: to look at the workers before this one takes milliseconds
    usage = probe.usage(worker.pid)
    state = _state(worker, row)
    return WorkerRow(
        worker.pid,
        worker.name,
        worker.process_info_id,
        state.value,
        worker.category,
        worker.queue.name if worker.queue is not None else None,
        running[0].label if running is not None else None,
        max(0.0, now - begun),
        worker.units_done,
        usage.rss_bytes if usage is not None else None,
        usage.cpu_s if usage is not None else None,
        row.blocked_how.value if state is W.BLOCKED and row.blocked_how is not None else None,
        loop.locks.waits().get(int(worker.number)),
        _progress(worker),
        running is not None and worker.slow_number == worker.words[STARTED],
        silent_s if worker.ready and (silent_s := worker.silence_s(now)) >= loop.settings.stalled_after_s else None,
        desk_of(worker.words),
    )


def _state(worker: Worker, row: Any) -> WorkerState:
    """Return a worker's state. The core hears later than it happens of units that come and end."""
    state: WorkerState = row.state
    if state in (W.ACTIVE, W.BLOCKED, W.WAITING_FOR_UNITS, W.HELD):
        queue = worker.queue
        if worker.holds_pending():
            return W.BLOCKED if state is W.BLOCKED else W.ACTIVE
        return W.HELD if queue is not None and queue.session else W.WAITING_FOR_UNITS
    return state


def _running_ns(worker: Worker, now_ns: int) -> int:
    """Return how long a worker has been in units of which it has not told yet."""
    words = worker.words
    if words[STARTED] <= words[FINISHED] or not worker.batches:
        return 0
    return max(0, now_ns - words[BATCH_AT])


def progress_notes(queue: Queue) -> list[str]:
    """Return what the running units of a queue say of their own progress."""
    said = [_progress(worker) for worker in list(queue.workers)]
    return [described(*each) for each in said if each is not None]


def _progress(worker: Worker) -> tuple[float | None, str] | None:
    number = worker.words[STARTED]
    return worker.lane.board.progress(number) if number > worker.words[FINISHED] else None


# ---------------------------------------------------------------- metrics


def metrics(controller: Controller) -> Metrics:
    """Return a controller's counters."""
    begun = time.perf_counter()
    if controller.loop is not None:
        note_lone(controller.loop.dispatcher.lone_times)
    queues = controller.every_queue()
    totals = controller.tallies.by_category(queues)
    names = dict.fromkeys((*controller.categories, *totals, *controller.tallies.workers))
    categories = {name: _of_category(controller, name, queues, totals.get(name) or Totals(QueueTimes())) for name in names}
    return _together(controller, categories, begun)


def _of_category(controller: Controller, name: str, queues: list[Queue], totals: Totals) -> Metrics:
    now_ns = time.monotonic_ns()
    loop, tallies, times = controller.loop, controller.tallies, totals.times
    mine = [queue for queue in queues if queue.category == name]
    counts, halts = tallies.workers.get(name, {}), tallies.halts.get(name, {})
    workers = [worker for worker in list(loop.dispatcher.workers) if worker.category == name] if loop is not None else []
    rows = [(worker, row) for worker in workers if loop is not None and (row := loop.core.workers.get(worker.number)) is not None]
    states = [_state(worker, row) for worker, row in rows]
    running = sum(worker.holds_pending() for worker in workers)
    there_ns = tallies.worker_ns.get(name, 0) + sum(max(0, now_ns - int(worker.ready_at * 1e9)) for worker in workers if worker.ready)
    busy_ns = times.busy_ns + sum(_running_ns(worker, now_ns) for worker in workers)
    return Metrics(
        category=name,
        active_workers=states.count(W.ACTIVE) + states.count(W.TEARING_DOWN),
        waiting_workers=sum(states.count(state) for state in (W.WAITING_TO_ATTACH, W.WAITING_FOR_UNITS, W.HELD)),
        blocked_workers=states.count(W.BLOCKED),
        retired_workers=states.count(W.RETIRED),
        starting_workers=states.count(W.STARTING),
        stopping_workers=states.count(W.STOPPING),
        peak_active_workers=loop.core.peak_active.get(name, 0) if loop is not None else 0,
        units_queued=max(0, sum(queue.open_units() for queue in mine) - running),
        units_running=running,
        units_done=totals.done,
        units_failed=totals.failed,
        units_cancelled=totals.cancelled,
        units_timed_out=totals.timed_out,
        units_lost=totals.lost,
        peak_depth=totals.peak_depth,
        units_per_second=times.per_second(now_ns),
        wait_time=histogram(times.wait),
        run_time=histogram(times.run),
        workers_started=counts.get("started", 0),
        workers_retired=loop.core.retirements.get(name, 0) if loop is not None else 0,
        workers_interrupted=counts.get("interrupted", 0),
        workers_killed=counts.get("killed", 0),
        workers_halted=counts.get("halted", 0),
        workers_recycled=counts.get("recycled", 0),
        inactive_queues=counts.get("inactive_queues", 0),
        worker_halts=MappingProxyType(dict(halts)),
        bytes_to_workers=totals.bytes_down,
        bytes_from_workers=totals.bytes_up,
        worker_s=there_ns / 1e9,
        busy_s=times.busy_ns / 1e9,
        busy=min(1.0, busy_ns / there_ns) if there_ns else None,
    )


def _together(controller: Controller, categories: dict[str, Metrics], begun: float) -> Metrics:
    """Return all categories as one."""
    every = list(categories.values())
    sums: dict[str, Any] = {each.name: sum(getattr(one, each.name) for one in every) for each in fields(Metrics) if each.name in _SUMS}
    there_s, halts = sums["worker_s"], Counter[str]()
    for one in every:
        halts.update(one.worker_halts)
    return Metrics(
        **sums,
        peak_active_workers=max((one.peak_active_workers for one in every), default=0),
        peak_depth=max((one.peak_depth for one in every), default=0),
        wait_time=_merged([one.wait_time for one in every]),
        run_time=_merged([one.run_time for one in every]),
        worker_halts=MappingProxyType(dict(halts)),
        busy=sum((one.busy or 0.0) * one.worker_s for one in every) / there_s if there_s else None,
        controller_s=controller.loop.turns_s if controller.loop is not None else 0.0,
        categories=MappingProxyType(_ByName(categories)),
        collecting_s=time.perf_counter() - begun,
    )


class _ByName(dict[str, Metrics]):
    """The metrics of each category; asked for one that is not there it names those that are."""

    def __missing__(self, name: object) -> Metrics:
        raise unknown_category(name, list(self))


def _merged(histograms: list[Histogram]) -> Histogram:
    columns = zip(*(each._buckets for each in histograms), strict=True)
    return Histogram(sum(each.count for each in histograms), sum(each.total_s for each in histograms), tuple(map(sum, columns)))


_APART = {"category", "categories", "peak_active_workers", "peak_depth", "wait_time", "run_time", "worker_halts", "busy"}
_SUMS = {each.name for each in fields(Metrics)} - _APART - {"controller_s", "collecting_s"}
