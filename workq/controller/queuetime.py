"""The limit for the time in the queue: a unit that has not begun within its ``queue_timeout`` ends, and never runs.

Units of the same limit come in the order in which they are due, so that there is one alarm for each limit, and none for each unit.
"""

from __future__ import annotations

import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from workq.controller.intake import Intake
from workq.outcome import PENDING, never_ran
from workq.transport.board import LIMIT, STARTED
from workq.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.loop import Loop

IN_DOUBT_S = 0.01  # a unit that may have begun in the very moment in which it was to be taken back: look again then
KEPT = 1024  # entries of units that have begun long ago, before they are looked through


class TimedIntake(Intake):
    """An intake whose units have a limit for their time in the queue."""

    def queue(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Unit[Any]:
        """Queue a unit, and watch its time."""
        unit = super().queue(function, args, kwargs)
        self._controller.watch_queue_time(unit)
        return unit


class QueueTimes:
    """Units that wait under a limit. Any thread appends to ``_waiting``; the rest belongs to the controller's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[float, deque[tuple[float, weakref.ref[Unit[Any]]]]] = {}  # by limit: when it is due, and the unit
        self._armed: set[float] = set()  # limits whose alarm is set; any thread adds
        self._look_through_at: dict[float, int] = {}

    def watch(self, unit: Unit[Any]) -> None:
        """Have a unit end unless it begins in time. Any thread."""
        limit_s = unit.call.options.queue_timeout
        if limit_s is None:
            return
        waiting: deque[tuple[float, weakref.ref[Unit[Any]]]] = deque()
        while self._waiting.get(limit_s) is not waiting:  # the controller may have thrown an empty one away just now
            waiting = self._waiting.setdefault(limit_s, deque())
            waiting.append((unit.queued_ns / 1e9 + limit_s, weakref.ref(unit)))
        self._arm(limit_s)
        if len(waiting) > self._look_through_at.get(limit_s, KEPT):
            self._look_through_at[limit_s] = 2 * len(waiting)
            self._loop.command(self._look_through, limit_s)

    def _arm(self, limit_s: float) -> None:
        if limit_s not in self._armed:
            self._armed.add(limit_s)  # two threads at once set two alarms, and the second finds nothing to do
            try:
                due = self._waiting[limit_s][0][0]
            except LookupError:  # none waits any more
                self._armed.discard(limit_s)
                return
            self._loop.alarms.set(due, partial(self._ring, limit_s))

    def _ring(self, limit_s: float) -> None:
        """End the units whose time is over, and wait for the next. With lead and lock."""
        waiting, now = self._waiting.get(limit_s, deque()), self._loop.clock()
        while waiting and waiting[0][0] <= now:
            unit = waiting.popleft()[1]()
            if unit is not None and self._waits_still(unit) and self._may_just_begin(unit):
                self._loop.alarms.set(now + IN_DOUBT_S, partial(self._end_if_it_waits, unit))
        if not waiting:
            self._waiting.pop(limit_s, None)
        self._armed.discard(limit_s)  # before we look: who appends now sets an alarm
        self._arm(limit_s)

    def _end_if_it_waits(self, unit: Unit[Any]) -> None:
        if self._waits_still(unit):
            self._may_just_begin(unit)

    @staticmethod
    def _waits_still(unit: Unit[Any]) -> bool:
        """Return whether it may be that it was never begun: not so of one that comes again."""
        return unit.value is PENDING and unit.attempt == 1

    def _may_just_begin(self, unit: Unit[Any]) -> bool:
        """End a unit that waits; return True where its worker may have begun it, or not, and will say so in a moment."""
        loop, dispatcher, queue = self._loop, self._loop.dispatcher, unit.call.queue
        place = dispatcher.find(unit)
        if place is not None and place[1] > place[0].words[STARTED]:
            dispatcher.recall(place[0])
            place = dispatcher.find(unit)
        if place is not None:
            worker, number = place
            return worker.limited and number > worker.words[LIMIT]
        if unit.value is PENDING and unit not in queue.resting:
            queue.unusual = True  # whoever sends what is left of it has the worker skip it
            queue.timed_out += 1
            loop.ends.settle(unit, never_ran(unit))
            dispatcher.trim(queue)
            loop.lead.wake_ready()
        return False

    def _look_through(self, limit_s: float) -> None:
        """Forget those that have begun. In the controller's thread, which alone takes from the left."""
        waiting = self._waiting.get(limit_s, deque())
        for _ in range(len(waiting)):
            entry = waiting.popleft()
            unit = entry[1]()
            if unit is not None and self._waits_still(unit):
                waiting.append(entry)
        self._look_through_at[limit_s] = max(KEPT, 2 * len(waiting))


__all__ = ["QueueTimes", "TimedIntake"]
