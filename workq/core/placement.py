"""Which queue a free worker serves next, and how much it may take: fair between queues.

Queues that wait stand in two rings. Those without any worker come first, in the order in which they began to wait; then those
that have the fewest. A queue that got a worker goes to the tail. As long as a queue waits that has fewer workers than another,
the workers of the other take a quantum of units at a time and then come back, dry, to be placed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from workq.core.ids import WorkerId
from workq.core.records import CategoryRow, QueueRow, WorkerRow
from workq.core.sizing import extra_workers
from workq.core.states import IDLE, WorkerState

W = WorkerState


def next_pair(category: CategoryRow) -> tuple[WorkerRow, QueueRow] | None:
    """Return the queue to be served next and the worker for it, or None where no queue waits or no worker is free for it.

    Where the head gets nobody, nobody behind it could: what a queue without workers may have includes all that others may.
    """
    queue = next_queue(category)
    if queue is None:
        return None
    worker = worker_for(category, queue)
    return None if worker is None else (worker, queue)


def next_queue(category: CategoryRow) -> QueueRow | None:
    """Return the waiting queue whose turn it is."""
    if category.fresh:
        return _next_fresh(category)
    return min(category.served.values(), key=lambda queue: queue.serving, default=None)


def _next_fresh(category: CategoryRow) -> QueueRow:
    """Return the first of the application's queues, else the deepest of those that units made.

    Of nested queues the deepest has its units run first, so that of a tree of units few branches are open at once: each unit that waits
    for others is a process. The application's own go before them, as each is served by one worker only and then stands in the other ring.
    """
    queues = category.fresh.values()
    first = next(iter(queues))
    if not category.nested or not first.depth:
        return first
    return max(queues, key=lambda queue: queue.depth if queue.depth else inf)


def worker_for(category: CategoryRow, queue: QueueRow) -> WorkerRow | None:
    """Return the free worker that suits `queue` best, if the limits allow that one works.

    A dry worker counts as active already, an idle one does not: the dry one goes before an idle one beyond the maximum.
    """
    most = category.limits.max_active_workers
    most_here = most + (extra_workers(category.limits) if queue.ring is category.fresh else 0)
    active = category.active
    if queue.dry and active <= most_here:
        return next(reversed(queue.dry.values()))
    if active < most and (idle := _idle_worker(category, queue)):
        return idle
    dry = category.crew[W.WAITING_FOR_UNITS]
    if dry and active <= most_here:
        return next(iter(dry.values()))
    return _idle_worker(category, queue) if active < most_here else None


def next_own(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> tuple[WorkerRow, QueueRow] | None:
    """Return a waiting owner and the queue of which it has to run a unit itself, since the category may have no more processes."""
    limits = category.limits
    if not category.offers or limits.max_total_workers is None or category.living < limits.max_total_workers:
        return None
    if category.wishes <= category.starting:
        return None  # those that are coming will do
    for queue in category.offers.values():
        owner = workers.get(queue.owner) if queue.owner is not None else None
        most = limits.max_active_workers + (extra_workers(limits) if queue.ring is category.fresh else 0)
        if queue.wish and not queue.session and owner is not None and owner.state is W.BLOCKED and owner.category == category.name:
            if category.active + category.starting < most:
                return owner, queue
    return None


def _idle_worker(category: CategoryRow, queue: QueueRow) -> WorkerRow | None:
    """Return the idle worker that was used last; a stand-in for a blocked one is rather a retired one, any rather one that is set up."""
    if queue.fit and (idle := next((row for row in reversed(queue.fit.values()) if row.state in IDLE), None)):
        return idle
    order = (W.RETIRED, W.WAITING_TO_ATTACH) if queue.blocked else (W.WAITING_TO_ATTACH, W.RETIRED)
    for state in order:
        if category.crew[state]:
            return next(reversed(category.crew[state].values()))
    return None


def is_superfluous(category: CategoryRow, queue: QueueRow) -> bool:
    """Tell whether one of the dry workers of `queue` has to be retired."""
    workers = queue.serving + len(queue.dry)
    return workers > queue.most_workers or workers > _most_per_queue(category)


class Pressure(NamedTuple):
    """What the state of a category means for all its workers.

    Attributes:
        most_per_queue: A queue with more workers than this has to give one up, since the category has too many.
        fewest: How many workers the neediest queue has that waits and for which none is coming; infinite where nobody is needy.
    """

    most_per_queue: float
    fewest: float

    @classmethod
    def of(cls, category: CategoryRow) -> Pressure:
        """Return the pressure in `category` now."""
        return cls(_most_per_queue(category), _fewest_workers(category))


def _most_per_queue(category: CategoryRow) -> float:
    """One worker beyond the maximum is in order while no queue has two: it is the one held ready for a queue that has none."""
    beyond = category.beyond
    if beyond <= 0:
        return inf
    return 0 if beyond > extra_workers(category.limits) else 1


def _fewest_workers(category: CategoryRow) -> float:
    if len(category.fresh) > category.starting:
        return 0
    if category.starting or not category.served:
        return inf
    return min(queue.serving for queue in category.served.values())


def limit_for(queue: QueueRow, pressure: Pressure, quantum_units: int) -> int | None:
    """Return how many units a worker of `queue` may take before it has to come back: None means all."""
    if queue.session:
        return 0 if queue.paused else None  # its worker is its own, whatever the pressure
    workers = queue.serving
    if queue.paused or workers > queue.most_workers or workers > pressure.most_per_queue:
        return 0
    return quantum_units if workers > pressure.fewest else None
