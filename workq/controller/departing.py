"""Queues that go: what is called when one is fully gone, and those that nobody can reach any more.

The rows belong to the controller's thread. A queue is fully gone when it is deleted and no worker runs a unit of it. It is inactive when
it is open and nobody can use it: its ``WorkMgr`` is gone without a word (whatever interrupted the finalizer), or it was detached and
nobody has attached it in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workq.controller.exiting import log_warning
from workq.controller.records import Queue

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.hosting import Hosting
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")

UNREACHABLE = "nobody could use it any more: its WorkMgr was gone"


class Departures:
    """The queues of one controller that are on their way out. Belongs to the controller's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._leaving: list[Queue] = []
        self._look_due = 0.0

    def add(self, queue: Queue) -> None:
        """A queue was deleted that has somebody to be called."""
        self._leaving.append(queue)

    def see_off(self) -> None:
        """Have those called whose queues are fully gone."""
        if not self._leaving:
            return
        gone = [queue for queue in self._leaving if not any(worker.holds_pending() for worker in queue.workers)]
        self._leaving = [queue for queue in self._leaving if queue not in gone]
        for queue in gone:
            call_cleanups(self._loop.controller, queue)

    def see_off_all(self) -> None:
        """The controller ends: nothing runs any more."""
        queues = [*self._leaving, *self._loop.controller.every_queue()]
        self._leaving = []
        for queue in queues:
            call_cleanups(self._loop.controller, queue)

    def look_for_inactive(self, now: float) -> None:
        """Delete the queues that nobody can reach any more. Looks now and then."""
        if now < self._look_due:
            return
        self._look_due = now + self._loop.settings.inactive_check_s
        for queue in self._loop.controller.every_queue():
            if queue.holder is not None and queue.holder() is None and not queue.closed and not queue.detached:
                delete_inactive(self._loop.controller, queue, UNREACHABLE)


def delete_inactive(controller: Controller, queue: Queue, why: str) -> None:
    """Delete a queue that nobody can use, and say so. Any thread; takes no lock."""
    queue.why_deleted = why
    controller.tallies.count(queue.category, "inactive_queues")
    logger.warning("queue %s is deleted, with %d units that have not ended: %s", queue.name, queue.open_units(), why)
    queue.controller.close_queue(queue)


def call_cleanups(controller: Hosting, queue: Queue) -> None:
    """Have the application called, once, as a queue is gone: in the delivery thread, or here where that has ended."""
    if not queue.cleanups:
        return
    cleanups, queue.cleanups = queue.cleanups, []
    last: list[tuple[Callable[..., object], tuple[Any, ...]]] = [(queue.emit, ()), (controller.tell_unasked, (queue, log_warning))]
    for function, arguments in (*last, *cleanups):
        controller.delivery.call_surely(function, *arguments)
