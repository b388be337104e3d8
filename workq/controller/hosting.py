"""Hosting: what the rooms of a WorkMgr, its intake and its units ask of a controller. Those in ``workq.hosts`` offer the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workq.controller.exiting import counted
from workq.core.states import UnitState
from workq.errors import QueueClosed as QueueClosedError
from workq.errors import not_in_time, shortened
from workq.outcome import PENDING, cancelled
from workq.transport.board import STARTED
from workq.unit import Unit

if TYPE_CHECKING:
    import weakref

    from workq.category import Category
    from workq.controller.claims import ApplicationClaims
    from workq.controller.delivery import Delivery
    from workq.controller.gate import Gate
    from workq.controller.loop import Loop
    from workq.controller.records import Queue, Worker
    from workq.controller.tallies import Tallies
    from workq.core.ids import QueueId

PERFORMED_S = 10.0  # what the controller's thread is asked for is done by then, however busy the machine is


class Hosting:
    """The part of a controller that is asked by other rooms, about queues and units, by any thread. What it needs is the controller's."""

    if TYPE_CHECKING:
        name: str
        adopted: bool
        loop: Loop | None
        forked: bool
        closed: bool
        closers: list[tuple[int, int]]
        queues: weakref.WeakValueDictionary[QueueId, Queue]
        made: weakref.WeakValueDictionary[QueueId, Queue]
        tallies: Tallies
        claims: ApplicationClaims
        delivery: Delivery
        _opening: Any

        def running(self) -> Loop: ...
        def check_usable(self) -> None: ...
        def category(self, name: str) -> Category: ...

    def every_queue(self) -> list[Queue]:
        """Return the queues that are known now. No loop runs over the table itself: any thread may open a queue meanwhile."""
        return [queue for reference in self.queues.valuerefs() if (queue := reference()) is not None]

    def adopt(self, queue: Queue) -> None:
        """Know of a queue that was just made, so that its category is not deleted under it. The core hears of it at its first unit."""
        with self._opening:
            self.category(queue.category)
            self.made[queue.number] = queue
            self.adopted = True

    def open_queue(self, queue: Queue) -> None:
        """Make a queue known to the core, at its first unit."""
        loop = self.running()  # before all that can wait: with the first queue the launcher is made
        from workq.core.events import QueueOpened

        self.tallies.add_up(loop.dispatcher.lone_times)
        loop.start()  # first, as it may fail
        with self._opening:  # the core never hears of a queue after its category was removed
            limits = self.category(queue.category)
            queue.max_workers = limits.clamp(queue.wanted_workers)  # they may have changed since it was made
            self.queues[queue.number] = queue
            tears_down = queue.outfit is not None and queue.outfit.tear_down is not None
            loop.tell(QueueOpened(queue.number, queue.category, queue.max_workers, session=queue.session, tears_down=tears_down))

    def resize_queue(self, queue: Queue, max_workers: int) -> None:
        """Have no more than so many workers serve a queue. Those that are too many end what they have begun, and leave."""
        loop = self.loop
        if queue.max_workers == max_workers or queue.closed:
            return
        if loop is None or not queue.opened:
            queue.max_workers = max_workers
            return
        with loop.dispatcher.lock:
            queue.max_workers = max_workers
            queue.told = 0
        from workq.core.events import QueueResized

        loop.tell(QueueResized(queue.number, max_workers))
        loop.look_at(queue)

    def change_workers(self, queue: Queue, max_workers: int) -> None:
        """The same, and it holds when this returns."""
        self.resize_queue(queue, max_workers)
        self._settle_changes()

    def _settle_changes(self) -> None:
        if self.loop is not None and not self.forked:
            self.loop.settle_changes()

    def open_units(self, queue: Queue) -> tuple[list[Unit[Any]], list[Unit[Any]]]:
        """Return a queue's units that run, and those that have not begun."""
        from workq.controller import draining

        return draining.open_units([queue])

    def watch_queue_time(self, unit: Unit[Any]) -> None:
        """Have a unit end that does not begin within its ``queue_timeout``."""
        self.running().queue_times.watch(unit)

    def pause_queue(self, queue: Queue, paused: bool) -> None:
        """Have workers take no new unit of a queue, what they have not begun included; or have them take units again."""
        queue.paused = paused
        if not queue.opened:
            return
        from workq.core.events import QueuePaused, QueueResumed

        loop = self.running()
        with loop.dispatcher.lock:
            queue.told = 0
        loop.tell(QueuePaused(queue.number) if paused else QueueResumed(queue.number))
        if paused:
            self._perform(loop.recalls.hold_back, queue)
        else:
            loop.look_at(queue)

    def drop_waiting(self, queue: Queue, why: str, last: int, spared: int = 0) -> None:
        """Cancel the units of a queue that have not begun, of the numbers above ``spared``, up to ``last``; done when it returns."""
        self._perform(self.running().withdrawals.drop_waiting, queue, why, last, spared)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Cancel a unit if it has not begun. Returns at once."""
        if self.loop is not None and not self.forked and not self.closed and unit.value is PENDING:
            self.loop.command(self.loop.withdrawals.drop_unbegun, unit)

    def stop_running(self, queue: Queue, why: str, last: int) -> None:
        """Interrupt the units of a queue that run, up to a number, and kill them after its delete timeout. Returns at once."""
        loop = self.running()
        loop.command(loop.withdrawals.stop_running, queue, why, last)

    def running_units(self, queue: Queue) -> list[Unit[Any]]:
        """Return the units of a queue that workers have begun, or are about to begin, or that wait for another try."""
        with self.running().dispatcher.lock:
            units = queue.open_list()
        return [unit for unit in units if unit.value is PENDING]

    def is_still(self, queue: Queue) -> bool:
        """Return whether no worker runs a unit of a queue."""
        return not any(worker.holds_pending() for worker in list(queue.workers))

    def _perform(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have something done in the controller's thread, with the lead, and wait until it is done: that takes microseconds."""
        loop = self.running()
        done: list[bool] = []

        def perform() -> None:
            function(*arguments)
            done.append(True)
            loop.lead.wake_ready()

        loop.command(perform)
        if loop.thread is not None:
            self.wait(lambda: bool(done), PERFORMED_S, f"the thread of controller {self.name} does not answer")

    def close_queue(self, queue: Queue) -> None:
        """Drop what waits and stop what runs; returns at once. May be called from a finalizer: it takes no lock."""
        queue.closed = True
        if self.forked:
            return
        ended = self.loop is None or self.loop.lead.closed  # and not only being closed: units may run still, and that may be broken off
        if queue.cleanups and (ended or not queue.opened):
            from workq.controller.departing import call_cleanups

            call_cleanups(self, queue)
        if self.loop is not None and not ended:
            self.loop.command(self.loop.withdrawals.delete_queue, queue)

    def may_wait_for_end(self) -> bool:
        """Return whether it has not ended, and this thread may wait for that: it is not the one that is bringing it about."""
        loop = self.loop
        if loop is None or loop.lead.closed or not loop.may_be_waited_for():
            return False
        return not any(thread == threading.get_ident() for thread, _ in self.closers[:1])

    def tell_unasked(self, queue: Queue, warn: Callable[[str], object]) -> None:
        """Say of a queue that ends how many of its units have failed unnoticed, and show the first."""
        failures = queue.unasked_failures() if queue.owner is None else []
        if failures:
            first = failures[0]
            shown = f"{type(first.value.exception()).__name__}: {first.value.exception()}".splitlines()[0]
            warn(f"{counted(len(failures), 'unit')} of queue {queue.name} failed, and nobody has asked; the first: {first.label}: {shown}")

    def pending_of(self, queue: Queue) -> int:
        """Return how many units of a queue wait, and are in no worker's hands."""
        return queue.depth()

    def waiting_of(self, queue: Queue) -> int:
        """Return the same without those that were cancelled there: looks at each, and has those swept out."""
        self.running().sweep_soon(queue)
        return queue.waiting()

    def crowded(self) -> list[Gate]:
        """Return where those stand who wait for room in a queue."""
        return self.running().crowded

    def drop_oldest(self, queue: Queue, why: str) -> bool:
        """Cancel the unit that has waited longest, of the lowest priority; return False where none waits."""
        loop = self.running()
        if loop.dispatcher.lock._is_owned():  # type: ignore[attr-defined]
            return False  # a signal handler, in the middle of a dispatch
        unit = None
        try:
            with loop.dispatcher.lock:
                unit = loop.dispatcher.oldest(queue)
                if unit is not None:
                    self._end_where_it_waits(unit, why)
        finally:  # also where an exception of a signal handler strikes
            if unit is not None and unit.value is not PENDING:
                loop.ends.after_end(unit)
        if unit is not None:
            loop.lead.wake_all()
        return unit is not None

    def cancel(self, unit: Unit[Any]) -> bool:
        """Ask that a unit ends; see ``Unit.cancel``."""
        loop = self.running()
        lock = loop.dispatcher.lock
        if not lock._is_owned():  # type: ignore[attr-defined]
            try:
                with lock:
                    if unit.value is not PENDING:
                        return unit.cancelled()
                    if loop.dispatcher.waits(unit):
                        self._end_where_it_waits(unit, "before it had begun")
            finally:  # also where an exception of a signal handler strikes
                if unit.value is not PENDING and unit.extra is not None:
                    loop.ends.after_end(unit)
            if unit.value is not PENDING:
                loop.lead.wake_all()
                return True
        loop.command(loop.withdrawals.stop_unit, unit)
        return True

    def _end_where_it_waits(self, unit: Unit[Any], why: str) -> None:
        """Cancel a unit that waits. It leaves its place after it has ended: its queue is not quiet before. Under the lock."""
        queue = unit.call.queue
        queue.unusual = True  # whoever sends what is left of it has the worker skip it
        unit.need_extra().end(unit, cancelled(unit, why))
        queue.cancelled += 1
        queue.ended.append(unit)
        queue.resting.pop(unit, None)
        self.running().dispatcher.trim(queue)

    def state_of(self, unit: Unit[Any]) -> UnitState:
        """Return the state of a unit that has not ended."""
        loop = self.loop
        if loop is None or self.forked:
            return UnitState.QUEUED
        return loop.dispatcher.state_of(unit)

    def wait_unit(self, unit: Unit[Any], timeout: float | None) -> None:
        """Wait until a unit has ended. Raises TimeoutError."""
        loop = self.loop
        try:
            if timeout is None and loop is not None and not self.forked and not self.claims.held and loop.lead.wait_lone(unit.done):
                return
            self._wait_and_write(unit, timeout)
        except KeyboardInterrupt as error:
            self.break_off(unit.call.queue, unit)
            raise shortened(error) from None

    def _wait_and_write(self, unit: Unit[Any], timeout: float | None) -> None:
        """Wait for a unit, and write meanwhile what units of its queue print."""
        queue, what = unit.call.queue, f"unit {unit.label} has not ended"
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while unit.value is PENDING:
            try:
                self.wait(lambda: unit.value is not PENDING or bool(queue.outputs), left, what, unit)
            except TimeoutError as error:
                if not str(error).startswith(what):
                    raise  # a signal handler's
                raise not_in_time(what, timeout) from None
            if unit.value is PENDING:
                queue.emit()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0 and unit.value is PENDING:
                    raise not_in_time(what, timeout)

    def worker_of(self, unit: Unit[Any]) -> Worker | None:
        """Return the worker that runs a unit now."""
        loop = self.loop
        place = loop.dispatcher.find(unit) if loop is not None and not self.forked else None
        return place[0] if place is not None and place[1] <= place[0].words[STARTED] else None

    def progress_of(self, unit: Unit[Any]) -> tuple[float | None, str] | None:
        """Return what a unit that has not ended has said of its progress."""
        place = self.loop.dispatcher.find(unit) if self.loop is not None and not self.forked else None
        return place[0].lane.board.progress(place[1]) if place is not None else None

    def waited_for_otherwise(self, unit: Unit[Any]) -> None:
        """The controller's thread reads for somebody who waits past us; where workers ring nobody, it looks now."""
        if self.loop is not None and not self.forked and self.loop.dispatcher.row.thread:
            self.loop.ring()

    called_back_later = waited_for_otherwise

    def break_off(self, queue: Queue, unit: Unit[Any] | None = None, *, kill: bool = False) -> None:
        """Somebody has pressed Ctrl-C while this was waited for: cancel the unit, or all open ones; at the second time kill them."""
        if self.loop is not None and not self.forked and not self.closed:
            last = unit.id if unit is not None else next(queue.ids)  # what is queued from now on has a higher number
            if unit is None:
                queue.broken_off = last
            self.loop.command(self.loop.withdrawals.break_off, queue, unit, kill, last)

    def wait(
        self,
        ready: Callable[[], bool],
        timeout: float | None,
        what: str,
        waits_for: Unit[Any] | Queue | None = None,
        runs: Queue | None = None,
    ) -> None:
        """Wait until `ready()`. Raises TimeoutError that says `what` after ``timeout`` seconds.

        ``waits_for``: what all has to end; the wait of a thread that holds locks may close a circle, and then raises WaitError.
        ``runs`` is for waits in units (`workq.hosts.nested`).
        """
        if timeout is None and waits_for is not None and self.claims.held and self.claims.holds_any():
            self.claims.wait_for(waits_for, ready, lambda ready: self.wait(ready, None, what))
            return
        if self.forked:
            self.check_usable()
        loop = self.loop
        if loop is None:
            raise QueueClosedError("nothing was queued, so nothing can be waited for")
        if threading.current_thread() is loop.thread:
            raise RuntimeError("the controller's own thread cannot wait")
        if not loop.lead.wait(ready, timeout):
            if timeout is None:
                raise QueueClosedError(f"{what}: the controller was closed meanwhile")
            raise not_in_time(what, timeout)

    def wake_waiters(self) -> None:
        """Have whoever waits look again."""
        if self.loop is not None and not self.forked:
            self.loop.lead.wake_all()


__all__ = ["Hosting"]
