"""What stands behind one Executor: a controller of its own with one category and one queue, and the way they end.

An Executor has its own controller, because the contract of ``concurrent.futures`` is about processes and threads too: after
``shutdown()`` none of them is left. Inside a unit it is a queue of the pool that the unit runs in.

How it ends, whichever way that begins (`shutdown`, the last reference, the interpreter's exit): nothing new is taken, what was taken is
waited for, then everything is closed. A thread that submits says so in `entering` before it looks at `refusal`; who ends the pool sets
`refusal` before it looks at `entering`. So each call is either refused, or waited for.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from workq import context
from workq.adapters.handing import Handed, initialize
from workq.category import Category
from workq.config import Settings
from workq.controller.controller import Controller
from workq.controller.records import NEVER, Call, Options
from workq.core.states import UnitState
from workq.errors import LaunchError, QueueClosed, RemoteTraceback
from workq.face import gathering
from workq.manager import WorkMgr
from workq.outcome import Ended
from workq.transport import codec
from workq.unit import Unit

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
UNBEGUN = "before it had begun"
AFTER_EXIT = "cannot schedule new futures after interpreter shutdown"
BROKEN = "A child process terminated abruptly, the process pool is not usable anymore"
CATEGORY = "Executor"  # of its own controller: the one that its workers belong to
logger = logging.getLogger("workq")
AS_LONG_AS_IT_LIVES_S = 10 * 365 * 86400.0  # idle workers end with their executor, as initializers may be dear
LONGEST_DRAIN_S = 7 * 86400.0  # pending calls are completed at the interpreter's exit; bounded all the same


class BrokenPool(LaunchError, BrokenProcessPool):
    """No worker of an executor can be started, or its initializer has failed."""


class Pool:
    """One executor's workers and its queue. Owned by its Executor, and after that by whoever ends it; any thread may call."""

    def __init__(
        self,
        max_workers: int,
        start_method: str,
        initializer: Callable[..., Any] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
    ) -> None:
        self.refusal = AFTER_EXIT if _exiting else ""
        self.entering: list[None] = []  # an item for each thread that is about to submit
        self._handed = Handed(initializer, initargs, start_method == "fork") if initializer is not None else None
        self._controller = None if _is_nested(self._handed, max_tasks) else self._make_controller(max_workers, start_method, max_tasks)
        self._max_workers = max_workers
        category = CATEGORY if self._controller is not None else None
        self.manager = WorkMgr(max_workers, category=category, name="executor", at_exit="drain", controller=self._controller)
        if self.manager.num_workers == 0 and initializer is not None:  # `workq.testing.inline`: this very process is the worker
            self.manager.setup(initializer, *initargs)
        self.row = self.manager._row
        self.row.ended = deque(maxlen=0)  # futures are held by whoever wants them, and by nobody else
        self.row.exact_errors = True
        self.row.launch_error = BrokenPool
        self.intake = self.manager._intake
        self._finishing = threading.Lock()
        self._finisher: threading.Thread | None = None
        self.finished = False
        _living.add(self)

    def _make_controller(self, max_workers: int, start_method: str, max_tasks: int | None) -> Controller:
        settings = Settings(idle_timeout_s=AS_LONG_AS_IT_LIVES_S)
        controller = Controller(settings=settings, start_method=start_method, name="workq-executor")
        controller.add_category(
            Category(
                CATEGORY,
                default_workers=max_workers,
                max_workers=max_workers,
                max_active_workers=max_workers,
                max_total_workers=max_workers,
                max_units=max_tasks,
                initializer=initialize if self._handed is not None else None,
                initializer_args=(self._handed,) if self._handed is not None else (),
            )
        )
        return controller

    # ------------------------------------------------------------ taking calls

    def check(self) -> None:
        """Raise where nothing can be submitted (any more)."""
        if self.refusal:
            raise RuntimeError(self.refusal)  # and no kind of ours: it is what such code looks for
        why = self.broken
        if why:
            raise BrokenPool(f"{BROKEN}: {why}")

    @property
    def broken(self) -> str:
        """Why no worker can be started, or an empty text. An initializer that failed is not tried again."""
        return self._controller.given_up.get(CATEGORY, "") if self._controller is not None else ""

    def refused_unit(self, function: Callable[..., Any], error: Exception) -> Unit[Any]:
        """Return the future of a call that could not be sent: it has failed. It holds no reference to what it was given."""
        text = "".join(traceback.format_exception(error))
        call = Call(self.row, 0, b"", False, codec.name_of(function), Options())
        unit: Unit[Any] = Unit(call, b"", next(self.row.ids), time.monotonic_ns())
        error.__traceback__ = error.__context__ = None
        error.__cause__ = RemoteTraceback(text)
        unit.value = Ended(UnitState.FAILED, error)
        self.row.failed += 1
        return unit

    def left(self) -> None:
        """A thread that was about to submit has done so, or has not: who waits to end the pool looks again."""
        if self._controller is not None and self._controller.loop is not None:
            self._controller.loop.lead.wake_all()

    # ------------------------------------------------------------ ending

    def drop_waiting(self) -> None:
        """Cancel what has not begun. While no worker is there yet, the calls that the first ones are started for count as begun."""
        controller, row = self.manager.controller, self.row
        if type(controller) is Controller and row.opened and not controller.closed and not controller.forked:
            none_is_there = not any(worker.ready for worker in controller.running().dispatcher.workers)
            controller.drop_waiting(row, UNBEGUN, NEVER, self._max_workers if none_is_there else 0)
        elif type(controller) is not Controller and row.opened:
            controller.drop_waiting(row, UNBEGUN, NEVER)

    def break_off(self) -> None:
        """Cancel everything: what runs is interrupted, and killed after ``delete_timeout``."""
        if type(self.manager.controller) is Controller:
            self.manager.controller.break_off(self.row)

    def finish(self, timeout: float | None = None) -> None:
        """Wait until all that was taken has ended, ``timeout`` seconds at most, then end everything. Ctrl-C ends what runs.

        In a callback, while another thread does so: that thread waits for the callbacks, so it is left to it.
        """
        calls_back = self._controller is not None and self._controller.delivery.calls_here()
        if not self._finishing.acquire(blocking=not calls_back):
            return
        try:
            if not self.finished:
                self._wait_drained(timeout)
                self._close()
        finally:
            self._finishing.release()

    def _close(self) -> None:
        self.manager.close()
        if self._controller is not None:
            self._controller.close()
        if self._handed is not None:
            self._handed.forget()
        self.finished = True

    def _wait_drained(self, timeout: float | None) -> None:
        controller, row = self.manager.controller, self.row
        if row.opened and not controller.closed and not controller.forked:
            try:
                gathering.wait_for(row, lambda: not row.busy() and not self.entering, timeout, "the executor has not ended its calls")
            except QueueClosed:
                pass  # somebody has closed the controller itself
            except TimeoutError as error:
                logger.warning("%s", error)
            row.emit()

    def finish_in_background(self) -> None:
        """Do so in a thread of its own. May be called from a finalizer: it takes no lock and starts no thread by itself."""
        loop = self._controller.loop if self._controller is not None else None
        if loop is None or self.finished:
            self._finish_quietly()
        else:
            loop.command(self._start_finisher)

    def _start_finisher(self) -> None:
        """In the controller's thread."""
        if self._finisher is None:
            self._finisher = threading.Thread(target=self._finish_quietly, name="workq-executor-end", daemon=True)
            try:
                self._finisher.start()
            except RuntimeError:  # the interpreter is ending, and does it itself
                self._finisher = None

    def _finish_quietly(self) -> None:
        try:
            self.finish()
        except BaseException:
            logger.exception("an executor could not be ended")


def _is_nested(handed: Handed | None, max_tasks: int | None) -> bool:
    """Return whether it is a queue of the pool that this unit runs in: then its workers are that pool's, and were prepared for it."""
    return context.side() is not None and handed is None and max_tasks is None


# ---------------------------------------------------------------- forks and the interpreter's exit

_living: weakref.WeakSet[Pool] = weakref.WeakSet()
_exiting = False


def _finish_all() -> None:
    """The interpreter ends: complete what was submitted. Before any function of ``atexit`` runs, as concurrent.futures does it."""
    global _exiting
    _exiting = True
    pools = list(_living)
    for pool in pools:
        pool.refusal = pool.refusal or AFTER_EXIT
    for pool in pools:
        try:
            pool.finish(LONGEST_DRAIN_S)
        except KeyboardInterrupt:  # who presses Ctrl-C now wants the program to end
            for other in pools:
                other.break_off()
            pool.finish(LONGEST_DRAIN_S)


def _forget_in_child() -> None:
    _living.clear()


os.register_at_fork(after_in_child=_forget_in_child)
getattr(threading, "_register_atexit", atexit.register)(_finish_all)  # `atexit` itself would come after the application's own functions
