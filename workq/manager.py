"""WorkMgr: the work queue that an application holds."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

from typing_extensions import ParamSpec

from workq import context
from workq.arguments import check_callable, check_name, check_seconds, check_timeout, check_whole, iterators_of, plain
from workq.controller.controller import Controller, counted
from workq.controller.intake import Intake
from workq.controller.records import Options, Queue
from workq.core.events import QueueId
from workq.core.states import UnitState
from workq.errors import ArgumentError, WorkErrors, WorkqError
from workq.inline import InlineController
from workq.statistics import Metrics, QueueStatistics, WorkerTable
from workq.transport.mainmodule import preparing
from workq.unit import ASKED, Ended, Unit

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count(1)
DROPPED = "nobody held its WorkMgr any more, so its queue was deleted; keep it in a variable, or use `with`"


class View:
    """A work queue under certain options: what `WorkMgr.options` returns. It queues on the same queue."""

    def __init__(self, manager: WorkMgr, intake: Intake) -> None:
        self._manager = manager  # its queue lives as long as the view
        self._intake = intake

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and return its unit at once; work starts at once. See ``WorkMgr.queue``."""
        return self._intake.queue(fn, *args, **kwargs)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], look_ahead: int | None = None, timeout: float | None = None
    ) -> Iterator[T]:
        """Return the results of ``fn`` over the iterables, in order. See ``WorkMgr.map``."""
        return _results(self._manager, self._intake, fn, iterables, look_ahead, timeout)


class WorkMgr:
    """A work queue: queue calls on it, and worker processes run them.

    It starts nothing by itself: workers attach one by one as units are queued. All methods may be called from any thread. As a context
    manager it ends with ``sync()`` and ``close()``; on an exception it closes at once. It is deleted, as by ``close()``, when the last
    reference to it goes, and its units do not hold it: ``WorkMgr(1).queue(f).result()`` is cancelled.

    Args:
        num_workers: The most workers that serve this queue at once. None: the category's ``default_workers``; more than its
            ``max_workers`` is clamped; 0: no worker at all, units run in the caller, inside ``result()``, ``sync()``, ``wait_one()``,
            ``as_completed()`` and ``map()``. There a unit that runs cannot be stopped, neither by ``cancel()`` nor by its ``timeout``.
        category: The name of the pool that it draws from. Default: ``"Default"``; inside a unit the category of its worker.
        name: Shown in tables, messages and log records. Default: the category's name and a number.
        delete_timeout: Seconds between the interrupt of a unit that has to stop and the kill of its worker.
        output: ``"stream"``: what units print is written to this process's stdout and stderr by whoever waits; ``"discard"``: nothing is.
        at_exit: What becomes of its units that have not ended when the interpreter ends: ``"cancel"``: what waits is dropped, what
            runs is interrupted, and killed after ``delete_timeout``; ``"drain"``: they are waited for, for ``Settings.exit_drain_s`` at
            most; ``"kill"``: they are killed at once. A warning counts what was dropped.
        controller: Default: the one that all queues share.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument.
        CategoryError: There is no such category.

    >>> from workq import WorkMgr
    >>> with WorkMgr(2) as wq:
    ...     units = [wq.queue(pow, 2, n) for n in (8, 10)]
    ...     [unit.result() for unit in units]
    [256, 1024]
    """

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        category: str | None = None,
        name: str | None = None,
        delete_timeout: float = 1.0,
        output: str = "stream",
        at_exit: str = "cancel",
        controller: Controller | None = None,
    ) -> None:
        _check_workers(num_workers)
        check_seconds("delete_timeout", delete_timeout)
        check_name("name", name)
        if output not in ("stream", "discard"):
            raise ArgumentError(f"output must be 'stream' or 'discard', not {output!r}")
        if at_exit not in ("cancel", "drain", "kill"):
            raise ArgumentError(f"at_exit must be 'cancel', 'drain' or 'kill', not {at_exit!r}")
        if controller is not None and not isinstance(controller, Controller):
            raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
        self.controller: Any = controller or _controller_here()
        self.controller.check_usable()
        if category is None:
            category = getattr(self.controller, "own_category", "Default")
        limits = self.controller.category(category)
        wanted = limits.default_workers if num_workers is None else num_workers
        self._inline = wanted == 0
        if self._inline:
            self.controller = InlineController(self.controller)
        number = QueueId(next(_numbers))
        self._row = Queue(
            self.controller,
            number,
            plain(name or f"{category}-{number}"),
            plain(category),
            int(max(1, min(wanted, limits.max_workers))),
            float(delete_timeout),
        )
        self._row.output_to = output
        self._row.at_exit = at_exit
        if self._inline:
            self.controller.adopt(self._row)
        self._intakes: dict[Options, Intake] = {}  # and not the views, which refer to us
        self._intake = Intake(self._row)
        self._finalizer = weakref.finalize(self, _drop, self._row)
        self._finalizer.atexit = False

    # ------------------------------------------------------------ queueing

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and return its unit at once; work starts at once.

        The arguments are captured now: what the caller changes afterwards is not seen by the unit.

        Args:
            fn: A function, also one of ``__main__``, of a REPL or a notebook, a lambda, a closure, a partial or a bound method.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            PicklingError: The function or an argument cannot be sent to a worker; the message names it. Nothing was queued.
            QueueClosed: The queue has been closed.

        >>> wq = getfixture("wq")
        >>> wq.queue(sorted, [3, 1, 2]).result()
        [1, 2, 3]
        """
        return self._intake.queue(fn, *args, **kwargs)

    def options(self, *, timeout: float | None = None, retries: int = 0, priority: int = 0, name: str | None = None) -> View:
        """Return a view of this queue whose ``queue`` and ``map`` use these options.

        Args:
            timeout: Seconds that a unit may run, from when it starts; then it is interrupted, and killed after ``delete_timeout``.
            retries: How often a unit is tried again after it failed, timed out or was lost with its worker.
            priority: Units of higher priority go first within this queue.
            name: What its units are called.

        >>> wq = getfixture("wq")
        >>> wq.options(name="four").queue(len, "four").name
        'four'
        """
        if timeout is not None:
            check_seconds("timeout", timeout, above=True)
        check_whole("retries", retries, least=0)
        check_whole("priority", priority)
        check_name("name", name)
        options = Options(  # of the plain types, as they travel
            None if timeout is None else float(timeout), int(retries), int(priority), None if name is None else plain(name)
        )
        intake = self._intakes.get(options)
        if intake is None:
            intake = self._intakes[options] = Intake(self._row, options)
        return View(self, intake)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], look_ahead: int | None = None, timeout: float | None = None
    ) -> Iterator[T]:
        """Return an iterator of the results of ``fn`` over the iterables, in order.

        The input is read lazily, only so far ahead as the workers need: a generator of 10**9 items is fine. Closing the iterator early
        cancels the rest.

        Args:
            fn: Called with one item of each iterable, as the built-in `map` does; it stops with the shortest.
            *iterables: What the items come from.
            look_ahead: How many units at most are queued and not yet yielded. Default: found by measurement.
            timeout: Seconds to wait for the next result at most; then TimeoutError.

        >>> wq = getfixture("wq")
        >>> list(wq.map(pow, [1, 2, 3], [2, 2, 2]))
        [1, 4, 9]
        """
        return _results(self, self._intake, fn, iterables, look_ahead, timeout)

    # ------------------------------------------------------------ waiting

    def sync(self, timeout: float | None = None) -> QueueStatistics:
        """Wait for all units queued so far, write their output, and return the queue's statistics.

        Raises:
            WorkErrors: Units failed whose result nobody has asked for: an ExceptionGroup, in order of submission.
            TimeoutError: They have not ended within ``timeout`` seconds. They go on, and nothing is lost.

        >>> wq = getfixture("wq")
        >>> unit = wq.queue(print, "hello")
        >>> wq.sync().done
        hello
        1
        """
        check_timeout(timeout)
        if self._row.opened:
            row = self._row
            self._wait(lambda: not row.busy(), timeout, f"queue {row.name} has not ended its units")
            self.controller.delivery.drain(1.0)
            row.emit()
        failures = []
        while (unit := _next_ended(self._row)) is not None:
            if type(unit.value) is Ended and unit.value.state is not UnitState.CANCELLED:
                unit.data = ASKED
                failures.append(unit)
        if failures:
            failures.sort(key=lambda unit: unit.id)
            raise WorkErrors(f"{counted(len(failures), 'unit')} of queue {self._row.name} failed", [_shown(unit) for unit in failures])
        return self.statistics()

    def wait_one(self, timeout: float | None = None) -> Unit[Any] | None:
        """Wait for the next unit that has ended and was not yet handed out; None when nothing is outstanding.

        Raises:
            TimeoutError: None ended within ``timeout`` seconds.

        >>> wq = getfixture("wq")
        >>> unit = wq.queue(len, "four")
        >>> wq.wait_one() is unit, wq.wait_one()
        (True, None)
        """
        check_timeout(timeout)
        row = self._row
        while True:
            unit = _next_ended(row)
            if unit is not None:
                row.emit()
                return unit
            if not row.busy():
                return _next_ended(row)
            self._wait(lambda: bool(row.ended) or not row.busy(), timeout, f"no unit of queue {row.name} has ended")

    def _wait(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None:
        """Wait for units of this queue. Ctrl-C ends them: interrupted at the first, killed at the second."""
        try:
            self.controller.wait(ready, timeout, what)
        except KeyboardInterrupt:
            self.controller.break_off(self._row)
            raise

    def as_completed(self, timeout: float | None = None) -> Iterator[Unit[Any]]:
        """Yield the units of this queue as they end, until none is outstanding; each is handed out once.

        >>> wq = getfixture("wq")
        >>> units = [wq.queue(abs, -n) for n in range(3)]
        >>> sorted(unit.result() for unit in wq.as_completed())
        [0, 1, 2]
        """
        check_timeout(timeout)
        return iter(lambda: self.wait_one(timeout), None)

    # ------------------------------------------------------------ ending

    def close(self) -> None:
        """Delete the queue. When it returns, no unit of it runs any more and nothing can be queued on it.

        What waits is cancelled; what runs is interrupted, and killed after ``delete_timeout``.
        """
        row = self._row
        self._finalizer.detach()
        if row.closed and not row.busy():
            return
        self.controller.close_queue(row)
        if row.opened and not self.controller.forked and not self.controller.closed:
            self._wait(lambda: not row.busy() and row.gone, row.delete_timeout_s + 5.0, f"queue {row.name} has not ended")
            row.emit()
            self.controller.tell_unasked(row, _log_warning)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and not self._row.closed:
                self.sync()
        finally:
            self.close()

    # ------------------------------------------------------------ seeing

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._row.name

    @property
    def category(self) -> str:
        """The name of its category."""
        return self._row.category

    @property
    def delete_timeout(self) -> float:
        """Seconds between interrupt and kill; may be set at any time."""
        return self._row.delete_timeout_s

    @delete_timeout.setter
    def delete_timeout(self, seconds: float) -> None:
        check_seconds("delete_timeout", seconds)
        self._row.delete_timeout_s = float(seconds)

    @property
    def num_workers(self) -> int:
        """The most workers that serve it at once: the effective number, after clamping."""
        return 0 if self._inline else self._row.max_workers

    @property
    def num_active_workers(self) -> int:
        """How many workers run units of it now, blocked ones left out."""
        return sum(bool(worker.batches) and not worker.told_blocked for worker in list(self._row.workers))

    def statistics(self) -> QueueStatistics:
        """Return the queue's counters as they are now: prints as a table, and has named fields."""
        statistics: QueueStatistics = self.controller.statistics(self._row)
        return statistics

    def workers(self) -> WorkerTable:
        """Return the worker processes of this queue's controller: prints as a table, and is a sequence of rows."""
        table: WorkerTable = self.controller.workers()
        return table

    def metrics(self) -> Metrics:
        """Return the counters of this queue's controller: prints as a table, and has named fields."""
        metrics: Metrics = self.controller.metrics()
        return metrics

    @staticmethod
    def is_worker_job() -> bool:
        """Return True in a worker; see ``workq.is_worker_job``."""
        return context.is_worker_job()

    def __repr__(self) -> str:
        row = self._row
        state = "closed" if row.closed else f"{row.open_units()} units open, {len(row.workers)} of {row.max_workers} workers"
        return f"<WorkMgr {row.name}: {state}>"


def _next_ended(row: Queue) -> Unit[Any] | None:
    """Return the next unit that has ended and that nobody has asked."""
    while row.ended:
        try:
            unit = row.ended.popleft()
        except IndexError:
            return None
        if unit.data is not ASKED:
            return unit
    return None


def _shown(unit: Unit[Any]) -> Exception:
    """Return a unit's failure with a note that says which unit it was."""
    error = unit.value.exception()
    error.add_note(f"in unit {unit.label}")
    return error  # type: ignore[no-any-return]


def _results(
    manager: WorkMgr,
    intake: Intake,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int | None,
    timeout: float | None,
) -> Iterator[T]:
    check_callable("fn", fn)
    check_timeout(timeout)
    if look_ahead is not None:
        check_whole("look_ahead", look_ahead, least=1)
    iterators = iterators_of(iterables)
    from workq.mapping import results

    return results(manager, manager._row, intake, fn, iterators, look_ahead, timeout)


def _log_warning(message: str) -> None:
    logging.getLogger("workq").warning("%s", message)


def _drop(row: Queue) -> None:
    """The last reference to a WorkMgr is gone: delete its queue. May run in any thread, in the middle of anything."""
    row.why_deleted = DROPPED
    row.controller.close_queue(row)


def _controller_here() -> Any:
    """Return the controller of this process: in a worker, the parent's, at the other end of the worker's socket."""
    side = context.side()
    if side is None:
        return Controller.default()
    if preparing():
        raise WorkqError(
            "the main script makes a WorkMgr when it is imported, and a worker has to import it: "
            'put that under `if __name__ == "__main__":`'
        )
    from workq.nested import NestedController

    return NestedController.here(side)


def _check_workers(number: object) -> None:
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise ArgumentError(f"num_workers must be a whole number of 0 or more, or None, not {number!r}")


__all__ = ["View", "WorkMgr"]
