"""``await unit``: ends of units reach an asyncio loop in bursts, by one wake-up for many.

``call_soon_threadsafe`` for each unit would cost a system call each, and a hop by the delivery thread another. Whoever settles a unit
appends it to its loop's list, and wakes the loop only if it does not know of the list yet. The loop takes a few at a time, so that
it is never held up for long.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from workq.courtesy import AT_ONCE, is_due
from workq.errors import WorkqError
from workq.outcome import PENDING
from workq.unit import Unit

T = TypeVar("T")

_bridges: WeakKeyDictionary[asyncio.AbstractEventLoop, Bridge] = WeakKeyDictionary()
_making = threading.Lock()


class Bridge:
    """The units of one loop that have ended and that it has not yet heard of. Any thread may append; the loop's thread takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon_threadsafe
        self._ended: deque[asyncio.Future[None]] = deque()
        self._told = False

    def add(self, future: asyncio.Future[None]) -> None:
        """A unit has ended. Appended first, then told of: the loop says that it does not know before it looks."""
        self._ended.append(future)
        if not self._told:
            self._told = True
            try:
                self._call_soon(self._take)
            except RuntimeError:  # the loop has been closed: nobody waits there any more
                self._ended.clear()

    def _take(self) -> None:
        self._told = False
        for _ in range(AT_ONCE):
            try:
                future = self._ended.popleft()
            except IndexError:
                return
            if not future.done():
                future.set_result(None)
        if self._ended and not self._told:
            self._told = True
            self._call_soon(self._take)


class Waiter:
    """What stands among a unit's waiters, as concurrent.futures has them, for a coroutine."""

    __slots__ = ("_bridge", "_future")

    def __init__(self, bridge: Bridge, future: asyncio.Future[None]) -> None:
        self._bridge = bridge
        self._future = future

    def add_result(self, unit: Any) -> None:
        """The unit has ended. Called by whichever thread settles it."""
        self._bridge.add(self._future)

    add_exception = add_cancelled = add_result


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that runs here. Raises WorkqError where it is none of asyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WorkqError(
            "units can be awaited in asyncio (also under uvloop, and in anyio on asyncio), and no loop of it runs here; "
            "under trio let a thread wait: `await trio.to_thread.run_sync(unit.result)`"
        ) from None


def bridge_of(loop: asyncio.AbstractEventLoop) -> Bridge:
    """Return the bridge of a loop, made at its first unit."""
    bridge = _bridges.get(loop)
    if bridge is None:
        with _making:
            bridge = _bridges.setdefault(loop, Bridge(loop))
    return bridge


async def give_way() -> None:
    """Have the loop serve others, where one of asyncio runs here."""
    if asyncio._get_running_loop() is not None:
        await asyncio.sleep(0)


async def result_of(unit: Unit[T]) -> T:
    """Wait in a coroutine; its cancellation is the unit's.

    ``asyncio.wrap_future`` would do, but for two things. A unit that somebody else has cancelled would raise asyncio's CancelledError, by
    which a task group takes the task for one that it has cancelled itself, and says nothing; here it raises UnitCancelled. And no future
    of asyncio takes a StopIteration: before Python 3.13 its waiter waits for ever. Raised by a coroutine it becomes a RuntimeError.
    """
    if unit.value is PENDING:
        loop = running_loop()
        ended = loop.create_future()
        extra = unit.need_extra()
        with extra.lock:
            waits = unit.value is PENDING
            if waits:
                extra.waiters.append(Waiter(bridge_of(loop), ended))
        if waits:
            try:
                await ended
            except asyncio.CancelledError:
                unit.cancel()
                raise
    elif is_due():
        await give_way()
    return unit.result()
