"""Units that the worker runs itself whose unit waits for them, since no other worker can be had (``max_total_workers``).

The worker's side is ``workq.hosts.children``. How one goes:

1. A unit waits for units of its queue: its worker *offers* to run one of them, by a number of its own. The core is told.
2. The core orders it (``RunOwn``): the unit leaves the backlog, stands in ``worker.own``, and its number goes down.
3. The worker says when it *begins* and how it has *ended*; from here on the unit goes the way of all others: retries, counts, reply.
4. A wait that ends otherwise *withdraws* its offer. The race: what was given for that offer meanwhile is taken back here and ignored
   there; since the worker looks at its offers in the same thread that withdraws them, it has begun the unit or never will.

In the worker the unit's number stands for it, as the numbers of its batches do for other units: it is what ``TARGET`` names when it
has to be interrupted. Numbers from `OWN_FIRST` on are of such units. Belongs to the controller's thread, with the lead.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from workq.controller import tallies
from workq.controller.backlog import put_back
from workq.controller.dispatch import GHOST_VALUE
from workq.controller.records import GHOST, OWN_FIRST, OwnBatch, Queue, Worker
from workq.core.events import OwnerDone, OwnerOffers, OwnerWithdraws, QueueId, WorkerId
from workq.outcome import PENDING, Ended, cancelled
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop

NEWS = 0  # stands where a reply has the number of a queue (None stands there for an answer about locks); it tells of
POOLS_NEWS, ANSWERED, RUN_OWN = range(3)  # the categories; a question that is answered; a unit that its owner is to run


class Children:
    """What owners have offered, and what they were given."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._offers: dict[QueueId, tuple[int, int]] = {}  # by queue: the worker's number of the queue, and of its offer
        self._numbers = count(OWN_FIRST)

    # ------------------------------------------------------------ what the worker says

    def offer(self, queue: Queue, key: int, offer: int) -> None:
        """A unit waits for units of its queue, and would run one of them."""
        if not queue.gone:
            self._offers[queue.number] = key, offer
            self._loop.tell(OwnerOffers(queue.number))

    def withdraw(self, worker: Worker, queue: Queue | None, offer: int) -> None:
        """It waits no more; what it was given meanwhile is not begun, and goes back."""
        for batch in worker.own:
            if batch.offer == offer and not batch.begun_ns:
                self._give_back(worker, batch)
                return
        if queue is not None and queue.number in self._offers:
            del self._offers[queue.number]
            self._loop.tell(OwnerWithdraws(queue.number))

    def begun(self, worker: Worker, number: int, started_ns: int) -> None:
        """It has begun the unit."""
        batch = _batch(worker, number)
        if batch is not None:
            batch.begun_ns = started_ns
            for unit in batch.units:
                if unit is not GHOST and unit.call.options.timeout is not None:
                    self._loop.stops.watch(unit.call.options.timeout)

    def ended(self, worker: Worker, number: int, kind: int, payload: bytes, ended_ns: int, swept_away: bool) -> None:
        """It has ended the unit. ``swept_away``: by an interrupt that is for a unit which waits for it."""
        batch = _batch(worker, number)
        if batch is not None:
            with batch.queue.in_hand():
                self._settle(worker, batch, kind, payload, ended_ns, swept_away)

    def _settle(self, worker: Worker, batch: OwnBatch, kind: int, payload: bytes, ended_ns: int, swept_away: bool) -> None:
        batch.ended_ns = ended_ns
        unit, queue = batch.units[0], batch.queue
        self._take_off(worker, batch)
        if unit.value is not PENDING:
            return
        unit.started_ns, unit.ended_ns, unit.worker_record = batch.begun_ns, ended_ns, worker
        worker.units_done += 1
        queue.bytes_up += len(payload)
        if swept_away:
            queue.cancelled += 1
            value: Any = cancelled(unit, "the unit that ran it while it waited was stopped")
        else:
            value = self._loop.dispatcher.value_of(worker, batch, 0, kind, payload)
        if value is GHOST_VALUE:
            self._look(queue)
            return
        if type(value) is not Ended:
            queue.done += 1
        tallies.note_unit(unit)
        self._loop.ends.settle(unit, value)
        self._loop.lead.wake_ready()

    # ------------------------------------------------------------ what the core orders

    def run_own(self, number: WorkerId, queue_number: QueueId) -> None:
        """Give an owner a unit of its queue. Under the dispatch lock."""
        loop = self._loop
        worker, queue = loop.by_number.get(number), loop.controller.queues.get(queue_number)
        offered = self._offers.pop(queue_number, None)
        if worker is not None:
            worker.told_blocked = worker.judged_blocked = False  # it counts as active from here
        if worker is None or worker.exited or queue is None or queue.gone:
            return  # the core hears of that
        with queue.in_hand():
            unit = _first_open(queue) if offered is not None else None
            if unit is not None and offered is not None:
                self._give(worker, queue, unit, *offered)
                return
        loop.tell(OwnerDone(queue_number))  # another worker took it, or the wait is over, of which the core has not heard yet
        if offered is not None:
            self.offer(queue, *offered)
        self._look(queue)

    def _give(self, worker: Worker, queue: Queue, unit: Unit[Any], key: int, offer: int) -> None:
        batch = OwnBatch(queue, next(self._numbers), offer)
        batch.units.append(unit)
        worker.own.append(batch)
        queue.retrying += 1  # it is open, until it is taken off
        self._look(queue)
        self._loop.nested.send(worker, (NEWS, RUN_OWN, offer, key, unit.id, batch.first, unit.attempt))

    # ------------------------------------------------------------ ends of workers and queues

    def abandon(self, worker: Worker) -> list[tuple[Unit[Any], int]]:
        """A worker has ended: return what it had begun of its own, with its time, the innermost last; the rest goes back."""
        begun = []
        for batch in tuple(worker.own):
            unit = batch.units[0]
            if batch.begun_ns and unit is not GHOST and unit.value is PENDING:
                begun.append((unit, batch.begun_ns))
                self._take_off(worker, batch)
            else:
                self._give_back(worker, batch)
        return begun

    def of_queue(self, queue: Queue) -> list[Unit[Any]]:
        """Return the open units of a queue that its owner runs."""
        return [unit for batch in queue.own_batches() for unit in batch.units if unit is not GHOST and unit.value is PENDING]

    def has_offer(self, queue: Queue) -> bool:
        """Return whether an owner would run units of a queue itself."""
        return queue.number in self._offers

    def forget(self, queue: Queue) -> None:
        """A queue is deleted."""
        self._offers.pop(queue.number, None)

    # ------------------------------------------------------------ inside

    def _give_back(self, worker: Worker, batch: OwnBatch) -> None:
        """Put a unit that was not begun where it stood in its backlog again."""
        unit, queue = batch.units[0], batch.queue
        with queue.in_hand():
            self._take_off(worker, batch)
            if unit is GHOST or unit.value is not PENDING:
                return
            if queue.gone:
                queue.cancelled += 1
                self._loop.ends.settle(unit, cancelled(unit, queue.why_deleted))
                return
            with self._loop.dispatcher.lock:
                put_back(queue.backlog(unit.call.options.priority), unit)
        self._look(queue)

    def _take_off(self, worker: Worker, batch: OwnBatch) -> None:
        worker.own.remove(batch)
        batch.queue.retrying -= 1
        self._loop.tell(OwnerDone(batch.queue.number))

    def _look(self, queue: Queue) -> None:
        queue.told = 0  # the core counts a unit that it has ordered off as taken: say again what is left
        self._loop.look_at(queue)


def _batch(worker: Worker, number: int) -> OwnBatch | None:
    return next((batch for batch in worker.own if batch.first == number), None)


def _first_open(queue: Queue) -> Unit[Any] | None:
    """Take the unit whose turn it is off a queue's backlogs."""
    while backlog := queue.front():
        unit = backlog.popleft()
        if unit.value is PENDING:
            return unit
    return None


__all__ = ["ANSWERED", "NEWS", "POOLS_NEWS", "RUN_OWN", "Children"]
