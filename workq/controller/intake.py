"""From a call to a unit in its queue's backlog: what `WorkMgr.queue` does, by whichever thread calls it."""

from __future__ import annotations

import _pickle
import threading
import time
from collections.abc import Callable
from typing import Any

from workq.controller.records import Call, Large, Options, Queue
from workq.core.times import Times
from workq.errors import ArgumentError, CategoryError, LaunchError, QueueClosed, WorkqError
from workq.outcome import PENDING
from workq.transport import codec, segments, sharing
from workq.transport.codec import NO_ARGUMENTS
from workq.transport.segments import LARGE_BYTES, POSSIBLE
from workq.unit import Unit

OFTEN = (KeyError, TypeError, AttributeError, ValueError, RecursionError, _pickle.PicklingError)  # what is raised for what pickle cannot do
MOST_CALLS = 1000  # functions that one queue remembers; beyond, the function travels with each unit
PLAIN = Options()

_dumps, _clock, _new = _pickle.dumps, time.monotonic_ns, object.__new__


class Intake:
    """Makes the units of one queue that have the same options. Any thread; a lock only where a function is seen for the first time."""

    def __init__(self, queue: Queue, options: Options = PLAIN) -> None:
        self._queue = queue
        self._controller = queue.controller
        self.options = options
        self._calls: dict[Callable[..., Any], Call] = {}  # of functions called without keywords
        self._named_calls: dict[Callable[..., Any], Call] = {}  # with keywords
        self._large_calls: dict[tuple[Callable[..., Any], bool], Call] = {}  # of functions that were given large arguments
        self._travelling: dict[str, Call] = {}  # by name: of functions that travel with each unit
        self._lock = threading.RLock()  # a signal handler may queue while its own thread does
        self._main_by_value = False  # what is defined in __main__ travels by value, so arguments that name it must as well
        self._ticks = 0

    def queue(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Unit[Any]:
        """Make a unit, append it, and send it if a worker may take it. The hot path's beginning.

        The arguments come as they are: to unpack them here and pack them again would take 300 ns.
        """
        queue = self._queue
        if queue.closed:
            self._refuse()
        data: Any  # bytes, or Large
        call = caught = None
        try:
            if kwargs:
                call, data = self._named_calls[function], _dumps((args, kwargs), 5)
            else:
                call, data = self._calls[function], _dumps(args, 5) if args else NO_ARGUMENTS
            if len(data) > LARGE_BYTES:
                self._is_large(function, kwargs)
            if self._main_by_value and b"__main__" in data:
                data = codec.dump_arguments(args, kwargs, function)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # seen for the first time, or something that pickle cannot do, or that raises whatever it likes
            caught, call = error, None
        if caught is not None:  # out here, so that an error's traceback is not that of two
            try:
                call, data = self._slowly(function, args, kwargs)
                if not isinstance(caught, OFTEN):  # and now it can be done: what was raised was not pickle's, but a signal handler's
                    raise caught
            finally:
                caught = None  # it knows this frame, and that the caller's: together they would keep his WorkMgr
        assert call is not None
        unit: Unit[Any] = _new(Unit)  # filled here: a call of __init__ would cost as much as all the rest of it
        unit.call = call
        unit.data = data
        unit.id = next(queue.ids)
        unit.queued_ns = _clock()
        unit.value = PENDING
        unit.extra = unit.worker_record = None
        if type(data) is Large:
            unit.need_extra().large = data
        if sharing.exist:
            handles = sharing.take_pickled()
            if handles:
                unit.need_extra().handles = handles
        unit.started_ns = unit.ended_ns = 0
        priority = self.options.priority
        try:
            if priority:
                queue.backlog(priority).append(unit)
            else:
                queue.pending.append(unit)
            if queue.room:
                self._dispatch()
            elif (queue.depth() if priority else len(queue.pending)) > queue.told and queue.rung != queue.looks:
                self._tell(unit)
            else:
                self._ticks += 1
                if self._ticks >= queue.poll_each:
                    self._ticks = 0
                    self._controller.running().lead.try_pump()
        except (LaunchError, CategoryError):
            raise
        except QueueClosed:  # the controller, by another thread, while the arguments were pickled
            self._take_back(unit)
            raise
        except BaseException:  # a signal handler's: the unit may be in the queue, and then it must not stay there
            self._tell(unit)
            raise
        if queue.closed and not queue.draining:  # while the arguments were pickled: what waits was dropped, and this one came afterwards
            self._end_late(unit)
        return unit

    def _dispatch(self) -> None:
        loop = self._controller.running()
        lock = loop.dispatcher.lock
        if lock._is_owned():  # type: ignore[attr-defined]
            loop.look_at(self._queue)  # a signal handler or a finalizer, in the middle of a dispatch: the controller goes on
            return
        with lock:
            loop.dispatcher.dispatch(self._queue)

    def _tell(self, unit: Unit[Any]) -> None:
        queue = self._queue
        if not queue.opened:
            try:
                self._controller.open_queue(queue)
                queue.opened = True  # afterwards: where an exception of a signal handler strikes, the next unit opens it
            except (OSError, ImportError, RuntimeError, CategoryError) as error:  # no descriptors, no threads; the category was deleted
                queue.opened = False  # nothing is queued, and later it may go
                self._take_back(unit)
                if isinstance(error, WorkqError):
                    raise
                raise LaunchError(f"workq cannot start: {error}") from error
        self._controller.running().look_at(queue)

    def _end_late(self, unit: Unit[Any]) -> None:
        """Have a unit end that came after its queue was deleted; refuse it where nobody may be there any more who ends it."""
        if self._controller.closed and self._take_back(unit):
            self._refuse()
        self._controller.close_queue(self._queue)

    def _take_back(self, unit: Unit[Any]) -> bool:
        """Have a unit not be queued after all; return False where whoever closed the queue or its controller has dropped it."""
        try:
            self._queue.backlog(unit.call.options.priority).remove(unit)
        except ValueError:
            return False
        return True

    def _refuse(self) -> None:
        self._controller.check_usable()
        raise self._queue.refusal()

    def detach(self, stand_in: Any) -> None:
        """Refuse from now on: the queue was given away."""
        self._queue = stand_in

    # ------------------------------------------------------------ functions

    def _slowly(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, bytes]:
        """Make a function known, or pack it with the unit where what it holds may change from one unit to the next."""
        if type(function) in _CACHEABLE and (function, bool(kwargs)) in self._large_calls:  # checked when it was seen first
            return self._large_calls[function, bool(kwargs)], self._pack(function, args, kwargs)
        self._check(function)
        calls = self._named_calls if kwargs else self._calls
        call = calls.get(function) if type(function) in _CACHEABLE else None
        if call is not None:
            return call, codec.dump_arguments(args, kwargs, function)
        pickled, stable = codec.dump_function(function)
        data = codec.dump_arguments(args, kwargs, function)
        name = self.options.name or codec.name_of(function)
        if stable and type(function) in _CACHEABLE and len(calls) < MOST_CALLS:
            return self._call(calls, function, pickled, bool(kwargs), name), data
        return self._travels(pickled, data, bool(kwargs), name)

    def _check(self, function: Callable[..., Any]) -> None:
        """Raise where nothing can be queued, or not this."""
        if not callable(function):
            raise ArgumentError(f"fn must be callable, not {function!r}")
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & CO_COROUTINE:
            raise ArgumentError(f"fn must not be a coroutine function ({codec.name_of(function)}): queue one that calls asyncio.run()")
        self._controller.check_usable()
        self._main_by_value = not codec.main_is_importable()

    def _travels(self, pickled: bytes, data: bytes, keywords: bool, name: str) -> tuple[Call, bytes]:
        """Pack a function with the arguments of one unit."""
        return self._call(self._travelling, name, _carrier(), False, name), _dumps((pickled, data, keywords), 5)

    def sibling(self, options: Options) -> Intake:
        """Return an intake of the same kind with other options."""
        return Intake(self._queue, options)

    def _is_large(self, function: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        """From now on this function's arguments are written to shared memory, where they are large: it leaves the hot path."""
        call = (self._named_calls if kwargs else self._calls).pop(function, None)
        if call is not None and POSSIBLE:
            self._large_calls[function, bool(kwargs)] = call
            self._queue.large = True

    def _pack(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments in a segment, or as bytes where they are small, or where there is no memory for one."""
        try:
            pieces = segments.dump((args, kwargs) if kwargs else args)
            if segments.total_bytes(pieces) > LARGE_BYTES and not (self._main_by_value and b"__main__" in pieces[0]):
                return Large(*self._controller.segments.write(pieces))
        except KeyboardInterrupt:
            raise
        except BaseException:
            pass  # the ordinary way says what is wrong, or has a way
        return codec.dump_arguments(args, kwargs, function)

    def _call(self, calls: dict[Any, Call], key: Any, pickled: bytes, keywords: bool, name: str) -> Call:
        with self._lock:
            call = calls.get(key)
            if call is None:
                tallies = getattr(self._controller, "tallies", None)
                usual = tallies.usual_of(name, pickled) if tallies is not None else Times()
                call = calls[key] = Call(self._queue, next(self._controller.call_numbers), pickled, keywords, name, self.options, usual)
            return call


def _carrier() -> bytes:
    from workq.transport import byvalue

    return codec.dump_function(byvalue.call)[0]


def _plain_function() -> None: ...


CO_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect itself costs 10 ms to import
_CACHEABLE = frozenset({type(_plain_function), type(len), type})
