"""What a test has made and not ended: queues, executors, controllers, and so worker processes."""

from __future__ import annotations

import gc

from workq.controller.controller import Controller
from workq.controller.exiting import counted, living
from workq.controller.records import Queue


class Leftovers:
    """Looks for what has been made since it was: queues that are open, controllers that are.

    >>> from workq import WorkMgr
    >>> from workq.testing import Leftovers
    >>> leftovers = Leftovers()
    >>> wq = WorkMgr(1, name="mine")
    >>> wq.queue(abs, -1).result()
    1
    >>> leftovers.found()
    ['queue mine was not closed (1 worker, 0 units open)']
    >>> leftovers.end()
    >>> leftovers.found()
    []
    """

    def __init__(self) -> None:
        self._before = {controller: set(controller.queues) for controller in living()}

    def found(self) -> list[str]:
        """Return a line for each. What nobody holds any more is deleted, and so is not found."""
        gc.collect()
        lines = [self._line(queue) for controller in living() for queue in self._open_queues(controller)]
        return lines + [
            f"controller {one.name} was not closed ({_workers(one)})" for one in self._new_controllers() if not _is_default(one)
        ]

    def end(self) -> None:
        """Close all of it, and the default controller too if it is new: its idle workers would stay for a while."""
        for controller in living():
            for queue in self._open_queues(controller):
                controller.close_queue(queue)
        for controller in self._new_controllers():
            controller.close()

    def _new_controllers(self) -> list[Controller]:
        return [one for one in living() if one not in self._before and not one.closed and not one.forked]

    def _open_queues(self, controller: Controller) -> list[Queue]:
        before = self._before.get(controller, ())
        rows = list(controller.queues.items())
        return [queue for number, queue in rows if number not in before and not queue.closed and queue.owner is None]

    def _line(self, queue: Queue) -> str:
        return f"queue {queue.name} was not closed ({counted(len(queue.workers), 'worker')}, {counted(queue.open_units(), 'unit')} open)"


def _workers(controller: Controller) -> str:
    return counted(len(controller.workers()), "worker")


def _is_default(controller: Controller) -> bool:
    return controller is Controller._default
