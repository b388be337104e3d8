"""One short function for each order of the core. Under the dispatch lock; what needs the lead is returned, to be done right afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from workq.controller import start
from workq.controller.records import Worker
from workq.core.actions import (
    Action,
    FailCategory,
    FailQueue,
    Grant,
    Interrupt,
    KillUnit,
    KillWorker,
    Limit,
    Release,
    RingAlarm,
    RunOwn,
    Sample,
    StartWorker,
    StopWorker,
    TearDown,
)
from workq.core.events import WorkerId
from workq.transport.channel import DOWN_LEAVE, down_frame

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")

NeedsLead = Callable[[], object]


def perform(loop: Loop, action: Action, now: float) -> list[NeedsLead]:
    """Do what the core has ordered; return what has to be done with the lead in hand."""
    match action:
        case Grant(number, queue, limit):
            return _grant(loop, loop.by_number.get(number), queue, limit)
        case RunOwn(number, queue):
            loop.nested.children.run_own(number, queue)
        case Limit(number, units):
            return _limit(loop, loop.by_number.get(number), units)
        case Release():
            pass  # done by `arrange`
        case TearDown(number, queue):
            _tear_down(loop, loop.by_number.get(number), queue)
        case FailQueue(queue):
            return [partial(loop.fittings.fail_queue, queue)]
        case StartWorker(number, category):
            start.start_worker(loop, number, category, now)
        case StopWorker(number, recycled):
            _stop_worker(loop, loop.by_number.get(number), recycled)
        case KillWorker(number):
            _kill_worker(loop, loop.by_number.get(number))
        case Interrupt(number, unit):
            return [partial(loop.stops.interrupt, number, unit)]
        case KillUnit(number, unit):
            return [partial(loop.stops.kill, number, unit)]
        case FailCategory(category):
            return [partial(loop.halts.fail_category, category)]
        case Sample(category, on):
            loop.judge.sample(category, on)
        case RingAlarm(alarm):
            return [partial(loop.alarms.ring, alarm)]
    return []


def arrange(loop: Loop, actions: Sequence[Action]) -> None:
    """Move workers to and from queues as ordered, all before anything is sent.

    The race: the core keeps one dry worker with queue A and moves another from A to B; what is sent for the first order may go to the
    second worker too, which would then stand with B and run a unit of A that nobody finds any more who looks for A's units.
    """
    for action in actions:
        worker = loop.by_number.get(action.worker) if isinstance(action, Grant | Release | TearDown) else None
        if worker is None:
            continue
        queue = loop.controller.queues.get(action.queue) if isinstance(action, Grant) else None
        if isinstance(action, Release | TearDown):
            assert not worker.batches, worker
            _detach(worker)
        elif queue is not None and not queue.gone and worker.queue is not queue:
            assert not worker.batches, worker
            _detach(worker)
            worker.queue = queue
            queue.workers.append(worker)


def _grant(loop: Loop, worker: Worker | None, queue_number: Any, limit: int | None) -> list[NeedsLead]:
    queue = loop.controller.queues.get(queue_number)
    if worker is None or queue is None or queue.gone:
        return []
    worker.allowance = limit
    worker.told_dry = False  # the core counts it as active from here
    loop.recycler.watch(worker, queue, loop.clock())
    queue.room = True
    loop.dispatcher.dispatch(queue)
    if queue.depth():
        queue.told = 0  # the core counts each worker that it grants as one unit taken: say again what is left
    loop.attention.add(queue)
    loop.ring()  # look again: is it dry, does more wait
    return []


def _limit(loop: Loop, worker: Worker | None, units: int) -> list[NeedsLead]:
    if worker is None:
        return []
    worker.allowance = units
    if units == 0:
        return [partial(_take_back, loop, worker)]
    return []


def _take_back(loop: Loop, worker: Worker) -> None:
    """Take back what a worker that may begin nothing more was sent; unless it was granted more meanwhile, and sent that."""
    row = loop.core.workers.get(WorkerId(int(worker.number)))
    if row is not None and row.limit == 0:
        loop.recalls.take_back(worker)


def _tear_down(loop: Loop, worker: Worker | None, number: Any) -> None:
    if worker is not None:
        loop.fittings.tear_down(worker, number)


def _detach(worker: Worker) -> None:
    if worker.queue is not None:
        worker.queue.workers.remove(worker)
        worker.queue = None
        worker.told_dry = True


def _stop_worker(loop: Loop, worker: Worker | None, recycled: bool) -> None:
    if worker is not None:
        worker.leaving = True
        if recycled:
            loop.controller.tallies.count(worker.category, "recycled")
            logger.debug("%s (pid %d) is replaced after %d units", worker.name, worker.pid, worker.units_done)
        worker.outgoing.send(down_frame(DOWN_LEAVE, b""))


def _kill_worker(loop: Loop, worker: Worker | None) -> None:
    if worker is not None:
        worker.killed_for = "it did not leave in time" if worker.leaving else "it did not get ready in time"
        logger.warning("%s (pid %d) is killed: %s", worker.name, worker.pid, worker.killed_for)
        loop.controller.tallies.count(worker.category, "killed")
        loop.engine.kill(worker.lane)
