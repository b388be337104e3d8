"""WorkMgr: the work queue that an application holds."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from workq import context, gathering
from workq.arguments import check_amount, check_callable, check_name, check_seconds, check_timeout, check_whole, plain
from workq.controller.controller import Controller
from workq.controller.intake import PLAIN, Intake
from workq.controller.outfit import Outfit, packed
from workq.controller.records import Options, Queue
from workq.core.ids import QueueId
from workq.errors import ArgumentError, TooLate, WorkErrors, WorkqError
from workq.transport.mainmodule import preparing
from workq.unit import Unit
from workq.view import View, results_of

if TYPE_CHECKING:  # what only annotations name is loaded when it is needed: to import workq is to wait for it
    from contextvars import ContextVar

    from workq.carrying import Carried
    from workq.category import Category
    from workq.controller.draining import Shutdown
    from workq.controller.pools import CategoryTable, QueueLimits
    from workq.controller.recurring import Recurring
    from workq.core.retrying import RetryPolicy
    from workq.mapping import Results
    from workq.retry import Retry
    from workq.schedule import Cron
    from workq.session import Session
    from workq.statistics import Metrics, QueueStatistics, WorkerTable

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count(1)
made_inline: list[None] = []  # an item for each `workq.testing.inline` that is on: what is made meanwhile has no workers
DROPPED = "nobody held its WorkMgr any more, so its queue was deleted; keep it in a variable, or use `with`"


class WorkMgr:
    """A work queue: queue calls on it, and worker processes run them.

    It starts nothing by itself: workers attach one by one as units are queued. All methods may be called from any thread. As a context
    manager it ends with ``resume()``, ``sync()`` and ``close()``; on an exception it closes at once. It is deleted, as by ``close()``,
    when the last reference to it goes, and its units do not hold it: ``WorkMgr(1).queue(f).result()`` is cancelled.

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
        contextvars: What units are given of the context variables of whoever queues them: True: all whose values can be pickled; or a list
            of them. They have to be global variables of modules. What a unit sets is seen by nobody else.
        max_pending: How many units may wait, and be in no worker's hands. None: any number.
        when_full: What becomes of one more: ``"block"``: ``queue()`` waits for room, and reads results meanwhile; ``"raise"``: it raises
            ``QueueFull``; ``"drop_oldest"``: the unit that has waited longest, of the lowest priority, is cancelled.
        full_timeout: Seconds that ``queue()`` waits for room at most; then it raises ``QueueFull``. Default: None, for ever.
        trace_context: Units go on with the trace of whoever queues them (W3C ``traceparent``): OpenTelemetry has to be installed.

    Attributes:
        controller: The :class:`workq.Controller` whose workers it draws, for categories, halts and locks.

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
        contextvars: bool | Iterable[ContextVar[Any]] = False,
        trace_context: bool = False,
        max_pending: int | None = None,
        when_full: str = "block",
        full_timeout: float | None = None,
    ) -> None:
        _check_workers(num_workers)
        check_seconds("delete_timeout", delete_timeout)
        check_name("name", name)
        if output not in ("stream", "discard"):
            raise ArgumentError(f"output must be 'stream' or 'discard', not {output!r}")
        if at_exit not in ("cancel", "drain", "kill"):
            raise ArgumentError(f"at_exit must be 'cancel', 'drain' or 'kill', not {at_exit!r}")
        _check_bound(max_pending, when_full, full_timeout)
        if controller is not None and not isinstance(controller, Controller):
            raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
        self.controller: Any = controller or _controller_here()
        self.controller.check_usable()
        if category is None:
            category = getattr(self.controller, "own_category", "Default")
        limits = self.controller.category(category)
        wanted = limits.default_workers if num_workers is None else num_workers
        if made_inline:
            wanted = 0
        self._inline = wanted == 0
        if self._inline:
            from workq.inline import InlineController

            self.controller = InlineController(self.controller)
        number = QueueId(next(_numbers))
        self._row = Queue(
            self.controller,
            number,
            plain(name or f"{category}-{number}"),
            plain(category),
            limits.clamp(wanted),
            float(delete_timeout),
        )
        self._row.asked_workers, self._row.wanted_workers = num_workers, int(wanted)
        self._tell_clamped(limits)
        self._row.output_to = output
        self._row.at_exit = at_exit
        if self._inline:
            self.controller.adopt(self._row)
        self._row.carried = None if contextvars is False and trace_context is False else carried_of(contextvars, trace_context)
        if max_pending is not None:
            from workq.controller.gate import Gate

            self._row.gate = Gate(self._row, int(max_pending), when_full, None if full_timeout is None else float(full_timeout))
        self._take(self._row)

    def _take(self, row: Queue) -> None:
        """Be the one that has a queue: a new one, or one that was detached."""
        self._row = row
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._intakes: dict[Options, Intake] = {}  # and not the views, which refer to us
        self._carried = row.carried
        self._intake = intake_of(row, PLAIN, self._carried)
        row.holder = weakref.ref(self)
        self._finalizer = weakref.finalize(self, _drop, row)
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

        >>> wq.queue(sorted, [3, 1, 2]).result()
        [1, 2, 3]
        """
        return self._intake.queue(fn, *args, **kwargs)

    def queue_callback(self, fn: Callable[P, T], callback: Callable[..., object], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call, and have ``callback(unit, *args, **kwargs)`` made when it has ended, however it ended.

        Callbacks are made in the thread that calls ``sync``, ``wait``, ``wait_one`` or ``as_completed``, one at a time, in order of
        completion, and never anywhere else: ``result()`` makes none. A callback may queue more units. What it raises joins the
        ``WorkErrors`` of ``sync`` and hinders no other. A queue that is closed makes no more of them.

        Args:
            fn: What a worker calls.
            callback: What this process calls, with the unit and the arguments themselves, not copies of them. It may return
                ``workq.EXIT``, and then ``wait()`` returns.
            *args: The arguments of both.
            **kwargs: The keyword arguments of both.

        >>> unit = wq.queue_callback(pow, lambda unit, base, exponent: print(base, exponent, unit.result()), 2, 5)
        >>> wq.sync().done
        2 5 32
        1
        """
        check_callable("callback", callback)
        from workq.callbacks import queue_with

        return queue_with(self._row, self._intake.queue, fn, callback, args, kwargs)

    def options(
        self,
        *,
        timeout: float | None = None,
        retries: int | Retry = 0,
        priority: int = 0,
        name: str | None = None,
        queue_timeout: float | None = None,
        memory_mb: float | None = None,
        cpu_s: float | None = None,
    ) -> View:
        """Return a view of this queue whose ``queue``, ``queue_callback`` and ``map`` use these options.

        Args:
            timeout: Seconds that a unit may run, from when it starts; then it is interrupted, and killed after ``delete_timeout``.
            retries: How often a unit is tried again after it failed, timed out or was lost with its worker; a ``workq.Retry`` says besides
                after what, and after which rest.
            priority: Units of higher priority go first within this queue.
            name: What its units are called.
            queue_timeout: Seconds that a unit may wait before it begins; then it ends with ``UnitTimeout`` and never runs.
            memory_mb: MiB that a unit may take beyond what its worker held before, child processes included; then it is stopped, as by a
                time-out, ends with ``UnitMemoryExceeded``, and its worker is replaced. Looked at each 20 ms while it runs.
            cpu_s: CPU seconds that a unit may take, with all its threads and child processes; then it is stopped, as by a time-out, and
                ends with ``UnitCpuExceeded``.

        >>> wq.options(name="four").queue(len, "four").name
        'four'
        """
        if timeout is not None:
            check_seconds("timeout", timeout, above=True)
        if queue_timeout is not None:
            check_seconds("queue_timeout", queue_timeout, above=True)
        if memory_mb is not None:
            check_amount("memory_mb", memory_mb, "MiB")
        if cpu_s is not None:
            check_seconds("cpu_s", cpu_s, above=True)
        policy = None if type(retries) is int and retries == 0 else _policy(retries)
        check_whole("priority", priority)
        check_name("name", name)
        options = Options(  # of the plain types, as they travel
            None if timeout is None else float(timeout),
            policy,
            int(priority),
            None if name is None else plain(name),
            None if queue_timeout is None else float(queue_timeout),
            None if memory_mb is None else int(memory_mb * (1 << 20)),
            None if cpu_s is None else float(cpu_s),
        )
        intake = self._intakes.get(options)
        if intake is None:
            intake = self._intakes[options] = intake_of(self._row, options, self._carried)
        return View(self, intake)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        look_ahead: int | None = None,
        timeout: float | None = None,
        errors: str = "raise",
        progress: bool | str = False,
    ) -> Results[T]:
        """Return an iterator of the results of ``fn`` over the iterables, in order.

        The input is read lazily, only so far ahead as the workers need: a generator of 10**9 items is fine. Closing the iterator early
        cancels the rest.

        Args:
            fn: Called with one item of each iterable, as the built-in `map` does; it stops with the shortest.
            *iterables: What the items come from.
            look_ahead: How many units at most are queued and not yet yielded. Default: found by measurement.
            timeout: Seconds to wait for the next result at most; then TimeoutError.
            errors: What becomes of an item that fails. ``"raise"``: its exception is raised in its place, and who asks for the next
                result afterwards gets it; ``"return"``: the exception stands among the results; ``"skip"``: it is left out.
            progress: True: show how far it has come, on stderr if that is a terminal, or in the notebook: by tqdm or rich, where one is
                installed, else as a line. ``"tqdm"``, ``"rich"`` or ``"plain"``: by this one.

        >>> list(wq.map(pow, [1, 2, 3], [2, 2, 2]))
        [1, 4, 9]
        """
        return results_of(self, self._intake, fn, iterables, look_ahead, timeout, errors, progress)

    def every(self, seconds: float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call each so many seconds, the first time that long from now, until it is stopped or the queue is closed.

        Function and arguments are captured now. A run that is due while the one before has not ended is skipped, and logged. What fails is
        logged and kept in ``outcomes``; ``sync`` does not raise it. Times are counted on a clock that never jumps, and late runs do not
        shift those that follow.

        Returns:
            The recurring unit: ``stop()``, ``start()``, ``next_at``, ``last``, ``outcomes``.

        >>> beat = wq.every(3600, print, "one more hour")
        >>> beat.stop()
        """
        from workq.controller import recurring

        return recurring.every(self._row, self._intake.options, seconds, fn, args, kwargs)

    def cron(self, expression: str | Cron, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call at the times of a cron expression, as ``every`` does. Needs ``workq-manager[cron]``.

        Args:
            expression: Such as ``"*/5 * * * *"``, in this machine's time zone; ``workq.Cron("0 9 * * *", tz="Asia/Tokyo")`` for another.
            fn: What to call.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        >>> nightly = wq.cron("30 2 * * *", print, "good night")
        >>> nightly.next_at.strftime("%H:%M")
        '02:30'
        >>> nightly.stop()
        """
        from workq.controller import recurring

        return recurring.by_calendar(self._row, self._intake.options, expression, fn, args, kwargs)

    # ------------------------------------------------------------ workers of its own making

    def setup(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Have each worker call ``fn(*args)`` before its first unit of this queue: to connect, to load a model.

        It runs within the unit that meets it, whose time, output and time-out include it. Where it raises, that unit fails with
        ``SetupFailed``, and its worker takes no more units of this queue; others go on. Where it fails ``Settings.start_tries`` times in a
        row and no worker is left that was set up, the units that wait fail with the same error; the next one has it tried again. With
        ``num_workers=0`` it runs once, in the caller.

        Raises:
            TooLate: A unit has been queued already.
            PicklingError: ``fn`` or an argument cannot be sent; the message names it.
        """
        self._outfit("setup").set_up = packed(fn, args)

    def teardown(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Have each worker call ``fn(*args)`` after its last unit of this queue: when it leaves the queue, or the queue is closed.

        A worker that leaves and comes back is set up again. It does not run in a worker that was killed, and one that takes longer than
        ``Settings.close_timeout_s`` for it is killed. What it raises is logged. ``close()`` returns after it. With ``num_workers=0`` it
        runs in ``close()``.

        Raises:
            TooLate: A unit has been queued already.
            PicklingError: ``fn`` or an argument cannot be sent; the message names it.
        """
        self._outfit("teardown").tear_down = packed(fn, args)

    def _outfit(self, what: str) -> Outfit:
        row = self._row
        if row.closed:
            raise row.refusal()
        if row.has_begun():
            raise TooLate(f"{what} of queue {row.name} must be named before its first unit is queued: workers may have begun")
        row.outfit = row.outfit or Outfit()
        return row.outfit

    def session(self) -> Session:
        """Return a session: one worker of its own, that runs calls in order and keeps what they leave in its memory. See ``Session``.

        >>> with wq.session() as session:
        ...     session.run(len, "four")
        4
        """
        from workq.session import Session

        made = Session(self)
        self._sessions.add(made)
        return made

    # ------------------------------------------------------------ waiting

    def sync(self, timeout: float | None = None, *, stop_on_error: bool = False, progress: bool | str = False) -> QueueStatistics:
        """Wait for all units, write their output, make their callbacks, and return the queue's statistics.

        Units and callbacks that callbacks queue meanwhile are waited for too. Ctrl-C cancels what has not ended; the queue lives on.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            stop_on_error: False: all units run, whatever fails. True: the first failure of a unit that nobody has asked for, or of a
                callback, cancels the units that wait and interrupts those that run; callbacks that were not made yet stay for the next
                ``sync``.
            progress: Show how far it has come; see ``map``.

        Raises:
            WorkErrors: Units failed whose result nobody has asked for, or callbacks: an ExceptionGroup, in order of submission.
            TimeoutError: They have not ended within ``timeout`` seconds. They go on, and nothing is lost.

        >>> unit = wq.queue(print, "hello")
        >>> wq.sync().done
        hello
        1
        """
        check_timeout(timeout)
        if stop_on_error:
            from workq import holding

            holding.sync_to_first_failure(self._row, timeout, progress)
        else:
            gathering.sync(self._row, timeout, progress)
        return self.statistics()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as ``sync`` does, but no longer than until a callback returns ``workq.EXIT``.

        Callbacks that were not made before that one stay for the next wait.

        Args:
            timeout: Seconds to wait at most; None: until the end; 0: make the callbacks that are due, and look.

        Returns:
            True where nothing is outstanding; False after EXIT, or where the time ran out, if something is.

        Raises:
            WorkErrors: Nothing is outstanding, and units have failed whose result nobody has asked for, or callbacks have.

        >>> from workq import EXIT
        >>> unit = wq.queue_callback(len, lambda unit, text: EXIT, "four")
        >>> wq.wait(), wq.wait(0)
        (True, True)
        """
        check_timeout(timeout)
        return gathering.wait(self._row, timeout)

    def wait_one(self, timeout: float | None = None) -> Unit[Any] | None:
        """Wait for the next unit that has ended and was not yet handed out, make its callback, and return it.

        Returns None when nothing is outstanding. What callbacks raise is kept for ``sync``.

        Raises:
            TimeoutError: None ended within ``timeout`` seconds.

        >>> unit = wq.queue(len, "four")
        >>> wq.wait_one() is unit, wq.wait_one()
        (True, None)
        """
        check_timeout(timeout)
        return gathering.wait_one(self._row, timeout)

    def as_completed(self, timeout: float | None = None) -> Iterator[Unit[Any]]:
        """Yield the units of this queue as they end, until none is outstanding; each is handed out once.

        >>> units = [wq.queue(abs, -n) for n in range(3)]
        >>> sorted(unit.result() for unit in wq.as_completed())
        [0, 1, 2]
        """
        check_timeout(timeout)
        return iter(partial(gathering.next_completed, self, timeout), None)

    # ------------------------------------------------------------ in asyncio

    def completed(self, timeout: float | None = None) -> AsyncIterator[Unit[Any]]:
        """Yield the units of this queue as they end, in a coroutine: what ``as_completed`` is elsewhere.

        Args:
            timeout: Seconds to wait for the next unit at most; then TimeoutError.

        >>> import asyncio
        >>> async def main():
        ...     units = [wq.queue(abs, -n) for n in range(3)]
        ...     return sorted([await unit async for unit in wq.completed()])
        >>> asyncio.run(main())
        [0, 1, 2]
        """
        check_timeout(timeout)
        from workq import asynchronous

        return asynchronous.completed(self._row, timeout)

    async def finished(self, timeout: float | None = None) -> QueueStatistics:
        """Wait for all units in a coroutine, and return the queue's statistics: what ``sync`` is elsewhere.

        A coroutine that is cancelled in it leaves the units as they are.

        Args:
            timeout: Seconds to wait at most; then TimeoutError.

        Raises:
            WorkErrors: Units or callbacks have failed; see ``sync``.
        """
        check_timeout(timeout)
        from workq import asynchronous

        await asynchronous.finished(self._row, timeout)
        return self.statistics()

    async def aclose(self) -> None:
        """Delete the queue from a coroutine: what ``close`` is elsewhere."""
        from workq import asynchronous

        await asynchronous.close(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and not self._row.closed:
                self.resume()
                await self.finished()
        finally:
            await self.aclose()

    # ------------------------------------------------------------ holding up

    def pause(self, timeout: float | None = 0.0) -> bool:
        """Have workers take no new unit of this queue. What runs is never stopped; more may be queued.

        Args:
            timeout: Seconds to wait for units that run; None waits for ever.

        Returns:
            True as soon as none runs; False where some still do after ``timeout``: the queue is paused all the same.

        >>> wq.pause()
        True
        >>> unit = wq.queue(abs, -1)
        >>> wq.resume()
        >>> unit.result()
        1
        """
        check_timeout(timeout)
        self.controller.check_usable()
        from workq import holding

        return holding.pause(self._row, timeout)

    def resume(self) -> None:
        """Have workers take units of this queue again. Does nothing where it is not paused."""
        self.controller.check_usable()
        if self._row.paused and not self._row.closed:
            self.controller.pause_queue(self._row, False)

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self._row.paused

    def clear(self, timeout: float = 5.0) -> int:
        """Empty this queue. It stays usable, paused or not as it was.

        Units that wait are cancelled; those that run are waited for, then interrupted, then killed after ``delete_timeout``. What has
        ended and was not collected is forgotten, and callbacks that were not made yet are not made.

        Args:
            timeout: Seconds to wait for units that run, before they are interrupted.

        Returns:
            How many units it has cancelled.

        >>> wq.pause()
        True
        >>> units = [wq.queue(abs, -n) for n in range(3)]
        >>> wq.clear(), wq.wait_one()
        (3, None)
        """
        check_seconds("timeout", timeout)
        self.controller.check_usable()
        from workq import holding

        return holding.clear(self._row, timeout, _log_warning)

    # ------------------------------------------------------------ ending

    def close(self) -> None:
        """Delete the queue. When it returns, no unit of it runs any more and nothing can be queued on it.

        What waits is cancelled; what runs is interrupted, and killed after ``delete_timeout``. Where ``cleanup`` was called it returns
        at once. It does nothing where the queue was detached.
        """
        for session in list(self._sessions):
            session.close()
        if self._begin_close():
            row = self._row
            ended = f"queue {row.name} has not ended"
            gathering.wait_for(row, self._is_over, row.end_bound_s(), ended)
            self._end_close()

    def _begin_close(self) -> bool:
        """Begin to delete the queue; return whether its end is to be waited for."""
        row = self._row
        self._finalizer.detach()
        if self._is_detached() or (row.closed and not row.draining and not row.busy() and not row.fit):
            return False
        row.draining = False
        waits = row.opened and not row.cleanups
        if row.callbacks is not None:
            row.callbacks.drop()  # first: another thread may wait, and would make those of units that this ends
        self.controller.close_queue(row)
        if row.callbacks is not None:
            self.controller.wake_waiters()
        return waits and not self.controller.forked and not self.controller.closed

    def _is_over(self) -> bool:
        """Return whether nothing of the queue is left: no unit, no worker that has still to tear down."""
        return not self._row.busy() and self._row.gone and not self._row.fit

    def _end_close(self) -> None:
        """Say what is still to be said of the queue: it is gone."""
        if not isinstance(self.controller, Controller):
            self.controller.tear_down(self._row)  # in this very process, where that has run units of it
        self._row.emit()
        self.controller.tell_unasked(self._row, _log_warning)

    def shutdown(self, drain_timeout: float = 10.0) -> Shutdown:
        """Take nothing new, let what was queued end, for ``drain_timeout`` seconds at most, then ``close``.

        Output is written and callbacks are made as by ``sync``; what they queue on this queue is refused. What has not ended by then is
        interrupted, and killed after ``delete_timeout``.

        Returns:
            Which units were interrupted, which were never begun, and what failed; true where nothing was cut short.

        >>> from workq import WorkMgr
        >>> wq = WorkMgr(1)
        >>> unit = wq.queue(len, "four")
        >>> bool(wq.shutdown(drain_timeout=30)), unit.result()
        (True, 4)
        """
        check_seconds("drain_timeout", drain_timeout)
        from workq.controller import draining

        gathering.refuse_in_callback(self._row, "shutdown()")
        begun, failures = time.monotonic(), []
        if self._row.paused and not self._row.closed:  # a paused one would end nothing
            self.resume()
        draining.begin([self._row])
        try:
            gathering.sync(self._row, drain_timeout)
        except TimeoutError:
            pass
        except WorkErrors as error:
            failures = list(error.exceptions)
        row = self._row
        runs, waits = self.controller.open_units(row)
        self.close()
        if runs or waits:  # where `cleanup` was called nothing has waited for them yet
            ended = f"queue {row.name} has not ended"
            gathering.wait_for(row, lambda: all(unit.done() for unit in (*runs, *waits)), row.end_bound_s(), ended)
        return draining.report(runs, waits, begun, failures)

    def cleanup(self, fn: Callable[..., object], *args: Any) -> None:
        """Have ``fn(*args)`` called once, when this queue has been deleted and no unit of it runs any more.

        It makes deletion asynchronous: ``close()``, leaving a ``with`` block and dropping the last reference return at once. ``fn`` is
        called in this process, in workq's delivery thread; what it raises is logged. Several are called in their order.

        Raises:
            QueueClosed: The queue has been closed already.
            WorkqError: This is a unit: its queues end with it.

        >>> from threading import Event
        >>> from workq import WorkMgr
        >>> gone = Event()
        >>> with WorkMgr(1) as wq:
        ...     wq.cleanup(gone.set)
        ...     wq.queue(abs, -1).result()
        1
        >>> gone.wait(10)
        True
        """
        check_callable("fn", fn)
        if not self._inline and context.is_worker_job():
            raise WorkqError("a queue that a unit makes ends with the unit at the latest, so nothing can be called afterwards: close() it")
        if self._row.closed:
            raise self._row.refusal()
        self._row.cleanups.append((fn, args))

    # ------------------------------------------------------------ giving it away

    def detach(self, timeout: float = 86400.0) -> str:
        """Give this queue away: its work goes on, and whoever has the token can attach it, in this process, as long as that lives.

        Output and callbacks are kept for the one who attaches. This object can do nothing with the queue any more: most calls raise
        ``QueueDetached``, the numbers of its workers are -1, and ``close()`` does nothing.

        Args:
            timeout: Seconds until the token ends. If nobody has attached the queue by then, it is deleted.

        Returns:
            The token: secret, and good once.

        Raises:
            WorkqError: This is a unit: its queues end with it.

        >>> from workq import WorkMgr
        >>> wq = WorkMgr(1)
        >>> unit = wq.queue(abs, -1)
        >>> token = wq.detach()
        >>> wq.num_workers
        -1
        >>> with WorkMgr.attach(token) as again:
        ...     again.wait_one() is unit
        True
        """
        check_seconds("timeout", timeout, above=True)
        if context.is_worker_job():
            raise WorkqError("a queue that a unit makes ends with the unit at the latest, so it cannot be detached")
        self.controller.check_usable()
        row = self._row
        if row.closed:
            raise row.refusal()
        from workq.detaching import Detached, issue

        stand_in: Any = Detached(row)
        self._row = stand_in
        for intake in (self._intake, *self._intakes.values()):
            intake.detach(stand_in)
        row.holder = None
        self._finalizer.detach()
        return issue(row, float(timeout))

    @classmethod
    def attach(cls, token: str) -> Self:
        """Return a WorkMgr that has the queue that was detached with this token.

        Raises:
            TokenError: The token is of no queue of this process, has been used, or has expired.
        """
        from workq.detaching import redeem

        row = redeem(token)
        manager = cls.__new__(cls)
        manager.controller = row.controller
        manager._inline = row.controller.inline
        manager._take(row)
        return manager

    def _is_detached(self) -> bool:
        return type(self._row) is not Queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and not self._row.closed:  # nor detached
                self.resume()  # else the wait would never end
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
        """The most workers that serve it at once: the effective number, after clamping. ``limits`` says why. -1 where it was detached.

        It may be set at any time. Fewer: those that are too many end what they have begun; nothing is interrupted. More than the
        category's ``max_workers`` is clamped. A queue without workers (0) stays one, and the others keep at least 1.

        >>> wq.num_workers = 1
        >>> wq.num_workers
        1
        """
        row = self._row
        if self._is_detached():
            return -1
        if not row.opened and row.category in self.controller.pools:  # its category's limits may have changed since it was made
            row.max_workers = self.controller.pools[row.category].clamp(row.wanted_workers)
        return 0 if self._inline else row.max_workers

    @num_workers.setter
    def num_workers(self, number: int) -> None:
        check_whole("num_workers", number, least=0)
        if self._inline != (number == 0):
            has = "has no workers: units run in whoever waits" if self._inline else "has workers"
            raise ArgumentError(f"num_workers cannot be changed from or to 0, and queue {self._row.name} {has}; make another WorkMgr")
        if self._inline:
            return
        limits = self.controller.category(self._row.category)
        self._row.asked_workers = self._row.wanted_workers = int(number)
        self.controller.change_workers(self._row, limits.clamp(number))
        self._tell_clamped(limits)

    def _tell_clamped(self, limits: Category) -> None:
        """Say it where a queue has fewer workers than were wanted."""
        if not self._inline and self._row.wanted_workers > limits.max_workers:
            from workq.controller.pools import tell_clamped

            tell_clamped(self._row, limits)

    @property
    def max_pending(self) -> int | None:
        """How many of its units may wait; None: any number."""
        return None if self._row.gate is None else self._row.gate.max_pending

    @property
    def limits(self) -> QueueLimits:
        """What it may have, with the limits of its category, and why: prints as a table, and has named fields.

        >>> wq.limits.num_workers, wq.limits.reason
        (2, 'as asked for')
        """
        self._row.max_workers = self.num_workers or 1
        from workq.controller.pools import limits_of_queue

        return limits_of_queue(self._row, self.controller.category(self._row.category), self._inline)

    @property
    def num_active_workers(self) -> int:
        """How many workers run units of it now, blocked ones left out. -1 where it was detached."""
        if self._is_detached():
            return -1
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
        if row.closed:
            return f"<WorkMgr {row.name}: {'detached' if self._is_detached() else 'closed'}>"
        open_units = row.open_units()
        units = "nothing to do" if not open_units else f"{open_units} unit{'s' * (open_units != 1)} to do"
        workers = "no workers" if self._inline else f"{len(row.workers)} of {row.max_workers} worker{'s' * (row.max_workers != 1)}"
        return f"<WorkMgr {row.name}: {units}, {workers}{', paused' if row.paused else ''}>"

    def _repr_html_(self) -> str:
        """Return its statistics, as a notebook shows them."""
        return self.statistics()._repr_html_()


def carried_of(contextvars: Any, trace_context: Any) -> Carried:
    """Return what units are given of their caller's context; raise where that makes no sense."""
    if not isinstance(trace_context, bool):
        raise ArgumentError(f"trace_context must be True or False, not {trace_context!r}")
    from workq.carrying import Carried
    from workq.transport import incontext

    if trace_context and not incontext.can_trace():
        raise ArgumentError("trace_context=True needs OpenTelemetry: install workq-manager[opentelemetry]")
    return Carried(contextvars, trace_context)


def intake_of(row: Queue, options: Options, carried: Carried | None) -> Intake:
    """Return what makes units with these options."""
    if row.gate is not None:
        from workq.controller.gate import BoundedIntake

        return BoundedIntake(_unbounded(row, options, carried), row.gate)
    return _unbounded(row, options, carried)


def _unbounded(row: Queue, options: Options, carried: Carried | None) -> Intake:
    if carried is not None:
        from workq.carrying import ContextIntake

        return ContextIntake(row, options, carried)
    if options.queue_timeout is None:
        return Intake(row, options)
    from workq.controller.queuetime import TimedIntake

    return TimedIntake(row, options)


def _check_bound(max_pending: object, when_full: object, full_timeout: object) -> None:
    if max_pending is not None:
        check_whole("max_pending", max_pending, least=1)
    if when_full not in ("block", "raise", "drop_oldest"):
        raise ArgumentError(f"when_full must be 'block', 'raise' or 'drop_oldest', not {when_full!r}")
    if full_timeout is not None:
        check_seconds("full_timeout", full_timeout)
    if max_pending is None and (when_full != "block" or full_timeout is not None):
        raise ArgumentError("when_full and full_timeout say what happens at the bound that max_pending sets: name it too")


def _policy(retries: object) -> RetryPolicy | None:
    from workq.controller import retrying  # for whoever meets the first failure: it holds locks, and must not have to load it
    from workq.retry import policy_of

    assert retrying is not None
    return policy_of(retries)


def _log_warning(message: str) -> None:
    logging.getLogger("workq").warning("%s", message)


def _drop(row: Queue) -> None:
    """The last reference to a WorkMgr is gone: delete its queue. May run in any thread, in the middle of anything."""
    row.why_deleted = DROPPED
    row.controller.close_queue(row)


def categories() -> CategoryTable:
    """Return the categories that queues of this process draw from: prints as a table, is a mapping, and makes, changes, deletes them.

    Those of another controller are its ``categories``. In a unit they can be read.

    >>> sorted(categories())
    ['Default', 'SQL', 'Utility']
    """
    from workq.controller.pools import CategoryTable

    return CategoryTable(_controller_here())


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


__all__ = ["WorkMgr", "categories"]
