"""Callbacks: what `queue_callback` has called when its units have ended, by whoever waits for the queue, one at a time.

A unit's end may be noted by any thread, in the middle of anything, so that only appends (`note_end`). Whoever waits takes the *turn* and
calls what is due, in order of completion. A callback counts as made once it has begun: it is never made twice, whatever interrupts it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from heapq import heappop, heappush
from math import inf
from typing import Any, Final

from workq.controller.records import Queue
from workq.errors import WorkqError
from workq.outcome import PENDING
from workq.unit import Unit


class Exit(Enum):
    """What a callback returns to have ``WorkMgr.wait`` return."""

    EXIT = "EXIT"

    def __repr__(self) -> str:
        return "workq.EXIT"


EXIT: Final = Exit.EXIT


class Callbacks:
    """The callbacks of one queue that were not made yet.

    ``_open`` and ``_ended`` may be added to by any thread; ``_due`` and ``failures`` belong to whoever has the turn.
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller  # and not the queue's row, which refers to us
        self._open: dict[int, tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = {}  # by the unit's number
        self._ended: deque[tuple[int, int, Unit[Any]]] = deque()  # when, number, unit: of those that have ended
        self._due: list[tuple[int, int, Unit[Any]]] = []  # the same, as a heap
        self._turn = threading.RLock()  # an RLock, as one that is not held cannot be given back by mistake
        self._caller: int | None = None  # the thread that has the turn
        self.failures: list[tuple[int, Exception]] = []  # what callbacks have raised, by number; sync() takes them

    # ------------------------------------------------------------ from any thread

    def expect(self, unit: Unit[Any], callback: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Have a callback made once the unit has ended; it may have ended already."""
        self._open[unit.id] = callback, args, kwargs
        extra = unit.need_extra()
        with extra.lock:
            if unit.value is PENDING:
                extra.note_end = self.note_end
            else:
                self.note_end(unit)

    def note_end(self, unit: Unit[Any]) -> None:
        """A unit ends: its value is stored right afterwards. Twice is once."""
        self._ended.append((unit.ended_ns or time.monotonic_ns(), unit.id, unit))

    def count(self) -> int:
        """Return how many callbacks have yet to be made, or have not returned."""
        return len(self._open)

    def expects(self, unit: Unit[Any]) -> bool:
        """Return whether the callback of a unit has yet to be made, or has not returned."""
        return unit.id in self._open

    def due(self) -> bool:
        """Return whether one could be made now: some are due, and no thread makes any. May say yes once too often."""
        return self._caller is None and bool(self._ended or self._due)

    def made_here(self) -> bool:
        """Return whether this thread is in the middle of one."""
        return self._caller == threading.get_ident()

    def drop(self, upto: float = inf) -> None:
        """Forget those of units up to a number: they are not made."""
        for number in list(self._open):
            if number <= upto:
                self._open.pop(number, None)
        self.make_none()

    # ------------------------------------------------------------ whoever waits

    def make(self, until: Unit[Any] | None = None, most: float = inf) -> bool:
        """Make the callbacks that are due now, those up to a unit's, or so many.

        Stop at one that returns `EXIT`, and return whether one did.
        """
        made: list[Unit[Any]] = []
        try:
            if not self._turn.acquire(False):
                return False
            self._caller = threading.get_ident()
            return self._make_some(int(min(most, len(self._ended) + len(self._due))), until, made)
        finally:
            self._leave()
            if made:
                self._controller.wake_waiters()  # others may wait for their turn, or for the last one

    def _make_some(self, most: int, until: Unit[Any] | None, made: list[Unit[Any]]) -> bool:
        """Make those whose turn it is, and note the first of them. With the turn."""
        for _ in range(most):
            unit = self._first()
            if unit is None:
                break
            if not made:
                made.append(unit)
            if self._call(unit) is EXIT:
                return True
            if unit is until:
                break
        return False

    def make_none(self) -> None:
        """Let go of units whose callbacks were dropped."""
        try:
            if self._caller is None and self._turn.acquire(False):
                self._first()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Give the turn back, if we have it. A single call of C at the end, so that nothing can leave it held."""
        if self._caller == threading.get_ident():
            self._caller = None
        try:
            self._turn.release()
        except RuntimeError:  # somebody else has it
            pass

    def _first(self) -> Unit[Any] | None:
        """Return the unit that ended first of those whose callback is to be made."""
        while self._ended:
            heappush(self._due, self._ended[0])
            self._ended.popleft()
        while self._due:
            unit = self._due[0][2]
            if unit.value is PENDING:
                with unit.need_extra().lock:  # its value is just being stored
                    pass
            if unit.value is not PENDING and unit.id in self._open:
                return unit
            heappop(self._due)  # its callback was made, or cleared; or what ended it was struck, and whoever goes on notes it again
        return None

    def _call(self, unit: Unit[Any]) -> object:
        callback, args, kwargs = self._open[unit.id]
        try:
            return callback(unit, *args, **kwargs)
        except Exception as error:
            error.add_note(f"in the callback of unit {unit.label}")
            self.failures.append((unit.id, error))
            return None
        finally:
            self._open.pop(unit.id, None)


def queue_with(
    row: Queue,
    queue: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Unit[Any]],
    fn: Callable[..., Any],
    callback: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Unit[Any]:
    """Queue a call whose callback is made when it has ended."""
    callbacks = row.callbacks
    if callbacks is None:
        made = Callbacks(row.controller)
        if row.callbacks is None:  # no call returns between this and the store
            row.callbacks = made
        callbacks = row.callbacks
    most = row.controller.settings.uncollected_units
    if callbacks.count() >= most:
        raise WorkqError(f"queue {row.name} has {most} callbacks that nobody has made: call sync(), wait() or wait_one()")
    unit = queue(fn, args, kwargs)
    callbacks.expect(unit, callback, args, kwargs)
    return unit


__all__ = ["EXIT", "Callbacks", "Exit", "queue_with"]
