"""Ends of units: whoever waits for one in another way than by our own is told, and what nobody waits for is let go."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from workq.controller.records import Queue
from workq.outcome import PENDING
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")

LOCK_S = 1.0  # a unit's lock is held for microseconds; who holds it for longer was struck by an exception, and will not give it back


class Ends:
    """What follows from the end of a unit. Telling is done in the controller's thread.

    Attributes:
        untold: Units of which somebody must be told; any thread appends.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.untold: deque[Unit[Any]] = deque()

    def after_end(self, unit: Unit[Any]) -> None:
        """A unit that has an `extra` has ended: have those told that wait in another way. Any thread, and more than once does no harm."""
        extra = unit.extra
        if extra is not None and extra.untold:
            large = extra.large
            if large is None:
                return  # nobody waits for it in another way, and who comes from now on sees that it has ended
            if self._loop.controller.segments.give_back(large.segment, large.turn):
                extra.large = None
                return
        if threading.current_thread() is self._loop.thread:
            self._tell_end(unit)
        else:
            self.untold.append(unit)  # not here: an exception of a signal handler could stop us between two of those who wait
            self._loop.ring()

    def tell(self) -> None:
        """Tell whoever waits for units that have ended."""
        while self.untold:
            self._tell_end(self.untold.popleft())

    def _tell_end(self, unit: Unit[Any]) -> None:
        """Wake who waits for a unit in another way, and hand its callbacks over. Runs no user code."""
        extra = unit.extra
        if extra is None or unit.value is PENDING:
            return
        held = extra.lock.acquire(timeout=LOCK_S)  # unless concurrent.futures was struck while it held it
        try:
            if extra.notified:
                return
            extra.notified = True
            if held:
                extra.notify()
            callbacks = extra.tell_waiters(unit)
        finally:
            if held:
                extra.lock.release()
        for callback in callbacks:
            self._loop.controller.delivery.call(callback, unit)
        if extra.history:
            from workq.controller import retrying  # loaded already, by whoever asked for retries

            retrying.forget(self._loop, unit)
        extra.handles.clear()
        if extra.large is not None:
            if extra.large.turn == extra.large.segment.turn:
                self._loop.controller.segments.free(extra.large.segment)
            extra.large = None
        if extra.stopping is not None:
            self._loop.ring()

    def tell_notes(self, unit: Unit[Any], notes: list[str]) -> None:
        """Log what a unit has left behind in its worker. Under the lead, so another thread does it."""
        if logger.isEnabledFor(logging.INFO):
            self._loop.controller.delivery.call(logger.info, "unit %s: %s", unit.label, "; ".join(notes))

    def too_many_kept(self, queue: Queue) -> None:
        """Nobody collects a queue's units: say so, once."""
        if not queue.warned:
            queue.warned = True
            logger.warning(
                "queue %s keeps %d ended units that nobody has collected; the oldest successes are let go. "
                "Call sync(), wait_one() or result().",
                queue.name,
                self._loop.settings.uncollected_units,
            )

    def settle(self, unit: Unit[Any], value: Any) -> None:
        """End a unit from here: cancelled, lost or failed before it ran."""
        if unit.value is PENDING:
            if unit.extra is None:
                unit.value = value
            else:
                unit.extra.end(unit, value)
            unit.call.queue.ended.append(unit)
            if unit.extra is not None:
                self.after_end(unit)


__all__ = ["Ends"]
