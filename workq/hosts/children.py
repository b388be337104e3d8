"""A unit that waits for units of its own runs them itself, where ``max_total_workers`` leaves no other worker: the worker's side.

The parent's side, and how the two speak, is ``workq.controller.children``. Such a unit runs on the stack of the one that waits, in the
worker's main thread, and for everybody else it is a unit like any other: ``current_unit()``, its output and log records, its time-out and
its interrupts are its own. Only units of the queue that is waited for are run, so that all that stands below one on the stack waits for it
anyway. What it does to the process it does to the unit that waits: if it takes the worker with it, both are lost.
"""

from __future__ import annotations

import _pickle
import logging
import threading
import time
from itertools import count
from marshal import dumps as marshal_dumps
from typing import TYPE_CHECKING, Any

from workq import context
from workq.interruption import ExternalInterrupt
from workq.transport import codec, failures
from workq.transport.board import BLOCKED, KIND_ERROR, KIND_INTERRUPTED, KIND_NOTED, KIND_PICKLE
from workq.worker import fitting, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from workq.controller.records import Call, Queue
    from workq.hosts.nested import NestedController
    from workq.unit import Unit

Grant = tuple[int, int, int, int, int]  # the offer, the worker's number of the queue, the unit's there, its number here, its attempt


class OwnRuns:
    """What this worker was given to run itself. ``take`` may be called by any thread that reads, the rest belongs to the main thread."""

    def __init__(self, nested: NestedController, side: Any) -> None:
        self._nested = nested
        self._side = side
        self._numbers = count(1)
        self._outstanding: set[int] = set()  # offers that were made and are neither taken up nor withdrawn
        self._granted: dict[int, Grant] = {}  # by offer
        self._functions: dict[int, dict[int, Callable[..., Any]]] = {}  # by queue, and by the number of their call
        self._set_up: dict[int, Queue] = {}  # the queues that were set up here

    def may_offer(self, queue: Queue | None) -> bool:
        """Return whether units of a queue may have to be run here: its category is ours and has a hard limit; we are the main thread."""
        if queue is None or queue.category != self._side.category or threading.get_ident() != self._side.main_thread:
            return False
        limits = self._nested.pools_as_known().get(queue.category)
        return limits is not None and limits.max_total_workers is not None

    def offer(self, queue: Queue) -> int:
        """Offer to run a unit of a queue, and return the number of the offer."""
        number = next(self._numbers)
        self._outstanding.add(number)
        self._nested.request("offer", queue.number, number)
        return number

    def take(self, offer: int, *grant: int) -> None:
        """A unit was given to us for an offer."""
        if offer in self._outstanding:
            queue, unit, number, attempt = grant
            self._granted[offer] = offer, queue, unit, number, attempt

    def withdraw(self, queue: Queue, offer: int) -> None:
        """Take an offer back, and what was given for it."""
        self._outstanding.discard(offer)
        self._granted.pop(offer, None)
        self._nested.request("withdraw", queue.number, offer)

    def granted(self, offer: int) -> Grant | None:
        """Return what was given for an offer, which is used up by it."""
        if offer not in self._granted:
            return None
        self._outstanding.discard(offer)
        return self._granted.pop(offer)

    # ------------------------------------------------------------ running

    def run(self, unit: Unit[Any], offer: int, number: int, attempt: int) -> None:
        """Run a unit here and now, and tell the parent how it has ended. An interrupt of a unit that waits for it goes on down to that."""
        side = self._side
        info = context.UnitInfo(unit.id, unit.name, unit.call.queue.name, attempt, side.name)
        try:
            stage = Stage(side, number, info)
        except BaseException:  # an interrupt of the unit that waits
            self.withdraw(unit.call.queue, offer)
            raise
        with stage:
            self._nested.request("begun", number, time.monotonic_ns())
            kind, payload, swept_away = self._outcome(unit, number, stage)
            if side.forked:
                side.end_child()
            kind, payload = stage.noted(kind, payload)
            self._nested.request("ended", number, kind, payload, time.monotonic_ns(), swept_away is not None)
        if swept_away is not None:
            raise swept_away

    def _outcome(self, unit: Unit[Any], number: int, stage: Stage) -> tuple[int, bytes, ExternalInterrupt | None]:
        """Call the function; return kind and payload of its end, and the interrupt that was for somebody below, if one struck."""
        where = f"{unit.label}, in {self._side.name} (pid {self._side.pid})"
        loaded = False
        caught: BaseException
        try:
            try:
                stage.arm()
                function, arguments = self._function(unit.call), codec.load(unit.data)
                loaded = True
                value = function(*arguments)
                payload = self._dumped(value, where)
                stage.disarm()
                return KIND_PICKLE, payload, None
            except BaseException as error:
                stage.disarm()
                caught = error
        except ExternalInterrupt as error:  # it struck while the unit's own exception was being caught; it cannot strike again
            caught = error
        kind = KIND_INTERRUPTED if type(caught) is ExternalInterrupt and caught.args == (number,) else KIND_ERROR
        below = type(caught) is ExternalInterrupt and stage.is_for_somebody_below(caught)
        note = "" if loaded else "The unit's function or arguments could not be loaded; it was not called."
        return kind, codec.dump_error(caught, where, note), caught if below and isinstance(caught, ExternalInterrupt) else None

    def _function(self, call: Call) -> Callable[..., Any]:
        functions = self._functions.setdefault(call.queue.number, {})
        function = functions.get(call.number)
        if function is None:
            loaded: Callable[..., Any] = codec.load(call.pickled)
            if call.queue.outfit is not None:
                loaded = self._after_set_up(call.queue, loaded)
            function = functions[call.number] = (lambda arguments, named: loaded(*arguments, **named)) if call.keywords else loaded
        return function

    def _after_set_up(self, queue: Queue, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its queue's set-up before it, which runs once here; where it fails the unit does."""

        def after_set_up(*arguments: Any, **named: Any) -> Any:
            if queue.number not in self._set_up:
                try:
                    fitting.do(queue.outfit.set_up if queue.outfit is not None else None)
                except Exception as error:
                    where = f"{self._side.name} (pid {self._side.pid})"
                    raise failures.setup_failed(queue.name, where, error) from error
                self._set_up[queue.number] = queue
            return function(*arguments, **named)

        return after_set_up

    def tear_down(self, queue: Queue) -> None:
        """The queue is closed: do what it wants done last, if it was set up here."""
        if self._set_up.pop(queue.number, None) is not None and queue.outfit is not None:
            try:
                fitting.do(queue.outfit.tear_down)
            except Exception:
                logging.getLogger("workq").exception("the teardown of queue %s failed", queue.name)

    def forget(self, queue: Queue) -> None:
        """The queue is closed: its functions are needed no more."""
        self._functions.pop(queue.number, None)

    @staticmethod
    def _dumped(value: object, where: str) -> bytes:
        try:
            return _pickle.dumps(value, 5)
        except (ExternalInterrupt, KeyboardInterrupt):
            raise
        except BaseException:
            return codec.dump_result(value, where)


class Stage:
    """The process as a unit finds it that runs while another one waits; all is as it was when that one goes on."""

    def __init__(self, side: Any, number: int, info: context.UnitInfo) -> None:
        side.flush()  # what the waiting unit has written so far is its own
        self._side = side
        self._number = number
        self._outer = side.interrupts.enter(number)  # from here on no interrupt strikes until `arm`
        self._room = side.output.room, side.output.dropped_bytes
        self._watcher = leftovers.Watcher(side.interrupts)
        self._blocked, side.words[BLOCKED] = side.words[BLOCKED], 0
        side.own.append((number, info))

    def __enter__(self) -> Stage:
        return self

    def arm(self) -> None:
        """From here on interrupts strike: the unit's own, and those of the units that wait for it."""
        self._side.interrupts.unshield(self._number)

    def disarm(self) -> None:
        """And here they cease to."""
        self._side.interrupts.armed[0] = 0

    def is_for_somebody_below(self, error: ExternalInterrupt) -> bool:
        """Return whether an interrupt names a unit that waits for this one."""
        return bool(error.args) and error.args[0] in self._side.interrupts.below

    def noted(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        """Add what the unit wrote and left behind to its end."""
        from workq.worker import logs

        logs.keep()
        chunks, notes = self._side.output.take(True), self._watcher.mend()
        if not chunks and not notes:
            return kind, payload
        return KIND_NOTED, marshal_dumps((kind, payload, chunks, notes))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        side = self._side
        side.own.pop()
        side.words[BLOCKED] = self._blocked
        side.output.room, side.output.dropped_bytes = self._room
        side.ring_controller()
        side.interrupts.leave(self._outer, struck=error is not None)


__all__ = ["OwnRuns", "Stage"]
