"""A work queue in asyncio: `completed`, `finished` and `aclose`, which wait without a thread and without holding up the loop.

A coroutine that waits stands among those that follow a leader (controller/waiting.py): whoever reads the ends of units asks whether its
wait is over, and wakes its loop. It never reads itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from workq.awaiting import running_loop
from workq.controller.controller import Controller
from workq.controller.records import Queue
from workq.courtesy import AT_ONCE, is_due
from workq.errors import QueueClosed
from workq.face import gathering
from workq.face.gathering import Deadline
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.waiting import Lead
    from workq.face.ending import Ending

RECORDS_S = 1.0  # how long the last log records and callbacks of units are waited for at most


class Visitor:
    """A coroutine among the followers. Any thread may wake it; twice is once."""

    __slots__ = ("_event", "_loop", "_told", "ready")

    def __init__(self, ready: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        self.ready = ready
        self._loop = loop
        self._event = asyncio.Event()
        self._told = False

    def wake(self) -> None:
        """Let it look again."""
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._event.set)
            except RuntimeError:  # the loop has been closed: nobody waits there any more
                pass

    async def sleep(self) -> None:
        """Wait until somebody wakes it."""
        await self._event.wait()
        self._event.clear()
        self._told = False


async def until(row: Queue, ready: Callable[[], bool], deadline: Deadline, what: str) -> None:
    """Wait until `ready()`. Raises TimeoutError that says `what` when the time is over.

    Without workers the units run here and hold up the loop, one at a time. In a unit a thread waits, as somebody has to read.
    """
    loop = running_loop()
    left = deadline.left()
    try:
        if row.controller.inline:
            row.controller.wait(ready, left, what)
        elif type(row.controller) is not Controller:
            await asyncio.to_thread(row.controller.wait, ready, left, what)
        elif not ready():
            async with asyncio.timeout(left):
                await _follow(row.controller, ready, loop)
    except TimeoutError as error:
        if str(error) and not str(error).startswith(what):
            raise  # a signal handler's
        if not ready():
            raise deadline.error(what) from None


async def _follow(controller: Controller, ready: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
    if controller.forked:
        controller.check_usable()
    lead = (controller.loop or controller.running()).lead  # also where it takes nothing new: what it has is waited for
    visitor = Visitor(ready, loop)
    lead.admit(visitor)
    try:
        await _sleep_until(ready, lead, visitor)
    finally:
        lead.dismiss(visitor)


async def _sleep_until(ready: Callable[[], bool], lead: Lead, visitor: Visitor) -> None:
    while not ready():
        if lead.closed and not ready():  # asked again: that may be what was waited for
            raise QueueClosed("the controller was closed meanwhile")
        await visitor.sleep()


async def finished(row: Queue, timeout: float | None) -> None:
    """Do what ``sync`` does: wait until a queue is quiet, and raise what has failed."""
    gathering.refuse_in_callback(row, "finished()")
    deadline = Deadline(timeout)
    while row.opened and not gathering.is_quiet(row):
        await until(row, lambda: bool(row.outputs) or gathering.may_go_on(row), deadline, f"queue {row.name} has not ended its units")
        row.emit()
        await _make_callbacks(row)
    if row.opened:
        await _drained(row.controller)
        row.emit()
    gathering.raise_failures(row)


async def _make_callbacks(row: Queue) -> None:
    """Make what callbacks are due, a few in each turn of the loop. One that returns EXIT ends no wait here."""
    callbacks = row.callbacks
    if callbacks is None:
        return
    for _ in range(callbacks.count() // AT_ONCE + 1):
        gathering.make_callbacks(row, most=AT_ONCE)
        if not callbacks.due():
            return
        await asyncio.sleep(0)


async def _drained(controller: Any) -> None:
    """Wait until what was to be delivered so far has been: log records, done-callbacks."""
    if type(controller) is Controller:
        visitor = Visitor(bool, running_loop())
        controller.delivery.call_surely(visitor.wake)
        try:
            async with asyncio.timeout(RECORDS_S):
                await visitor.sleep()
        except TimeoutError:  # a handler hangs, or is that slow
            pass


async def completed(row: Queue, timeout: float | None) -> AsyncIterator[Unit[Any]]:
    """Yield units as they end, until none is outstanding."""
    while (unit := await _next(row, timeout)) is not None:
        yield unit
        if is_due():
            await asyncio.sleep(0)


async def _next(row: Queue, timeout: float | None) -> Unit[Any] | None:
    deadline = Deadline(timeout)
    while True:
        unit = gathering.next_ended(row)
        quiet = unit is None and gathering.is_quiet(row)
        row.emit()
        try:
            await _make_callbacks(row)
        except BaseException:  # cancelled, or a callback was interrupted: the unit is still to be handed out
            if unit is not None:
                row.ended.appendleft(unit)
            raise
        if unit is not None or (quiet and not row.ended):
            return unit
        what = f"no unit of queue {row.name} has ended"
        await until(row, lambda: bool(row.ended) or gathering.may_go_on(row), deadline, what)
        if row.controller.inline:
            await asyncio.sleep(0)


async def close(manager: Ending) -> None:
    """Do what ``close`` does."""
    for session in list(manager._sessions):
        await close(session._inner)
    row = manager._row
    if manager._begin_close():
        await until(row, manager._is_over, Deadline(row.end_bound_s()), f"queue {row.name} has not ended")
        manager._end_close()
