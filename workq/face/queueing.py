"""Queueing: how units come to a work queue, and what its workers do before and after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from workq.controller.outfit import Outfit, packed
from workq.controller.records import Options
from workq.errors import TooLate
from workq.face.intakes import intake_of
from workq.face.seeing import Seeing
from workq.face.view import View, results_of
from workq.given.arguments import check_amount, check_callable, check_name, check_seconds, check_whole, plain
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.recurring import Recurring
    from workq.core.retrying import RetryPolicy
    from workq.face.mapping import Results
    from workq.face.session import Session
    from workq.retry import Retry
    from workq.schedule import Cron

P = ParamSpec("P")
T = TypeVar("T")

MOST_OPTIONS = 1000  # sets of options that one queue remembers


class Queueing(Seeing):
    """What queues units on a work queue."""

    __slots__ = ()

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
        return self._intake.queue(fn, args, kwargs)

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
        from workq.face.callbacks import queue_with

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
            check_seconds("timeout", timeout, above=True, none="for no limit")
        if queue_timeout is not None:
            check_seconds("queue_timeout", queue_timeout, above=True, none="for no limit")
        if memory_mb is not None:
            check_amount("memory_mb", memory_mb, "MiB", none="for no limit")
        if cpu_s is not None:
            check_seconds("cpu_s", cpu_s, above=True, none="for no limit")
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
            if len(self._intakes) >= MOST_OPTIONS:
                self._former.add(self._intakes.popitem()[1])
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
            errors: What becomes of an item that fails, or that cannot be sent (``PicklingError``). ``"raise"``: its exception is raised in
                its place, and who asks for the next result afterwards gets it; ``"return"``: the exception stands among the results;
                ``"skip"``: it is left out. What an iterable raises comes behind the results of what it gave before, and ends the map.
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
        from workq.face.session import Session

        made = Session(self)
        self._sessions.add(made)
        return made


def _policy(retries: object) -> RetryPolicy | None:
    from workq.controller import retrying  # for whoever meets the first failure: it holds locks, and must not have to load it
    from workq.retry import policy_of

    assert retrying is not None
    return policy_of(retries)


__all__ = ["Queueing"]
