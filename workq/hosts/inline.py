"""num_workers=0: no worker at all. Units run in the caller, inside result(), sync(), wait_one(), as_completed() and map.

``WorkMgr`` uses this where it uses the ``Controller`` otherwise; both offer the same few methods. Arguments, results and exceptions are
pickled as on the way to a worker and back, so that what works here works there. What only a process of its own gives is missing: a unit
that runs cannot be interrupted (neither by ``cancel()`` nor by its time-out), one that ends the process ends the caller, and of its output
only what its thread writes to ``sys.stdout`` and ``sys.stderr`` is caught.

One unit runs at a time, whichever threads wait. A unit may queue units on its own queue and wait for them: they run inside it.
"""

from __future__ import annotations

import logging
import threading
import time
from _random import Random  # `random` itself costs milliseconds to import
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from workq import context
from workq.config import Settings
from workq.controller import backlog as backlogs
from workq.controller.delivery import write_output
from workq.controller.records import NEVER, Queue
from workq.core.states import UnitState
from workq.errors import WaitError, not_in_time
from workq.hosts.running import Running
from workq.outcome import PENDING, cancelled
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.category import Category
    from workq.seeing.statistics import Metrics, QueueStatistics, WorkerTable

logger = logging.getLogger("workq")


class InlineController(Running):
    """What a ``WorkMgr`` without workers holds for a controller. One for each queue.

    ``_turn`` guards who runs; the queue's rows are its own. No user code runs under it.
    """

    inline = True

    def __init__(self, outer: Any) -> None:
        self.outer = outer  # the controller that the queue would have drawn its workers from
        self.call_numbers = count(1)
        self.delivery = self
        self.dispatcher = self.lead = self.loop = self
        self.lock = threading.RLock()
        self._turn = threading.Condition()
        self._crowded: list[Any] = []
        self._runner: int | None = None  # the thread that runs a unit
        self._running: list[Unit[Any]] = []  # the innermost one last
        self._infos: dict[int, context.UnitInfo] = {}  # of the running units
        self._queue: Queue | None = None
        self._is_set_up = False
        self._random = Random().random

    def adopt(self, queue: Queue) -> None:
        """Take a queue that was just made: it needs no opening."""
        self._queue = queue
        self.outer.adopt(queue)
        queue.opened = True
        queue.told = NEVER
        if hasattr(self.outer, "queues"):
            self.outer.queues[queue.number] = queue

    # ------------------------------------------------------------ what WorkMgr, Intake and Unit ask of a controller

    @property
    def closed(self) -> bool:
        """Whether the controller that stands behind it was closed."""
        return bool(self.outer.closed)

    @property
    def draining(self) -> bool:
        """Whether it is being shut down."""
        return bool(self.outer.draining)

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made it."""
        return bool(self.outer.forked)

    def check_usable(self) -> None:
        """Raise where the controller that stands behind it cannot be used."""
        self.outer.check_usable()

    @property
    def settings(self) -> Settings:
        """The settings of the controller that stands behind it."""
        return self.outer.settings  # type: ignore[no-any-return]

    def category(self, name: str) -> Category:
        """Return a category's limits."""
        return self.outer.category(name)  # type: ignore[no-any-return]

    @property
    def pools(self) -> dict[str, Category]:
        """The categories of the controller that stands behind it."""
        return self.outer.pools  # type: ignore[no-any-return]

    def pending_of(self, queue: Queue) -> int:
        """Return how many units wait."""
        if queue.ended_inside:
            with self._turn:
                self._sweep(queue)
        return queue.depth()

    @staticmethod
    def _sweep(queue: Queue) -> None:
        """Take out the units that were cancelled while they waited. In our turn."""
        queue.ended_inside = 0
        for backlog in (queue.pending, *queue.ranked.values()):
            backlogs.sweep(backlog)

    def crowded(self) -> list[Any]:
        """Whoever waits for room runs units."""
        return self._crowded

    def drop_oldest(self, queue: Queue, why: str) -> bool:
        """Drop the unit that has waited longest, of the lowest priority."""
        for _, backlog in sorted([*queue.ranked.items(), (0, queue.pending)], key=lambda item: item[0]):
            for unit in tuple(backlog):
                if unit.value is PENDING and self._cancel(unit, why):
                    return True
        return False

    def running(self) -> InlineController:
        """Return the acting part: ourselves."""
        return self

    def try_pump(self) -> None:
        """Nothing is ever there to read."""

    def look_at(self, queue: Queue) -> None:
        """Nobody has to be told: who waits looks."""

    def waited_for_otherwise(self, unit: Unit[Any]) -> None:
        """Whoever waits runs it."""
        self.wait_unit(unit, None)

    def begun(self) -> set[Unit[Any]]:
        """Return the units that run."""
        return {*self._running}

    def open_units(self, queue: Queue) -> tuple[list[Unit[Any]], list[Unit[Any]]]:
        """Return a queue's units that run, and those that have not begun."""
        return list(self._running), [unit for unit in queue.open_list() if unit not in self._running]

    def watch_queue_time(self, unit: Unit[Any]) -> None:
        """Nothing has to be done: the time is looked at when it is about to run."""

    def called_back_later(self, unit: Unit[Any]) -> None:
        """Whoever runs it calls back."""

    def close_queue(self, queue: Queue) -> None:
        """Drop what waits. What another thread runs ends by itself; ``WorkMgr.close`` waits for it."""
        queue.closed = queue.gone = True
        for unit in queue.open_list():
            self._cancel(unit, queue.why_deleted)
        queue.pending.clear()
        queue.ranked.clear()
        queue.resting.clear()
        self.wake_waiters()
        self._call_cleanups(queue)

    def _call_cleanups(self, queue: Queue) -> None:
        """Call the application, once, as a queue is fully gone: in the thread that closes it, or ends its last unit."""
        if queue.cleanups and queue.gone and not self._running:
            cleanups, queue.cleanups = queue.cleanups, []
            for function, arguments in cleanups:
                try:
                    function(*arguments)
                except Exception:
                    logger.exception("a callback raised: %r", function)

    def pause_queue(self, queue: Queue, paused: bool) -> None:
        """Have whoever waits run no unit, or run them again."""
        queue.paused = paused
        self.wake_waiters()

    def drop_waiting(self, queue: Queue, why: str, last: int) -> None:
        """Cancel the units that have not begun, up to a number."""
        for unit in queue.open_list():
            if unit.id <= last:
                self._cancel(unit, why)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Cancel a unit if it has not begun."""
        self._cancel(unit, "before it had begun")

    def stop_running(self, queue: Queue, why: str, last: int) -> None:
        """A unit that runs in another thread goes on: nothing can stop it."""

    def running_units(self, queue: Queue) -> list[Unit[Any]]:
        """Return the units that have begun, the innermost one last."""
        return list(self._running)

    def is_still(self, queue: Queue) -> bool:
        """Return whether no unit runs."""
        return not self._running

    def break_off(self, queue: Queue) -> None:
        """Ctrl-C was pressed while the whole queue was waited for: drop what waits. The unit that ran has ended by it."""
        for unit in queue.open_list():
            self._cancel(unit, "Ctrl-C was pressed")

    def tell_unasked(self, queue: Queue, warn: Callable[[str], object]) -> None:
        """Say of a queue that ends how many of its units have failed unnoticed, where the controller behind does."""
        self.outer.tell_unasked(queue, warn)

    def cancel(self, unit: Unit[Any]) -> bool:
        """Drop a unit that has not begun; one that runs goes on."""
        return self._cancel(unit, "before it had begun")

    def _cancel(self, unit: Unit[Any], why: str) -> bool:
        with self._turn:
            if unit.value is not PENDING or unit in self._running:
                return unit.cancelled()
            unit.need_extra().end(unit, cancelled(unit, why))
            queue = unit.call.queue
            queue.unusual = True
            queue.cancelled += 1
            queue.resting.pop(unit, None)
            queue.ended_inside += 1 - backlogs.trim(queue.backlog(unit.call.options.priority))
            if backlogs.is_worth_a_sweep(queue.ended_inside, queue.depth()):
                self._sweep(queue)
        self._tell_end(unit)
        return True

    def state_of(self, unit: Unit[Any]) -> UnitState:
        """Return the state of a unit that has not ended."""
        if unit in self._running:
            return UnitState.RUNNING
        return UnitState.RESTING if unit in unit.call.queue.resting else UnitState.QUEUED

    def worker_of(self, unit: Unit[Any]) -> None:
        """None that is known here."""

    def progress_of(self, unit: Unit[Any]) -> tuple[float | None, str] | None:
        """Return what a unit that runs has said of its progress."""
        info = self._infos.get(unit.id)
        return info.progress if info is not None else None

    def statistics(self, queue: Queue) -> QueueStatistics:
        """Return a queue's counters."""
        from workq.controller.seeing import queue_statistics

        return queue_statistics(queue)

    def workers(self) -> WorkerTable:
        """Return the workers of the controller behind: none of them is this queue's."""
        return self.outer.workers()  # type: ignore[no-any-return]

    def metrics(self) -> Metrics:
        """Return the counters of the controller behind."""
        return self.outer.metrics()  # type: ignore[no-any-return]

    @property
    def tallies(self) -> Any:
        """The counters of the controller behind; None inside a unit."""
        return getattr(self.outer, "tallies", None)

    def drain(self, timeout_s: float) -> bool:
        """Nothing is ever left to deliver."""
        return True

    def emit(self, queue: Queue) -> None:
        """Write what units that have ended have printed."""
        while queue.outputs and not queue.detached:
            unit = queue.outputs.popleft()
            if queue.output_to != "discard":
                write_output(unit)

    # ------------------------------------------------------------ waiting is running

    def wait_unit(self, unit: Unit[Any], timeout: float | None) -> None:
        """Run units until this one has ended."""
        self.wait(lambda: unit.value is not PENDING, timeout, f"unit {unit.label} has not ended")

    def wait(self, ready: Callable[[], bool], timeout: float | None, what: str, waits_for: object = None, runs: object = None) -> None:
        """Run units, in their order, until `ready()`. The time is looked at between two units: none is cut short.

        Raises:
            TimeoutError: It was not ready in time.
            WaitError: A unit waits for itself, or for the unit that waits for it.
            ForkedError: This process is a fork of the one that made the queue.
        """
        if self.forked:  # else its units would run in both processes
            self.check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._queue is not None and self._queue.detached:
            from workq.face.detaching import expire_all

            expire_all()
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise not_in_time(what, timeout)
            unit = self._next(ready, left)
            if unit is not None:
                self._run(unit)

    def _next(self, ready: Callable[[], bool], left: float | None) -> Unit[Any] | None:
        """Return the unit that this thread is to run; None where it had to wait for another thread's."""
        me = threading.get_ident()
        with self._turn:
            if ready():
                return None
            if self._runner not in (None, me):
                self._turn.wait(left)
                return None
            unit = self._first()
            if unit is None and self._runner == me and not (self._rests() or self._is_paused()):
                raise WaitError(f"unit {self._running[-1].label} waits for itself, or for a unit that waits for it: this can never end")
            if unit is None:
                self._turn.wait(
                    self._until_woken(left)
                )  # nothing to run, and not ready: another thread is just queueing, or telling an end
                return None
            unit.call.queue.retrying += 1  # counts as open
            self._runner = me
            self._running.append(unit)
            return unit

    def _first(self) -> Unit[Any] | None:
        queue = self._queue
        if queue is None or queue.paused:
            return None
        for unit in [unit for unit, due in queue.resting.items() if due <= time.monotonic()]:
            queue.backlog(unit.call.options.priority).appendleft(unit)
            del queue.resting[unit]
        while backlog := queue.front():
            try:
                unit = backlog.popleft()
            except IndexError:
                continue
            if unit.value is PENDING:
                return unit
        return None

    def _rests(self) -> bool:
        return self._queue is not None and bool(self._queue.resting)

    def _until_woken(self, left: float | None) -> float | None:
        """Return how long to wait at most: until a unit that rests is due, or the waiter's time is over."""
        if self._queue is None or not self._queue.resting:
            return left
        due = max(0.0, min(self._queue.resting.values()) - time.monotonic())
        return due if left is None else min(left, due)

    def _is_paused(self) -> bool:
        return self._queue is not None and self._queue.paused

    def wake_waiters(self) -> None:
        """Have whoever waits look again."""
        with self._turn:
            self._turn.notify_all()


__all__ = ["InlineController"]
