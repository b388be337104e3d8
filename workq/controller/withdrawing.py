"""Units are withdrawn: one, all that wait, all that run, or all of a queue that is deleted. In the controller's thread, with the lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workq.controller.records import NEVER, Queue
from workq.core.events import QueueClosed
from workq.outcome import PENDING, cancelled
from workq.transport.board import STARTED
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop


class Withdrawals:
    """What the application, and the units that own queues, order about units that have not ended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._dispatcher = loop.dispatcher

    def stop_unit(self, unit: Unit[Any]) -> None:
        """A unit was cancelled that is in a worker's hands."""
        self._loop.stops.stop(unit, "it was asked to")

    def break_off(self, queue: Queue, unit: Unit[Any] | None, kill: bool, last: int) -> None:
        """Cancel a unit, or all of a queue's that are open, up to a number; kill those that were asked to end before, or all."""
        for one in queue.open_list() if unit is None else (unit,):
            if one.value is PENDING and one.id <= last:
                again = one.extra is not None and one.extra.stopping is not None
                self._loop.stops.stop(one, "somebody pressed Ctrl-C")
                if kill or again:
                    self._loop.stops.kill_now(one, "was to end at once")

    def delete_queue(self, queue: Queue) -> None:
        """Drop what waits, stop what runs, and tell the core."""
        queue.closed = True
        for one in tuple(queue.recurring):
            one.stop()
        self.drop_waiting(queue, queue.why_deleted)
        with self._dispatcher.lock:
            self._dispatcher.forget(queue)
        self.stop_running(queue, queue.why_deleted)
        self._loop.nested.children.forget(queue)
        if queue.cleanups:
            self._loop.departures.add(queue)
        if queue.opened and not queue.gone:
            queue.gone = True
            self._loop.believed_waiting.discard(queue)
            self._loop.begin_look(queue)
            self._loop.tell_in_turn(QueueClosed(queue.number))
        self._loop.lead.wake_ready()

    def drop_waiting(self, queue: Queue, why: str, last: int = NEVER, spared: int = 0) -> None:
        """Cancel the units of a queue that have not begun, of the numbers above ``spared``, up to ``last``. With the lead."""
        with queue.in_hand():
            with self._dispatcher.lock:
                for worker in queue.workers:
                    if not worker.limited:
                        self._dispatcher.recall(worker)
                dropped = self._dispatcher.drop_all(queue)
                self._dispatcher.put_back(queue, [unit for unit in dropped if not spared < unit.id <= last])
            for unit in dropped:
                if not spared < unit.id <= last:
                    continue
                queue.cancelled += 1
                self._loop.ends.settle(unit, cancelled(unit, why))
        self._loop.attention.add(queue)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Cancel a unit if it has not begun. With the lead."""
        queue = unit.call.queue
        with self._dispatcher.lock:
            place = self._dispatcher.find(unit)
            if place is not None and place[1] > place[0].words[STARTED]:
                self._dispatcher.recall(place[0])
            waits = self._dispatcher.waits(unit)
        if waits:
            queue.unusual = True
            queue.cancelled += 1
            self._loop.ends.settle(unit, cancelled(unit, "before it had begun"))
            with self._dispatcher.lock:
                self._dispatcher.trim(queue)
        self._loop.attention.add(queue)
        self._loop.lead.wake_ready()

    def stop_running(self, queue: Queue, why: str, last: int = NEVER) -> None:
        """Stop the units of a queue that have begun, up to a number. With the lead."""
        for worker in list(queue.workers):
            for batch in list(worker.batches):
                for unit in batch.units[batch.at :]:
                    if unit is not None and unit.value is PENDING and unit.id <= last:
                        self._loop.stops.stop(unit, why)
        for unit in self._loop.nested.children.of_queue(queue):
            if unit.id <= last:
                self._loop.stops.stop(unit, why)

    def fail_everything(self, why: str) -> None:
        """Nothing stays open: P1."""
        for queue in self._loop.controller.every_queue():
            queue.closed = True
            with queue.in_hand():
                for unit in self._dispatcher.drop_all(queue):
                    self._loop.ends.settle(unit, cancelled(unit, why))
            for worker in queue.workers:
                for batch in (*worker.batches, *([worker.forming] if worker.forming else [])):
                    for unit in batch.units[batch.at :]:
                        if unit is not None:
                            self._loop.ends.settle(unit, cancelled(unit, why))
                worker.batches.clear()
                worker.forming = None
            for unit in self._loop.nested.children.of_queue(queue):
                self._loop.ends.settle(unit, cancelled(unit, why))
        self._loop.lead.wake_ready()


__all__ = ["Withdrawals"]
