"""The work queue inside a unit: its units run in the parent's pool, and the unit that waits for them counts as blocked.

``WorkMgr`` uses this in a worker where it uses the ``Controller`` in a parent; both offer the same few methods. Requests go up the worker's
own socket, outcomes come down it, and whichever of the unit's threads waits reads them. Frames that are not for us are kept for the
worker's loop.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from marshal import dumps as marshal_dumps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from workq.category import Category, unknown_category, unpacked
from workq.config import DEFAULTS
from workq.controller.delivery import write_output
from workq.controller.records import Queue
from workq.core.states import UnitState
from workq.errors import CategoryError, WorkqError
from workq.errors import QueueClosed as QueueClosedError
from workq.hosts.children import OwnRuns
from workq.hosts.reading import Reading
from workq.outcome import PENDING, cancelled
from workq.transport.board import POOLS
from workq.transport.channel import UP_REQUEST
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.pools import CategoryTable
    from workq.seeing.statistics import Metrics, QueueStatistics, WorkerTable
    from workq.worker.main import Worker as Side

logger = logging.getLogger("workq")


class NestedController(Reading):
    """What a ``WorkMgr`` in a unit holds for a controller. One for each worker process."""

    inline = False
    _of_process: tuple[int, NestedController] | None = None

    def __init__(self, side: Side) -> None:
        self._side = side
        self._pid = os.getpid()
        self.closed = False
        self.draining = False  # what a unit has made ends with the unit
        self.settings = DEFAULTS
        self.call_numbers = count(1)
        self.delivery = self
        self.loop = self
        self._open: dict[tuple[int, int], Unit[Any]] = {}
        self._sent_calls: set[int] = set()
        self._opened: set[int] = set()  # the numbers of queues that the parent was told of
        self._sending = threading.RLock()  # a function goes before the first unit that names it, whichever threads queue
        self._answers: set[int] = set()  # of the questions that the parent has answered
        self._questions = count(1)
        self._leaving: dict[int, Queue] = {}  # by question: queues that are deleted, and of which units may still run
        self._stillness: dict[int, int] = {}  # by queue: the question that the parent answers when no unit of it runs
        self._reads_along = False  # a thread reads the outcomes, as somebody waits who does not
        self._pools_version, rows = side.pools
        self._pools = unpacked(rows)
        self.dispatcher = SimpleNamespace(lock=threading.RLock())
        self._crowded: list[Any] = []
        self._own_runs = OwnRuns(self, side)
        side.on_reply = self._take

    @classmethod
    def here(cls, side: Any) -> NestedController:
        """Return the one of this worker."""
        if cls._of_process is None or cls._of_process[0] != os.getpid():
            cls._of_process = os.getpid(), cls(side)
        return cls._of_process[1]

    # ------------------------------------------------------------ what WorkMgr and Unit ask of a controller

    @property
    def forked(self) -> bool:
        """True in a child that the unit has forked."""
        return os.getpid() != self._pid

    def check_usable(self) -> None:
        """Raise in a child that the unit has forked."""
        if self.forked:
            raise QueueClosedError("this queue belongs to the unit that this process was forked from; make a new WorkMgr")

    @property
    def own_category(self) -> str:
        """The category that queues of units draw from: that of their worker."""
        category: str = self._side.category
        return category

    def category(self, name: str) -> Category:
        """Return a category's limits, as they are now."""
        pools = self.pools
        try:
            return pools[name]
        except (KeyError, TypeError):
            raise unknown_category(name, list(pools)) from None

    @property
    def pools(self) -> dict[str, Category]:
        """The categories: asked for anew where the board shows that they have changed."""
        version = self._side.words[POOLS]
        if version != self._pools_version:
            self.request("pools", 0)
            self.wait(lambda: self._pools_version >= version, None, "the categories have not been told")
        return self._pools

    def pools_as_known(self) -> dict[str, Category]:
        """The categories as they were told last."""
        return self._pools

    @property
    def categories(self) -> CategoryTable:
        """The categories, to be read."""
        from workq.controller.pools import CategoryTable

        return CategoryTable(self)

    def add_category(self, category: Category, *, new: bool = False) -> None:
        """Refuse: one unit does not change the pools of all."""
        raise CategoryError("categories are made, changed and deleted in the process that runs the workers, not in a unit")

    def change_category(self, name: str, limits: dict[str, Any]) -> Category:
        """Refuse as well."""
        raise CategoryError("categories are made, changed and deleted in the process that runs the workers, not in a unit")

    def delete_category(self, name: str) -> None:
        """Refuse as well."""
        raise CategoryError("categories are made, changed and deleted in the process that runs the workers, not in a unit")

    def population(self) -> tuple[dict[str, int], dict[str, int]]:
        """The parent alone can see its workers."""
        return {}, {}

    def change_workers(self, queue: Queue, max_workers: int) -> None:
        """Have the parent change how many workers serve a queue."""
        queue.max_workers = max_workers
        if queue.number in self._opened:
            self.request("resize", queue.number, max_workers)

    def pending_of(self, queue: Queue) -> int:
        """Return how many units wait: the parent alone knows which have begun, so those that its workers may run at once are left out."""
        return max(0, queue.depth() + queue.retrying - queue.max_workers)

    def crowded(self) -> list[Any]:
        """Whoever waits for room reads outcomes."""
        return self._crowded

    def drop_oldest(self, queue: Queue, why: str) -> bool:
        """Have the parent drop the unit that has waited longest. Return False: there is room once its end is told."""
        self.request("drop_oldest", queue.number, why)
        return False

    def running(self) -> NestedController:
        """Return the acting part: ourselves."""
        return self

    def adopt(self, queue: Queue) -> None:
        """The parent is told of a queue at its first unit."""

    def open_queue(self, queue: Queue) -> None:
        """Have the parent make the queue."""
        with self._whole():
            if queue.number not in self._opened:  # two threads may come here at once
                self._opened.add(queue.number)
                outfit = queue.outfit.plain() if queue.outfit is not None else None
                self.request(
                    "open", queue.number, queue.name, queue.category, queue.max_workers, queue.delete_timeout_s, outfit, queue.session
                )

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Around what must not be cut in two: no other thread comes between, and an interrupt strikes afterwards."""
        shielded = threading.get_ident() == self._side.main_thread
        number = self._side.interrupts.shield() if shielded else 0
        try:
            with self._sending:
                yield
        finally:
            if shielded:
                self._side.interrupts.unshield(number)

    def look_at(self, queue: Queue) -> None:
        """Send what was queued."""
        with self._whole():
            self._send_backlog(queue)

    def _send_backlog(self, queue: Queue) -> None:
        units, calls = [], []
        while queue.pending or queue.ranked:
            backlog = queue.front()
            try:
                unit = backlog.popleft()
            except IndexError:
                break
            call = unit.call
            if call.number not in self._sent_calls:
                self._sent_calls.add(call.number)
                calls.append((call.number, call.pickled, call.keywords, call.name, call.options.plain()))
            self._open[queue.number, unit.id] = unit
            queue.retrying += 1  # counts what is open
            units.append((unit.id, call.number, unit.data, unit.queued_ns))  # never in a segment: there is no pool of them here
        if units:
            self.request("units", queue.number, calls, units)

    def open_units(self, queue: Queue) -> tuple[list[Unit[Any]], list[Unit[Any]]]:
        """Return a queue's open units; which of them run only the parent knows."""
        return [unit for (number, _), unit in list(self._open.items()) if number == queue.number], []

    def watch_queue_time(self, unit: Unit[Any]) -> None:
        """The parent does."""

    def close_queue(self, queue: Queue) -> None:
        """Delete the queue in the parent; its open units are cancelled here at once."""
        if self.forked:
            return
        queue.closed = True
        runs = bool(self.running_units(queue))
        if queue.number in self._opened:
            self._opened.discard(queue.number)
            question = next(self._questions) if runs else 0
            if runs:
                self._leaving[question] = queue
            self.request("close", queue.number, question)
        queue.gone = not runs
        for key in [key for key in list(self._open) if key[0] == queue.number]:
            unit = self._open.pop(key, None)
            if unit is None:  # it has ended just now
                continue
            queue.retrying -= 1
            queue.cancelled += 1
            self._settle(unit, cancelled(unit, "its queue was deleted"))
        self._own_runs.forget(queue)

    def tear_down(self, queue: Queue) -> None:
        """Do what the queue wants done last, where this very worker has run units of it."""
        self._own_runs.tear_down(queue)

    def tell_unasked(self, queue: Queue, warn: Callable[[str], object]) -> None:
        """The unit that made the queue has seen to its units, or is told of by its own end."""

    def pause_queue(self, queue: Queue, paused: bool) -> None:
        """Have the parent give no unit of a queue to a worker, or give them again."""
        queue.paused = paused
        self.open_queue(queue)  # the parent has to know it
        self._answers.discard(self._stillness.pop(queue.number, 0))
        question = self._stillness[queue.number] = next(self._questions)
        self.request("pause", queue.number, paused, question)

    def drop_waiting(self, queue: Queue, why: str, last: int) -> None:
        """Have the parent cancel the units of a queue that have not begun, up to a number; done when it returns."""
        question = next(self._questions)
        self.request("drop", queue.number, why, last, question)
        self.wait(lambda: question in self._answers, None, "")
        self._answers.discard(question)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Ask the parent to cancel a unit if it has not begun. Returns at once."""
        if unit.value is PENDING and not self.forked:
            self.request("unbegun", unit.call.queue.number, unit.id)

    def stop_running(self, queue: Queue, why: str, last: int) -> None:
        """Have the parent stop the units of a queue that run, up to a number. Returns at once."""
        self.request("stop", queue.number, why, last)

    def running_units(self, queue: Queue) -> list[Unit[Any]]:
        """Return the units that the parent has not told the end of."""
        return [unit for (number, _), unit in list(self._open.items()) if number == queue.number]

    def is_still(self, queue: Queue) -> bool:
        """Return whether the parent has said that no unit of a queue runs, since it was paused."""
        return not queue.opened or queue.closed or self._stillness.get(queue.number) in self._answers

    def break_off(self, queue: Queue) -> None:
        """A unit that interrupts itself ends by it, and its queues with it."""

    def cancel(self, unit: Unit[Any]) -> bool:
        """Ask the parent that a unit ends."""
        if unit.value is not PENDING:
            return unit.cancelled()
        self.request("cancel", unit.call.queue.number, unit.id)
        return True

    def state_of(self, unit: Unit[Any]) -> UnitState:
        """Return the state of an open unit, as far as it is known here."""
        return UnitState.QUEUED

    def worker_of(self, unit: Unit[Any]) -> None:
        """None that is known here."""

    def progress_of(self, unit: Unit[Any]) -> None:
        """The parent alone can see it."""

    def statistics(self, queue: Queue) -> QueueStatistics:
        """Return a queue's counters, as far as they are known here."""
        from workq.controller.seeing import queue_statistics

        return queue_statistics(queue)

    def workers(self) -> WorkerTable:
        """The parent alone can see its workers."""
        from workq.seeing.statistics import WorkerTable

        return WorkerTable(())

    def metrics(self) -> Metrics:
        """The parent alone has them."""
        raise WorkqError("metrics are kept by the process that runs the workers, and not in a unit: ask there")

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Deliver a callback: at once, in the thread that reads."""
        function(*arguments)

    def drain(self, timeout_s: float) -> bool:
        """Nothing is ever left to deliver."""
        return True

    def emit(self, queue: Queue) -> None:
        """Write the output of units that have ended: it becomes the waiting unit's own."""
        while queue.outputs:
            write_output(queue.outputs.popleft())

    def request(self, *what: Any) -> None:
        """Ask the parent for something."""
        self._side.say(UP_REQUEST, marshal_dumps(what))


__all__ = ["NestedController"]
