"""Workers that are worn: when each is to be replaced, by the units it was given, its age and its memory. What follows, the core decides.

Belongs to the controller's thread, but for a worker's ``quota``, which belongs to the dispatch lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workq.core.events import Event, WorkerWorn
from workq.core.recycling import draw
from workq.process import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workq.category import Category
    from workq.controller.loop import Loop
    from workq.controller.records import Queue, Worker
    from workq.core.ids import WorkerId

MEBIBYTE = 1 << 20


def wear_out(loop: Loop, worker: Worker, category: Category) -> None:
    """Draw the limits of a new worker."""
    if category.max_units is None and category.max_age_s is None and category.max_memory_mb is None:
        return
    memory_bytes = None if category.max_memory_mb is None else int(category.max_memory_mb * MEBIBYTE)
    worker.wear = draw(category.max_units, category.max_age_s, memory_bytes, loop.random())
    worker.quota = worker.wear.units


def exempt(worker: Worker) -> None:
    """It belongs to a session now: what it holds cannot be replaced."""
    worker.wear = worker.quota = None


def of_worker(worker: Worker, number: WorkerId) -> Iterator[Event]:
    """Yield that a worker is to be replaced for the units that it was given. In `facts.gather`."""
    quota, wear = worker.quota, worker.wear
    if quota == 0 and not worker.told_spent:
        worker.told_spent = worker.told_worn = True
        yield WorkerWorn(number, spent=True)
    elif not worker.told_worn and wear is not None and wear.units is not None and quota is not None:
        if wear.is_worn(units=wear.units - quota, age_s=0.0, memory_bytes=0):
            worker.told_worn = True
            yield WorkerWorn(number)


class Recycler:
    """Looks at the age and the memory of workers that have limits for them."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.next_look: float | None = None

    def watch(self, worker: Worker, queue: Queue, now: float) -> None:
        """A worker was given a queue: look at it from now on."""
        if queue.session:
            exempt(worker)
        if worker.wear is not None and not worker.told_worn:
            due = worker.ready_at + worker.wear.age_s if worker.wear.age_s is not None else now + self._loop.settings.memory_look_s
            if worker.wear.memory_bytes is not None:
                due = min(due, now + self._loop.settings.memory_look_s)
            self._look_by(due)

    def look(self, now: float) -> None:
        """Look at all workers, if it is time."""
        if self.next_look is None or now < self.next_look:
            return
        self.next_look = None
        for worker in self._loop.dispatcher.workers:
            if worker.wear is not None and worker.ready and not worker.told_worn and not worker.exited:
                self._look_at(worker, now)

    def _look_at(self, worker: Worker, now: float) -> None:
        wear, memory_bytes = worker.wear, 0
        assert wear is not None
        if wear.memory_bytes is not None and (worker.queue is not None or worker.units_done != worker.units_seen):
            worker.units_seen = worker.units_done
            memory_bytes = probe.tree_rss_bytes(worker.pid)
            if worker.queue is not None:
                self._look_by(now + self._loop.settings.memory_look_s)
        if not wear.is_worn(units=0, age_s=now - worker.ready_at, memory_bytes=memory_bytes):
            if wear.age_s is not None:
                self._look_by(worker.ready_at + wear.age_s)
        elif worker.units_done:
            worker.told_worn = True
            self._loop.tell(WorkerWorn(worker.number))
        elif worker.queue is not None:  # a limit that is shorter than what it takes to begin must not keep everything from beginning
            self._look_by(now + self._loop.settings.memory_look_s)

    def _look_by(self, due: float) -> None:
        if self.next_look is None or due < self.next_look:
            self.next_look = due
