"""Controller: runs all pools of a process. The face for whoever wants several in one process, and the one made on first use."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from workq import context
from workq import unit as unit_module
from workq.category import STANDARD, Category, standard_categories, unknown_category
from workq.config import DEFAULTS, Settings
from workq.controller.claims import ApplicationClaims
from workq.controller.delivery import Delivery
from workq.controller.forking import wait_for_imports
from workq.controller.records import NEVER, Options, Queue, Worker
from workq.controller.tallies import Tallies
from workq.core.states import UnitState, WorkerState
from workq.errors import ArgumentError, CategoryError, ForkedError, WorkqError, not_in_time
from workq.errors import QueueClosed as QueueClosedError
from workq.given import environment
from workq.given.arguments import check_callable, check_seconds
from workq.transport import board
from workq.transport.board import POOLS, STARTED
from workq.transport.segments import Pool
from workq.unit import PENDING, Unit, cancelled

if TYPE_CHECKING:  # what a program needs that queues units is loaded with the first: the core, the loop, the engine
    from workq.controller.draining import Shutdown
    from workq.controller.gate import Gate
    from workq.controller.loop import Loop
    from workq.controller.pools import CategoryTable
    from workq.core.ids import QueueId
    from workq.engines.protocol import Engine
    from workq.errors import Halt
    from workq.seeing.locktable import LockTable
    from workq.seeing.statistics import Metrics, QueueStatistics, WorkerTable

logger = logging.getLogger("workq")

PERFORMED_S = 10.0  # what the controller's thread is asked for is done by then, however busy the machine is


class Controller:
    """Runs worker processes for any number of queues. Most programs never name it: ``WorkMgr`` uses a default one.

    It starts nothing until a unit is queued: then one thread, a small launcher process, and workers one by one. Every method may be
    called from any thread.

    Args:
        settings: Limits and time-outs, see ``workq.config.Settings``.
        start_method: How workers are made. ``"launcher"``: forked by a small process of workq's own; ``"fork"``: by a fork of the
            application; ``"spawn"``: each a new interpreter, which takes some ten times as long. Default: what the environment variable
            ``WORKQ_START_METHOD`` says, else ``"launcher"``.
        launcher_argv: A command to start the launcher with; its item ``"{command}"`` stands for the launcher's own,
            as in ``["nice", "-n5", "{command}"]``.
        name: Shown in the names of its threads.
        log_level: The level of logger ``"workq"``, here and in the workers, as ``"DEBUG"`` or a number. Default: what the environment
            variable ``WORKQ_LOG_LEVEL`` says, unless the program has set the logger's level itself.
        engine: For tests: makes what makes the workers, see ``workq.engines.protocol.Engine``; it gets the two bells.
        threaded: For tests: False starts no thread; ``running().turn([])`` takes one turn of the controller's.
        clock: For tests with ``threaded=False``: what time it is, seconds, as by ``workq.testing.ManualClock.monotonic``.

    >>> from workq import Controller, WorkMgr
    >>> with Controller() as controller:
    ...     with WorkMgr(1, controller=controller) as wq:
    ...         wq.queue(len, "four").result()
    4
    """

    inline = False  # units run in workers, and not in whoever waits for them (as in workq/hosts/inline.py)
    _default: Controller | None = None
    _default_lock = threading.RLock()  # this and the other one: a signal handler may queue while its own thread begins to

    def __init__(
        self,
        *,
        settings: Settings = DEFAULTS,
        start_method: str | None = None,
        launcher_argv: Sequence[str] | None = None,
        name: str = "workq",
        log_level: int | str | None = None,
        engine: Callable[[tuple[int, int]], Engine] | None = None,
        threaded: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(settings, Settings):
            raise ArgumentError(f"settings must be a workq.config.Settings, not {settings!r}")
        if launcher_argv is not None and (isinstance(launcher_argv, str) or "{command}" not in launcher_argv):
            raise ArgumentError(f"launcher_argv must be a list of str with an item '{{command}}', not {launcher_argv!r}")
        if not isinstance(name, str):
            raise ArgumentError(f"name must be a str, not {name!r}")
        environment.set_log_level(log_level)
        self.settings = settings
        self.name = name
        self.pools: dict[str, Category] = standard_categories()  # by name; changed under `_opening`
        self.pools_version = 0  # how often they were changed; the boards of all workers show it
        self.queues: weakref.WeakValueDictionary[QueueId, Queue] = weakref.WeakValueDictionary()
        self.forked = False
        self.closed = False
        self.draining = False  # it is being shut down, and takes nothing new
        self.delivery = Delivery(name)
        self.call_numbers = count(1)
        self.tallies = Tallies()
        self.segments = Pool()  # in which large arguments lie
        self.threaded = threaded
        self.clock = clock
        self.wall_clock: Callable[[], float] = time.time  # for tests to replace
        self._make_engine = engine
        self.start_method = environment.start_method(start_method)
        self._launcher_argv = launcher_argv
        self._opening = threading.RLock()
        self.loop: Loop | None = None
        self.claims = ApplicationClaims(self)  # of locks
        self.halts: list[Halt] = []
        self.given_up: dict[str, str] = {}  # categories of which no worker could be started at some time, and why
        self.halt_callbacks: list[Callable[[Halt], object]] = []
        _living.add(self)

    # ------------------------------------------------------------ making and ending

    @classmethod
    def default(cls) -> Controller:
        """Return the controller that queues use which name none; made on first use, ended with the interpreter."""
        with cls._default_lock:
            controller = cls._default
            if controller is None or controller.closed or controller.forked:
                made = cls()
                if cls._default is controller:
                    cls._default = made
                controller = cls._default or made
            return controller

    def running(self) -> Loop:
        """Return the acting parts, made at the first call."""
        loop = self.loop
        if loop is not None and not self.forked and not self.closed:
            return loop
        self.check_usable()
        with self._opening:
            if self.loop is None:
                made = self._make_loop()
                if self.loop is None:
                    self.loop = made
        return self.loop

    def _make_loop(self) -> Loop:
        """Make the acting parts. The engine first: its launcher comes up while the others are loaded."""
        from workq.controller.waiting import Bell

        bells = Bell(blocking=True), Bell(blocking=False)
        engine = self._engine((bells[0].ring_fd, bells[1].ring_fd))
        try:
            from workq.controller.loop import Loop

            return Loop(self, bells, engine)
        except BaseException:
            engine.close(time.monotonic())
            raise

    def _engine(self, bells: tuple[int, int]) -> Engine:
        if self._make_engine is not None:
            return self._make_engine(bells)
        from workq.engines.local import LocalEngine

        engine = LocalEngine(bells, start_method=self.start_method, launcher_argv=self._launcher_argv)
        engine.prepare()
        return engine

    def check_usable(self) -> None:
        """Raise where this process is a fork of the one that made it, or where it was closed."""
        if self.forked:
            raise ForkedError(
                "this controller belongs to the process that this one was forked from; make a new WorkMgr, with no controller= or a new one"
            )
        if self.closed:
            raise QueueClosedError("the controller has been closed; nothing more can be queued on it")
        if self.draining:
            raise QueueClosedError("the controller is being shut down; nothing more can be queued on it")

    def shutdown(self, drain_timeout: float = 10.0) -> Shutdown:
        """Take nothing new, let what was queued end, for ``drain_timeout`` seconds at most, then ``close``.

        What has not ended by then is interrupted, and killed after its queue's ``delete_timeout``. It is logged, at level WARNING.

        Returns:
            Which units were interrupted, and which were never begun; true where there are none.

        >>> from workq import Controller, WorkMgr
        >>> controller = Controller()
        >>> wq = WorkMgr(1, controller=controller)
        >>> unit = wq.queue(len, "four")
        >>> bool(controller.shutdown(drain_timeout=30)), unit.result()
        (True, 4)
        """
        check_seconds("drain_timeout", drain_timeout)
        from workq.controller.draining import shut_down

        return shut_down([self], float(drain_timeout))

    def close(self, timeout: float = 5.0) -> None:
        """Delete all queues, end all workers and the thread. Bounded by ``timeout`` and the queues' ``delete_timeout``, seconds.

        Units that have not ended are cancelled; a running one is interrupted, then killed.
        """
        check_seconds("timeout", timeout)
        if self.closed or self.forked:
            return
        self.closed = True
        self.claims.end_waits()
        loop = self.loop
        if loop is not None:
            loop.close(timeout)
        for queue in self.every_queue():
            if queue.controller is not self and not queue.gone:  # it has no workers, so that the loop does not know it
                queue.controller.close_queue(queue)
        self.delivery.close(timeout)
        self.segments.close()
        _living.discard(self)

    def has_ended(self) -> bool:
        """Return whether its thread has ended: nothing runs any more, and nobody is told of anything."""
        return self.loop is not None and self.loop.lead.closed

    def end_queues(self) -> int:
        """Begin to end the queues that are not to be drained at the interpreter's exit; return how many units that drops."""
        dropped = 0
        for queue in self.every_queue():
            if self.loop is not None and queue.at_exit != "drain" and queue.owner is None:
                dropped += queue.open_units()
                if queue.at_exit == "kill":
                    self.break_off(queue, kill=True)
                self.close_queue(queue)
        return dropped

    def tell_unasked(self, queue: Queue, warn: Callable[[str], object]) -> None:
        """Say of a queue that ends how many of its units have failed unnoticed, and show the first."""
        failures = queue.unasked_failures() if queue.owner is None else []
        if failures:
            first = failures[0]
            shown = f"{type(first.value.exception()).__name__}: {first.value.exception()}".splitlines()[0]
            warn(f"{counted(len(failures), 'unit')} of queue {queue.name} failed, and nobody has asked; the first: {first.label}: {shown}")

    def drain_queues(self) -> int:
        """Wait for the queues that are to be drained at the interpreter's exit; return how many of their units have not ended in time."""
        queues = [queue for queue in self.every_queue() if queue.at_exit == "drain" and queue.owner is None]
        if self.loop is None or not any(queue.busy() for queue in queues):
            return 0
        try:
            for queue in queues:
                if queue.paused:
                    self.pause_queue(queue, False)
            self.wait(lambda: not any(queue.busy() for queue in queues), self.settings.exit_drain_s, "")
        except (TimeoutError, RuntimeError, KeyboardInterrupt):
            pass
        for queue in queues:
            queue.emit()
        return sum(queue.open_units() for queue in queues)

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ------------------------------------------------------------ categories

    @property
    def categories(self) -> CategoryTable:
        """The categories: prints as a table, is a mapping by name, and makes, changes and deletes them."""
        from workq.controller.pools import CategoryTable

        return CategoryTable(self)

    def category(self, name: str) -> Category:
        """Return the category of this name. Raises CategoryError, which names those that exist."""
        try:
            return self.pools[name]
        except (KeyError, TypeError):
            raise unknown_category(name, list(self.pools)) from None

    def add_category(self, category: Category, *, new: bool = False) -> None:
        """Make a category, or put it in the place of the one of that name, unless it must be ``new``. Running units are not touched.

        What the new one does not name is the default, and not what it was: ``categories.change`` changes single limits.

        Raises:
            CategoryError: It must be ``new``, and there is one of that name.
        """
        self.check_usable()
        if not isinstance(category, Category):
            raise ArgumentError(f"category must be a workq.Category, not {category!r}")
        with self._opening:
            if new and category.name in self.pools:
                raise CategoryError(f"there is a category {category.name!r} already; categories.change() changes it")
            self._put_category(category)
        self._settle_changes()

    def change_category(self, name: str, limits: dict[str, Any]) -> Category:
        """Change some limits of a category; see ``CategoryTable.change``."""
        self.check_usable()
        if "name" in limits:
            raise ArgumentError("name of a category cannot be changed; create another one")
        with self._opening:  # two threads that change it at once both have their way
            changed = self.category(name).replace(**limits)
            self._put_category(changed)
        self._settle_changes()
        return changed

    def _put_category(self, category: Category) -> None:
        before = self.pools.get(category.name)
        self.pools[category.name] = category
        self._show_pools()
        if self.loop is not None:
            self.loop.tell_category(category)
        if before is not None and before.max_workers != category.max_workers:
            for queue in [queue for queue in self.every_queue() if queue.category == category.name]:
                self.resize_queue(queue, category.clamp(queue.wanted_workers))

    def delete_category(self, name: str) -> None:
        """Delete a category that no open queue uses. Raises CategoryError for the three that always exist."""
        self.check_usable()
        self.category(name)
        if name in STANDARD:
            raise CategoryError(f"category {name!r} always exists and cannot be deleted")
        with self._opening:
            queues = [queue for queue in self.every_queue() if queue.category == name and (not queue.closed or queue.busy())]
            if queues:
                shown = ", ".join(sorted(queue.name for queue in queues)[:5])
                raise CategoryError(f"category {name!r} still has open queues ({shown}); close them first")
            del self.pools[name]
            self._show_pools()
            if self.loop is not None:
                from workq.core.events import CategoryRemoved

                self.loop.tell(CategoryRemoved(name))

    def _show_pools(self) -> None:
        """Have units that make queues know that the categories have changed."""
        self.pools_version += 1
        for worker in self.loop.dispatcher.workers if self.loop is not None else []:
            worker.words[POOLS] = self.pools_version
        if self.loop is not None:
            self.loop.command(self.loop.nested.tell_owners)

    def population(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many processes, and how many open queues, each category has."""
        workers = self.loop.dispatcher.workers if self.loop is not None and not self.forked else []
        queues = [queue.category for queue in self.every_queue() if not queue.closed]
        return Counter(worker.category for worker in workers), Counter(queues)

    # ------------------------------------------------------------ queues (for the rooms of WorkMgr)

    def every_queue(self) -> list[Queue]:
        """Return the queues that are known now. No loop runs over the table itself: any thread may open a queue meanwhile."""
        return [queue for reference in self.queues.valuerefs() if (queue := reference()) is not None]

    def open_queue(self, queue: Queue) -> None:
        """Make a queue known to the core, at its first unit."""
        from workq.core.events import QueueOpened

        loop = self.running()
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
            self._perform(loop.hold_back, queue)
        else:
            loop.look_at(queue)

    def drop_waiting(self, queue: Queue, why: str, last: int, spared: int = 0) -> None:
        """Cancel the units of a queue that have not begun, of the numbers above ``spared``, up to ``last``; done when it returns."""
        self._perform(self.running().drop_waiting, queue, why, last, spared)

    def drop_unbegun(self, unit: Unit[Any]) -> None:
        """Cancel a unit if it has not begun. Returns at once."""
        if self.loop is not None and not self.forked and not self.closed and unit.value is PENDING:
            self.loop.command(self.loop.drop_unbegun, unit)

    def stop_running(self, queue: Queue, why: str, last: int) -> None:
        """Interrupt the units of a queue that run, up to a number, and kill them after its delete timeout. Returns at once."""
        loop = self.running()
        loop.command(loop.stop_running, queue, why, last)

    def running_units(self, queue: Queue) -> list[Unit[Any]]:
        """Return the units of a queue that workers have begun, or are about to begin, or that wait for another try."""
        with self.running().dispatcher.lock:
            return [unit for unit in queue.open_list() if unit.value is PENDING]

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
        if queue.cleanups and (self.loop is None or self.closed or not queue.opened):
            from workq.controller.departing import call_cleanups

            call_cleanups(self, queue)
        if self.loop is not None and not self.closed:
            self.loop.command(self.loop.delete_queue, queue)

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
                loop.after_end(unit)
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
                    loop.after_end(unit)
            if unit.value is not PENDING:
                loop.lead.wake_all()
                return True
        loop.command(loop.stop_unit, unit)
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
        except KeyboardInterrupt:
            self.break_off(unit.call.queue, unit)
            raise

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
        """Nothing has to be done for somebody who waits past us: the controller's thread reads."""

    called_back_later = waited_for_otherwise

    def break_off(self, queue: Queue, unit: Unit[Any] | None = None, *, kill: bool = False) -> None:
        """Somebody has pressed Ctrl-C while this was waited for: cancel the unit, or all open ones; at the second time kill them."""
        if self.loop is not None and not self.forked and not self.closed:
            last = unit.id if unit is not None else next(queue.ids)  # what is queued from now on has a higher number
            self.loop.command(self.loop.break_off, queue, unit, kill, last)

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

    # ------------------------------------------------------------ seeing

    def on_halt(self, callback: Callable[[Halt], object]) -> None:
        """Have ``callback(halt)`` called, in workq's delivery thread, for each worker that ends by itself or has stopped beating."""
        check_callable("callback", callback)
        self.halt_callbacks.append(callback)

    def workers(self) -> WorkerTable:
        """Return the worker processes as they are now: prints as a table, and is a sequence of rows."""
        from workq.controller.seeing import worker_table

        return worker_table(self)

    def locks(self) -> LockTable:
        """Return the locks and events that anybody holds, has set or waits for: prints as a table, and is a sequence of rows."""
        from workq.seeing.locktable import lock_table

        return lock_table(self)

    def metrics(self) -> Metrics:
        """Return the counters of all categories as they are now: prints as a table, and has named fields."""
        from workq.controller.seeing import metrics

        return metrics(self)

    def statistics(self, queue: Queue) -> QueueStatistics:
        """Return the counters of one queue."""
        from workq.controller.seeing import queue_statistics

        if self.loop is not None and not self.forked:
            self.loop.lead.try_read()  # what has ended counts as ended
        return queue_statistics(queue)

    def states(self) -> dict[int, WorkerState]:
        """Return the state of each worker, by number."""
        loop = self.loop
        return {} if loop is None else {int(number): row.state for number, row in list(loop.core.workers.items())}

    def __repr__(self) -> str:
        state = "forked" if self.forked else "closed" if self.closed else "open"
        return f"<Controller {self.name} {state}, {0 if self.loop is None else len(self.loop.dispatcher.workers)} workers>"


def workers() -> WorkerTable:
    """Return the worker processes of the default controller: prints as a table, and is a sequence of rows.

    >>> workers()
    no workers
    """
    return Controller.default().workers()


def locks() -> LockTable:
    """Return the locks and events of the default controller that anybody holds, has set or waits for: prints as a table, and is data.

    Raises:
        WorkqError: Called in a unit: the application alone can see them all.

    >>> locks()
    no locks
    """
    if context.is_worker_job():
        raise WorkqError("locks are kept by the process that runs the workers; ask there")
    return Controller.default().locks()


def metrics() -> Metrics:
    """Return the counters of the default controller: prints as a table, and has named fields.

    >>> metrics().units_lost
    0
    """
    return Controller.default().metrics()


# ---------------------------------------------------------------- forks and the interpreter's exit

_living: weakref.WeakSet[Controller] = weakref.WeakSet()


def living() -> list[Controller]:
    """Return the controllers of this process that were not closed."""
    return list(_living)


def _forget_in_child() -> None:
    """After a fork of the application: the child's copy refuses use, and touches nothing of the parent's."""
    Controller._default_lock = threading.RLock()
    Controller._default = None
    unit_module._making._at_fork_reinit()  # type: ignore[attr-defined]  # another thread of the parent may have held it
    board._fence_lock._at_fork_reinit()  # type: ignore[attr-defined]
    for controller in list(_living):
        controller.forked = True
        for queue in controller.every_queue():
            queue.closed = True
    _living.clear()


def _close_at_exit() -> None:
    """The interpreter ends: bounded in time, one warning that counts what was dropped.

    1. Queues that are not to be drained begin to end. 2. Those that are to be are waited for. 3. What is still open is dropped.
    """
    controllers = list(_living)
    dropped = 0
    for controller in controllers:
        dropped += controller.end_queues()
    for controller in controllers:
        dropped += controller.drain_queues()
    for controller in controllers:
        for queue in controller.every_queue():
            queue.emit()
            controller.tell_unasked(queue, _warn)
            if queue.callbacks is not None and queue.callbacks.count():
                number = counted(queue.callbacks.count(), "callback")
                _warn(f"the interpreter ends: {number} of queue {queue.name} not made, as nobody has called sync(), wait() or wait_one()")
    if dropped:
        verb = "is" if dropped == 1 else "are"
        units = counted(dropped, "unit")
        _warn(f"the interpreter ends: {units} that had not ended {verb} dropped; sync() waits for them, and so does at_exit='drain'")
    deadline = time.monotonic() + 5.0
    for controller in controllers:
        controller.close(max(0.1, deadline - time.monotonic()))


def counted(number: int, what: str) -> str:
    """Return a number with its word.

    >>> counted(1, "unit"), counted(2, "unit")
    ('1 unit', '2 units')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _warn(message: str) -> None:
    """Log a warning, and show it on stderr where nobody has set up logging: it is too late for that now."""
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, (), None)
    logger.handle(record)
    handlers = [*logger.handlers, *(logging.getLogger().handlers if logger.propagate else ())]
    if logging.lastResort is not None and all(isinstance(handler, logging.NullHandler) for handler in handlers):
        logging.lastResort.handle(record)


os.register_at_fork(before=wait_for_imports, after_in_child=_forget_in_child)
atexit.register(_close_at_exit)

__all__ = ["NEVER", "Controller", "Options"]
