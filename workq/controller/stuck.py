"""Units that wait for each other's workers, where hard limits (``max_total_workers``) leave no other: this can never end by itself.

A unit that waits for units of its own category runs them itself (children.py), so only two ways lead here: units whose queues draw from
each other's categories, and waits in which no units are run, as `concurrent.futures.wait` and ``await``. Looked for with each heartbeat,
and believed where nothing has changed since the one before. Belongs to the controller's thread.

Where each waits for its units in its main thread, for as long as it takes, one of them is told so by `WaitError`, and its worker comes
free. Else it is logged: somebody may have a time-out of his own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from workq.controller import facts
from workq.core.circles import find_circle
from workq.transport.board import STARTED, WAIT_NUMBER

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Queue, Worker

logger = logging.getLogger("workq")

State = frozenset[tuple[int, int, int]]  # of each worker: its number, its unit's there, and that of its wait


class Stuck:
    """What was found at the last look."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._before: State = frozenset()
        self._told: State = frozenset()

    def look(self) -> None:
        """Look whether any units wait for each other's workers, and see to those that have done so since the last look."""
        found = self._find()
        state = frozenset((int(worker.number), int(worker.words[STARTED]), int(worker.words[WAIT_NUMBER])) for worker in found)
        if state and state == self._before and state != self._told:
            self._told = state
            self._tell([worker for worker in found if self._stands_in_a_circle(worker, found)])
        self._before = state

    # ------------------------------------------------------------ finding

    def _find(self) -> dict[Worker, list[Queue]]:
        """Return the workers that can never go on, and the queues for whose units each waits."""
        waits = {worker: queues for worker in self._loop.dispatcher.workers if (queues := self._waited_for(worker))}
        while free := [worker for worker, queues in waits.items() if any(self._can_go_on(worker, queue, waits) for queue in queues)]:
            for worker in free:
                del waits[worker]
        return waits

    def _waited_for(self, worker: Worker) -> list[Queue]:
        """Return the queues for whose units the unit of a worker waits; none where it is not blocked, or the category has no hard limit."""
        limits = self._loop.controller.pools.get(worker.category)
        if limits is None or limits.max_total_workers is None or worker.exited or not worker.batches or not facts.blocked_now(worker):
            return []
        if worker.own and not worker.own[-1].begun_ns:  # it was given one of them to run, and is about to begin it
            return []
        return self._loop.nested.waited_for(worker)

    def _can_go_on(self, worker: Worker, queue: Queue, waits: dict[Worker, list[Queue]]) -> bool:
        """Return whether units of a queue run, or will, as long as these workers alone never come free."""
        loop = self._loop
        if queue.paused or queue.resting or loop.nested.children.has_offer(queue):
            return True
        if queue.category == worker.category and worker.words[WAIT_NUMBER] & 1:
            return True  # it runs them itself, or is about to say that it would
        runs = [one for one in queue.workers if one.batches]
        if runs or not queue.depth():
            return not runs or any(one not in waits for one in runs)
        limits = loop.controller.pools.get(queue.category)
        if limits is None or limits.max_total_workers is None:
            return True
        there = [one for one in loop.dispatcher.workers if one.category == queue.category]
        return len(there) < limits.max_total_workers or any(one not in waits for one in there)

    def _stands_in_a_circle(self, worker: Worker, found: dict[Worker, list[Queue]]) -> bool:
        """Return whether others wait for a worker's category, and it for theirs; who only waits behind such a circle is let alone."""
        categories: dict[str, set[str]] = {}
        for one, queues in found.items():
            categories.setdefault(one.category, set()).update(queue.category for queue in queues)
        return bool(find_circle(worker.category, lambda category: sorted(categories.get(category, ()))))

    # ------------------------------------------------------------ telling

    def _tell(self, circle: list[Worker]) -> None:
        running = {worker: one for worker in circle if (one := self._loop.dispatcher.running(worker)) is not None}
        if not running:
            return
        names = "; ".join(f"unit {unit.label} in {worker.name}" for worker, (unit, _) in running.items())
        limits = ", ".join(sorted({f"{worker.category!r}" for worker in circle}))
        why = f"all workers of category {limits} (max_total_workers) wait for units that need one of these workers: {names}"
        if all(worker.words[WAIT_NUMBER] & 1 for worker in circle) and not any(map(self._ends_by_itself, circle)):
            youngest = max(running, key=lambda worker: running[worker][1])
            self._loop.locks.end_wait(youngest, f"{why}: this can never end")
        else:
            logger.warning("%s; unless one of them ceases to wait this never ends", why)

    def _ends_by_itself(self, worker: Worker) -> bool:
        """Return whether a unit that is waited for may have a limit for its time in the queue."""
        waited_for = self._loop.nested.waited_for(worker)
        return any(unit.call.options.queue_timeout is not None for queue in waited_for for unit in queue.open_list())


__all__ = ["Stuck"]
