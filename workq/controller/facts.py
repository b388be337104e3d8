"""What the core should hear: compares what workers and queues are with what the core believes. Under the dispatch lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from marshal import loads as marshal_loads
from typing import TYPE_CHECKING

from workq.controller import recycling
from workq.controller.records import GHOST, Queue, Worker
from workq.core.events import (
    BlockedHow,
    Event,
    UnitStopped,
    WorkerBlocked,
    WorkerDry,
    WorkerId,
    WorkerReady,
    WorkerTook,
    WorkerUnblocked,
    WorkTaken,
    WorkWaits,
)
from workq.outcome import PENDING
from workq.transport.board import BLOCKED, STARTED
from workq.transport.channel import UP_KEPT, UP_LOCK, UP_LOG, UP_OUTPUT, UP_READY, UP_REQUEST, UP_SEGMENT, UP_SET_UP, UP_TORE_DOWN, Frame

if TYPE_CHECKING:
    from workq.controller.loop import Loop


def gather(loop: Loop) -> Iterator[Event]:
    """Yield the facts that are new: workers first, so that the core knows who is free when it hears who waits, or who is blocked.

    A fact is looked for when it is asked for, and told before the next one is: what the core orders meanwhile is performed at once, and
    may have made the next one untrue.
    """
    for worker in loop.dispatcher.workers:
        yield from of_worker(loop, worker)
    for worker in loop.dispatcher.workers:
        yield from of_blocked(loop, worker)
    for unit_id in loop.stops.ended():
        yield UnitStopped(unit_id)
    unknown = []
    while loop.attention:
        queue = loop.attention.pop()
        loop.begin_look(queue)
        if queue.number in loop.core.queues or not queue.opened or queue.gone:
            yield from of_queue(loop, queue)
        else:  # opened by another thread after the core was told of what had happened: it hears of that first, in the next turn
            unknown.append(queue)
    for queue in unknown:
        loop.look_at(queue)


def of_worker(loop: Loop, worker: Worker) -> Iterator[Event]:
    """Yield what has changed with one worker, but that it is blocked."""
    if not can_be_told_of(worker):
        return
    loop.dispatcher.mend(worker)
    number = WorkerId(int(worker.number))
    if not worker.announced:
        worker.announced = True
        yield WorkerReady(number)
    if worker.quota is not None:
        yield from recycling.of_worker(worker, number)
    queue = worker.queue
    if queue is None:
        return
    if queue.room and queue.depth():
        loop.dispatcher.dispatch(queue)
    dry = not worker.batches
    if worker.told_blocked and (dry or not blocked_now(worker)):
        worker.told_blocked = worker.judged_blocked = False
        queue.room = True
        yield WorkerUnblocked(number)
    if dry and not queue.depth():  # that nothing waits is told first: else the worker would be sent there again
        yield from of_queue(loop, queue)
    dry = not worker.batches  # looked at again: what was told just now may have brought it units
    if dry != worker.told_dry and worker.queue is queue:
        worker.told_dry = dry
        if dry:
            worker.allowance = None
        yield WorkerDry(number) if dry else WorkerTook(number)


def of_blocked(loop: Loop, worker: Worker) -> Iterator[Event]:
    """Yield that a worker is blocked, if that is new; and before it that nothing waits, else the core would have a stand-in for nothing."""
    if not can_be_told_of(worker) or worker.queue is None or not worker.batches or worker.told_blocked or not blocked_now(worker):
        return
    if worker.own and not worker.own[-1].begun_ns:
        return
    worker.told_blocked = True
    if holds_more_than_one(worker):
        loop.command(loop.recalls.take_back, worker)
    elif not worker.queue.depth():
        yield from of_queue(loop, worker.queue)
    yield WorkerBlocked(WorkerId(int(worker.number)), BlockedHow.DECLARED if worker.words[BLOCKED] else BlockedHow.JUDGED)


def can_be_told_of(worker: Worker) -> bool:
    """Return whether the core may hear of a worker: it may say that it is ready before the launcher has said which process it is."""
    return worker.ready and bool(worker.pid) and not worker.exited


def blocked_now(worker: Worker) -> bool:
    """Return whether a worker's unit waits: it says so, or it was judged so."""
    return bool(worker.words[BLOCKED]) or worker.judged_blocked


def of_queue(loop: Loop, queue: Queue) -> Iterator[Event]:
    """Yield what has changed with a queue's backlog."""
    if queue.gone or not queue.opened:
        return
    if queue.room and queue.depth():
        loop.dispatcher.dispatch(queue)
        loop.begin_look(queue)  # it may have told us of itself just now
    units = queue.depth()
    queue.peak_depth = max(queue.peak_depth, units)
    if not units:
        if queue.told or queue in loop.believed_waiting:  # whoever takes units back has it told anew
            loop.told(queue, 0)
            if queue.depth():  # queued just now, by a thread that still found it told
                loop.attention.add(queue)
            yield WorkTaken(queue.number)
    elif not queue.paused and units > queue.told:
        loop.told(queue, units)
        yield WorkWaits(queue.number, units)


def holds_more_than_one(worker: Worker) -> bool:
    """Return whether a worker was sent units that it has not begun."""
    try:
        last = worker.batches[-1]
    except IndexError:  # whoever reads may have taken off the last one since anybody looked
        return False
    begun = worker.words[STARTED]
    return any(unit is not GHOST and last.first + index > begun for index, unit in enumerate(last.units))


def oldest_held(worker: Worker) -> int:
    """Return the number of the oldest unit of a worker that has not ended."""
    return min((unit.id for batch in tuple(worker.batches) for unit in batch.units[batch.at :] if unit is not GHOST), default=0)


def could_run_elsewhere(loop: Loop, queue: Queue, holder: Worker) -> bool:
    """Return whether a worker is idle, or could be had, that may run units which another holds but has not begun."""
    if any(worker is not holder and not worker.batches and worker.allowance != 0 and worker.quota != 0 for worker in queue.workers):
        return True
    return len(queue.workers) < queue.max_workers


def take_frame(loop: Loop, worker: Worker, frame: Frame) -> None:
    """Take in a frame other than a result. Under the lead; runs no user code."""
    kind, payload = frame.kind, frame.payload
    if kind == UP_READY:
        worker.ready = True
        worker.ready_at = time.monotonic()
        worker.sees_segments = bytes(payload) == b"\1"
        loop.ring()
    elif kind == UP_LOG:
        frame.taken = True
        loop.controller.delivery.record(worker, bytes(payload))
    elif kind == UP_OUTPUT:
        (queue_name, unit_id), chunks = marshal_loads(payload)
        own = queue_name is None  # a unit that the worker runs while its maker waits, by its number there
        for batch in tuple(worker.own if own else worker.batches):  # others may send to it meanwhile
            for unit in batch.units[batch.at :]:
                found = unit is not GHOST and (batch.first == unit_id if own else unit.id == unit_id)
                if found and unit.value is PENDING and not frame.taken:
                    extra, keep = unit.need_extra(), unit.call.queue.outputs.append
                    extra.output += chunks
                    frame.taken = True
                    keep(unit)
    elif kind == UP_SEGMENT:
        number, fds = marshal_loads(payload), worker.incoming.fds
        worker.segments.setdefault(number, fds[0] if fds else -1)
        if fds and fds[0] == worker.segments[number]:  # else an exception of a signal handler struck after it was taken
            fds.popleft()
    elif kind == UP_KEPT:
        loop.controller.segments.keep(marshal_loads(payload))
    elif kind == UP_LOCK:
        loop.locks.take_frame(worker, frame)
    elif kind == UP_SET_UP:
        frame.taken = True
        loop.fittings.set_up(worker, payload)
    elif kind == UP_TORE_DOWN:
        frame.taken = True
        loop.fittings.tore_down(worker, payload)
    elif kind == UP_REQUEST:
        loop.nested.request(worker, frame)
