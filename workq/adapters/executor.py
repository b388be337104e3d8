"""Executor: a ``concurrent.futures.Executor`` whose calls are units."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import ParamSpec

from workq.adapters.pool import AFTER_SHUTDOWN, Pool
from workq.errors import ArgumentError, ArgumentTypeError, PicklingError, is_handle, not_in_time
from workq.given.arguments import check_future_timeout
from workq.given.cpus import usable_cpus
from workq.transport import codec, group
from workq.unit import Unit

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from workq.manager import WorkMgr

P = ParamSpec("P")
T = TypeVar("T")

START_METHODS = {"fork": "fork", "spawn": "spawn", "forkserver": "launcher"}


class Executor(futures.Executor):
    """A process pool with the face of ``concurrent.futures.ProcessPoolExecutor``, for code that expects one.

    It keeps that contract, but for one point, on purpose: a worker that dies fails the call that it ran, with ``WorkerHalted``, which is
    a ``BrokenProcessPool``; all other calls go on, and so does the pool. Futures are units: ``future.cancel()`` ends a call that runs,
    too, ``future.worker`` says who runs it, and ``await future`` works.

    The contract's other half is kept as well: calls that were submitted are completed, at ``shutdown()`` and where the interpreter ends.

    Args:
        max_workers: The most worker processes. Default: the usable CPUs (affinity and cgroup quota).
        mp_context: A context of multiprocessing: of ``"fork"`` workers are forks of this program, of ``"spawn"`` each is a new interpreter,
            of ``"forkserver"``, and without one, they are forks of workq's launcher.
        initializer: Called by each worker when it starts. Where it raises, all calls fail with ``BrokenProcessPool``; so does ``submit``.
        initargs: Its arguments; they may hold locks, queues and pipes of multiprocessing.
        max_tasks_per_child: A worker is replaced after so many calls. Default: None, never. Not with ``"fork"``.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument. It is a ValueError, and a TypeError where the standard
            library raises that.

    >>> from workq import Executor
    >>> with Executor(max_workers=2) as executor:
    ...     future = executor.submit(pow, 2, 10)
    ...     future.result(), list(executor.map(abs, [-1, -2]))
    (1024, [1, 2])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        self._max_workers: int = usable_cpus() if max_workers is None else max_workers
        method = _method_of(mp_context)
        _check(self._max_workers, method, initializer, max_tasks_per_child)
        if not isinstance(initargs, Iterable):
            raise ArgumentTypeError(f"initargs must be a tuple, not {initargs!r}")
        self._pool = Pool(self._max_workers, START_METHODS[method], initializer, tuple(initargs), max_tasks_per_child)
        weakref.finalize(self, _let_go, self._pool).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and return its future at once.

        Raises:
            RuntimeError: After ``shutdown()``, or while the interpreter ends.
            BrokenProcessPool: No worker can be started.
        """
        pool = self._pool
        entering = pool.entering
        entering.append(None)
        try:
            if pool.refusal or pool.broken:
                pool.check()
            return pool.intake.queue(fn, args, kwargs)
        except PicklingError as error:
            return pool.refused_unit(fn, error)
        finally:
            entering.pop()
            if pool.refusal:
                pool.left()

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator of the results of ``fn`` over the iterables, in order.

        The iterables are read at once, but for a ``buffersize``. (``WorkMgr.map`` reads them as the work goes on.)

        Args:
            fn: Called with one item of each iterable, as the built-in `map` does.
            *iterables: What the items come from.
            timeout: Seconds from this call on until the last result is taken; then TimeoutError.
            chunksize: How many items travel together.
            buffersize: How many calls at most are submitted and not yet yielded.
        """
        if not isinstance(chunksize, int):
            raise ArgumentTypeError(f"chunksize must be an integer, not {chunksize!r}")
        if chunksize < 1:
            raise ArgumentError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise ArgumentTypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ArgumentError("buffersize must be None or > 0")
        check_future_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = self._calls(fn, zip(*iterables), chunksize)  # noqa: B905 - as the built-in map: the shortest decides
        units = deque(islice(calls, buffersize))
        return _results(units, calls if buffersize is not None else iter(()), timeout, deadline, chunksize > 1)

    def _calls(self, fn: Callable[..., Any], items: Iterator[tuple[Any, ...]], chunksize: int) -> Iterator[Unit[Any]]:
        """Submit what there is to do, one at each step."""
        if chunksize == 1:
            for arguments in items:
                yield self.submit(fn, *arguments)
        else:
            while part := list(islice(items, chunksize)):
                yield self.submit(group.run_spread, fn, part)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the workers once those that were taken have ended.

        Args:
            wait: Return when that is so. False: return at once; it is done in the background.
            cancel_futures: Cancel the calls that have not begun.
        """
        pool = self._pool
        pool.refusal = pool.refusal or AFTER_SHUTDOWN
        if cancel_futures:
            pool.drop_waiting()
        if wait:
            pool.finish()
        else:
            pool.finish_in_background()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:  # who presses Ctrl-C does not want to wait for what is pending
            self._pool.break_off()
        self.shutdown(wait=True)

    @property
    def work_queue(self) -> WorkMgr:
        """The queue behind it, for what an executor has no words for: ``options``, ``statistics()``, ``workers()``, ``metrics()``."""
        return self._pool.manager

    @property
    def _broken(self) -> str:
        """Why it is not usable any more, or an empty text; looked at by who knows ProcessPoolExecutor."""
        return self._pool.broken

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle("an Executor")

    def __repr__(self) -> str:
        pool = self._pool
        state = "shut down" if pool.refusal else f"{pool.row.open_units()} calls open"
        return f"<Executor: {state}, {self._max_workers} workers at most>"


def _method_of(mp_context: Any) -> str:
    """Return the start method of a context of multiprocessing."""
    if mp_context is None:
        return "forkserver"
    if not hasattr(mp_context, "get_start_method"):
        example = mp_context if isinstance(mp_context, str) and mp_context in START_METHODS else "spawn"
        raise ArgumentTypeError(
            f"mp_context must be a context, such as multiprocessing.get_context({example!r}), or None, not {mp_context!r}"
        )
    method: str = mp_context.get_start_method()
    return method


def _check(max_workers: object, method: str, initializer: object, max_tasks: object) -> None:
    """Raise where an argument is not allowed, in the standard library's words."""
    if not isinstance(max_workers, int) or isinstance(max_workers, bool):
        raise ArgumentTypeError(f"max_workers must be an integer or None, not {max_workers!r}")
    if max_workers <= 0:
        raise ArgumentError("max_workers must be greater than 0")
    if method not in START_METHODS:
        raise ArgumentError(f"mp_context must be of a start method of {', '.join(START_METHODS)}, not {method!r}")
    if initializer is not None and not callable(initializer):
        raise ArgumentTypeError("initializer must be a callable")
    if max_tasks is not None:
        if not isinstance(max_tasks, int) or isinstance(max_tasks, bool):
            raise ArgumentTypeError("max_tasks_per_child must be an integer")
        if max_tasks <= 0:
            raise ArgumentError("max_tasks_per_child must be >= 1")
        if method == "fork":
            raise ArgumentError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; supply a different mp_context."
            )


def _results(
    units: deque[Unit[Any]], more: Iterator[Unit[Any]], timeout: float | None, deadline: float | None, grouped: bool
) -> Iterator[Any]:
    """Yield results in order, and hold none that was yielded. What was not taken when it ends is cancelled, unless it has begun."""
    try:
        while units:
            try:
                value = units[0].result(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                if units[0].done():  # it was the call's own
                    raise
                raise not_in_time(f"unit {units[0].label} has not ended", timeout) from None
            units.popleft()
            units.extend(islice(more, 1))
            if grouped:
                values, failures = value
                del value
                del values[failures[0][0] if failures else len(values) :]
                values.reverse()
                while values:
                    yield values.pop()
                if failures:
                    raise codec.load_error(failures[0][1], exact=True)
            else:
                box = [value]
                del value
                yield box.pop()
    finally:
        for unit in units:
            unit.call.queue.controller.drop_unbegun(unit)


def _let_go(pool: Pool) -> None:
    """Nobody holds the executor any more: what was submitted is completed, then the workers end. May run in the middle of anything."""
    pool.refusal = pool.refusal or AFTER_SHUTDOWN
    pool.finish_in_background()
