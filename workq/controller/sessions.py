"""Sessions that end with their worker: what it held is gone, so nothing of them runs elsewhere. Controller's thread, with the lead."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from workq.core.events import WorkTaken
from workq.core.states import UnitState
from workq.errors import SessionLost
from workq.outcome import Ended

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Queue
    from workq.errors import Halt
    from workq.unit import Unit


LAST_UNIT_S = 1.0  # the unit that has met a set-up which fails needs not so long to say so


class Sessions:
    """The sessions of one controller."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def lose(self, queue: Queue, halt: Halt | None) -> None:
        """The worker of a session has ended, or is unfit: fail what waits, and close it before anybody can start another."""
        if queue.lost_by is not None or queue.closed:
            return
        queue.lost_by = why(queue, halt), halt
        queue.closed = True
        queue.why_deleted = queue.lost_by[0]
        with self._loop.dispatcher.lock:
            for worker in queue.workers:
                self._loop.dispatcher.recall(worker)
        with queue.in_hand():
            for unit in self._loop.dispatcher.drop_all(queue):
                self.fail(unit)
        if halt is not None:
            self._loop.withdrawals.delete_queue(queue)
        else:  # the unit that met the set-up is about to end with its own error: it must not be cancelled meanwhile
            self._loop.told(queue, 0)
            self._loop.tell(WorkTaken(queue.number))
            self._loop.alarms.set(self._loop.clock() + LAST_UNIT_S, partial(self._loop.command, self._loop.withdrawals.delete_queue, queue))

    def fail(self, unit: Unit[Any]) -> None:
        """End a unit of a session that is lost."""
        unit.call.queue.lost += 1
        self._loop.ends.settle(unit, lost(unit.call.queue))


def why(queue: Queue, halt: Halt | None) -> str:
    """Return what a session was lost by."""
    how = f"its worker has ended, and what it held is gone: {halt}" if halt is not None else "its set-up did not succeed"
    return f"session {queue.name} is lost: {how}"


def lost(queue: Queue) -> Ended:
    """Return the end of a unit of a session that is lost."""
    assert queue.lost_by is not None
    return Ended(UnitState.LOST, SessionLost(*queue.lost_by))
