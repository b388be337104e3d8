"""Controller: runs all pools of a process. The face for whoever wants several in one process, and the one made on first use."""

from __future__ import annotations

import atexit
import contextlib
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
from workq.controller.exiting import close_all, living, open_controllers
from workq.controller.forking import wait_for_imports
from workq.controller.hosting import Hosting
from workq.controller.records import NEVER, Options, Queue
from workq.controller.tallies import Tallies
from workq.core.states import WorkerState
from workq.errors import ArgumentError, CategoryError, ForkedError, LaunchError, WorkqError, is_handle
from workq.errors import QueueClosed as QueueClosedError
from workq.given import environment
from workq.given.arguments import check_callable, check_seconds
from workq.transport import board
from workq.transport.board import POOLS
from workq.transport.segments import Pool

if TYPE_CHECKING:  # what a program needs that queues units is loaded with the first: the core, the loop, the engine
    from workq.controller.draining import Shutdown
    from workq.controller.loop import Loop
    from workq.controller.pools import CategoryTable
    from workq.core.ids import QueueId
    from workq.engines.protocol import Engine
    from workq.errors import Halt
    from workq.process.client import Launcher
    from workq.seeing.locktable import LockTable
    from workq.seeing.statistics import Metrics, QueueStatistics, WorkerTable

ENDED = (0, 0)  # the turn of no thread: whoever closed it has done so


class Controller(Hosting):
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
    _left_behind = False  # this process is a fork of one that had a default controller
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
        self.queues: weakref.WeakValueDictionary[QueueId, Queue] = weakref.WeakValueDictionary()  # those that have had a unit
        self.made: weakref.WeakValueDictionary[QueueId, Queue] = weakref.WeakValueDictionary()  # by the application, with units or without
        self.adopted = False  # a queue was made on it
        self.forked = False
        self.closed = False
        self.draining = False  # it is being shut down, and takes nothing new
        self.drain_over: threading.Event | None = None  # set by whoever shuts it down, when that is over
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
        self.closers: list[tuple[int, int]] = []  # threads that close it, each with a number; the first one does, the others wait
        self._turns = count(1)
        self.loop: Loop | None = None
        self.claims = ApplicationClaims(self)  # of locks
        self.halts: list[Halt] = []
        self.given_up: dict[str, str] = {}  # categories of which no worker could be started at some time, and why
        self.halt_callbacks: list[Callable[[Halt], object]] = []
        open_controllers.add(self)

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

    @classmethod
    def default_is_of_parent(cls) -> bool:
        """Return whether this is a fork of a unit, or of a program that had a default controller, and has made no queue of its own."""
        forked = cls._left_behind or context.in_child_of_worker()
        return forked and (cls._default is None or not cls._default.adopted)

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
                    if self.closed:  # meanwhile, by another thread, which may have found no parts
                        made.close(0.0)
                        self.check_usable()
        return self.loop

    def _make_loop(self) -> Loop:
        """Make the acting parts. The engine first, and of it the launcher: it comes up while the others are loaded."""
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
        launcher = self._launcher(bells)
        try:
            from workq.engines.local import LocalEngine

            return LocalEngine(bells, start_method=self.start_method, launcher_argv=self._launcher_argv, launcher=launcher)
        except BaseException:
            if launcher is not None:
                launcher.discard()
            raise

    def _launcher(self, bells: tuple[int, int]) -> Launcher | None:
        """Make the launcher before all else: it comes up while the rest is loaded. What is in the way of it the first start says."""
        from workq.process.client import WORKER_ENTRY, Launcher

        with contextlib.suppress(LaunchError, OSError):
            return Launcher(bells, WORKER_ENTRY, self.start_method, self._launcher_argv, pidfd=True)
        return None

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

        Units that have not ended are cancelled; a running one is interrupted, then killed. An exception of a signal handler, as that of
        Ctrl-C, has them killed at once. Where another thread closes it already, this waits for the end that one brings about, for
        ``timeout`` at most. A signal handler that has interrupted a wait in this controller does not wait: its end comes when that goes on.
        """
        check_seconds("timeout", timeout)
        if self.forked:
            return
        deadline = time.monotonic() + timeout
        turn = threading.get_ident(), next(self._turns)
        try:
            self.closed = True
            self.closers.append(turn)
            if self.closers[0] is not turn and self.loop is not None and self.may_wait_for_end():
                with contextlib.suppress(RuntimeError):  # the application has closed every descriptor
                    self.loop.lead.wait(lambda: self.has_ended() or self.closers[0] is turn, timeout)
            if self.closers[0] is turn:
                self._end(max(0.0, deadline - time.monotonic()))
                self.closers[0] = ENDED
        finally:
            if turn in self.closers:  # broken off, so that the next one ends what is left; or another one has done it
                self._leave(turn)

    def _leave(self, turn: tuple[int, int]) -> None:
        """Leave it to others to close; where this thread was to, what runs ends by itself, and who waits looks whose turn it is."""
        was_first = self.closers[0] is turn
        self.closers.remove(turn)
        if was_first and self.loop is not None:
            self.loop.closing = True
            self.loop.ring()
            self.loop.lead.wake_all()

    def _end(self, timeout: float) -> None:
        """End everything. May be done again, where an exception of a signal handler has broken it off."""
        self.claims.end_waits()
        loop = self.loop
        if loop is not None:
            loop.close(timeout)
        for queue in self.every_queue():
            if queue.controller is not self and not queue.gone:  # it has no workers, so that the loop does not know it
                queue.controller.close_queue(queue)
        self.delivery.close(timeout)
        self.segments.close()
        open_controllers.discard(self)

    def has_ended(self) -> bool:
        """Return whether its thread has ended: nothing runs any more, and nobody is told of anything."""
        return self.loop is not None and self.loop.lead.closed

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None and self.drain_over is not None and not self.forked:
                self.drain_over.wait()  # another thread shuts it down, which is bounded: its units have so long
        finally:
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
            elsewhere = isinstance(name, str) and any(name in controller.pools for controller in living())
            raise unknown_category(name, list(self.pools), elsewhere) from None

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
            if queues := self._open_queues_of(name):
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
        queues = [queue.category for queue in self._queues_of_pools() if not queue.closed]
        return Counter(worker.category for worker in workers), Counter(queues)

    def _queues_of_pools(self) -> set[Queue]:
        """Return the queues that hold on to a category: those of units, and those of the application, also where nothing was queued yet."""
        made = (reference() for reference in self.made.valuerefs())
        return {*self.every_queue(), *(queue for queue in made if queue is not None)}

    def _open_queues_of(self, category: str) -> list[Queue]:
        return [queue for queue in self._queues_of_pools() if queue.category == category and (not queue.closed or queue.busy())]

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

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"Controller {self.name}")

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


def _forget_in_child() -> None:
    """After a fork of the application: the child's copy refuses use, and touches nothing of the parent's."""
    Controller._default_lock = threading.RLock()
    Controller._left_behind = Controller._left_behind or Controller._default is not None
    Controller._default = None
    unit_module._making._at_fork_reinit()  # type: ignore[attr-defined]  # another thread of the parent may have held it
    board._fence_lock._at_fork_reinit()  # type: ignore[attr-defined]
    for controller in living():
        controller.forked = True
        for queue in controller.every_queue():
            queue.closed = True
    open_controllers.clear()


os.register_at_fork(before=wait_for_imports, after_in_child=_forget_in_child)
atexit.register(close_all)

__all__ = ["NEVER", "Controller", "Options"]
