"""Recurring: a unit that is queued again and again, at its times.

Function and arguments are pickled once, when it is made, so that no code of the application runs in the controller's thread. That thread
does the rest when an alarm rings: it looks whether the run before has ended, queues the unit, and sets the next alarm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from workq.controller.controller import Controller
from workq.controller.intake import Intake
from workq.core.recurring import due_by_calendar, look_at, next_beat
from workq.core.states import UnitState
from workq.errors import QueueClosed, WorkqError, is_handle
from workq.given.arguments import check_seconds
from workq.outcome import ASKED, Ended
from workq.transport import sharing
from workq.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.records import Options, Queue
    from workq.core.ids import AlarmId
    from workq.schedule import Cron

logger = logging.getLogger("workq")

KEPT = 20  # outcomes


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a recurring unit that has ended.

    Attributes:
        unit: The label of its unit.
        due_at: When it was to run, in the schedule's time zone.
        state: How it ended: a state of ``docs/states.md``, as text.
        run_time_s: How long it ran, seconds, or None where it was never begun.
        error: What went wrong, in a line, or an empty text.
    """

    unit: str
    due_at: datetime
    state: str
    run_time_s: float | None
    error: str = ""


class Period:
    """Each so many seconds, on the clock that never jumps."""

    def __init__(self, controller: Controller, seconds: float) -> None:
        self._controller = controller
        self._seconds = seconds
        self._due = 0.0

    def begin(self) -> None:
        """Count from now."""
        self._due = self._controller.clock() + self._seconds

    def alarm_at(self) -> float:
        """Return when to look, on that clock."""
        return self._due

    def is_due(self) -> bool:
        """Return whether the time has come."""
        return self._controller.clock() >= self._due

    def due_at(self) -> datetime:
        """Return when it is due, on the wall's clock."""
        return datetime.fromtimestamp(self._controller.wall_clock() + self._due - self._controller.clock()).astimezone()

    def go_on(self) -> int:
        """Go on to the next time, and return how many were missed meanwhile."""
        self._due, missed = next_beat(self._due, self._seconds, self._controller.clock())
        return missed

    def __str__(self) -> str:
        return f"every {self._seconds:g} s"


class Calendar:
    """At the times of a cron expression, on the wall's clock."""

    def __init__(self, controller: Controller, cron: Cron) -> None:
        self._controller = controller
        self._cron = cron
        self._due = datetime.now(cron.zone)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._controller.wall_clock(), self._cron.zone)

    def begin(self) -> None:
        """Count from now."""
        self._due = self._cron.after(self._now())

    def alarm_at(self) -> float:
        """Return when to look, on the clock that never jumps."""
        return look_at(self._due.timestamp(), self._controller.wall_clock(), self._controller.clock())

    def is_due(self) -> bool:
        """Return whether the time has come; where the clock was set back far, there is a new one."""
        now = self._now()
        fresh = self._cron.after(now)
        if due_by_calendar(self._due.timestamp(), now.timestamp(), fresh.timestamp()) != self._due.timestamp():
            self._due = fresh
        return now >= self._due

    def due_at(self) -> datetime:
        """Return when it is due."""
        return self._due

    def go_on(self) -> int:
        """Go on to the next time, and return how many were missed meanwhile."""
        now = self._now()
        missed = self._cron.between(self._due, now)
        self._due = self._cron.after(max(now, self._due))
        return missed

    def __str__(self) -> str:
        return f"cron {self._cron}"


class Recurring:
    """A unit that is queued again and again: what ``WorkMgr.every`` and ``WorkMgr.cron`` return. It has been started.

    It ends with its queue. All methods may be called from any thread.

    Attributes:
        name: What its units are called.
        runs: How many units were queued.
        failures: How many of them did not end well.
        skipped: How often it was due while the run before had not ended: that is logged, and nothing is queued.
        missed: How many times passed while nobody could look (the machine was asleep, or the clock was set forward).
    """

    def __init__(
        self, queue: Queue, times: Period | Calendar, options: Options, fn: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> None:
        self._queue = queue
        self._times = times
        self._controller: Controller = queue.controller
        self._call, self._data = Intake(queue, options)._slowly(fn, args, kwargs)
        self._handles = sharing.take_pickled() if sharing.exist else []
        self._lock = threading.RLock()  # start and stop, from any thread; held for microseconds
        self._alarm: AlarmId | None = None
        self._unit: Unit[Any] | None = None
        self._skips_told = False
        self._outcomes: deque[Run] = deque(maxlen=KEPT)
        self.name = self._call.name
        self.runs = self.failures = self.skipped = self.missed = 0

    # ------------------------------------------------------------ from any thread

    def start(self) -> None:
        """Begin again, from now on, after ``stop``. Does nothing while it is active."""
        with self._lock:
            if self._alarm is not None:
                return
            if self._queue.closed:
                raise QueueClosed(f"queue {self._queue.name} has been closed; nothing recurs on it any more")
            self._queue.recurring.add(self)
            self._times.begin()
            self._arm()

    def stop(self) -> None:
        """Queue no more units. One that waits or runs goes on; ``last`` has it."""
        with self._lock:
            alarm, self._alarm = self._alarm, None
            self._queue.recurring.discard(self)
        loop = self._controller.loop
        if alarm is not None and loop is not None:
            loop.alarms.drop(alarm)

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self._alarm is not None and not self._queue.closed

    @property
    def next_at(self) -> datetime | None:
        """When it is due next; None where it was stopped."""
        return self._times.due_at() if self.active else None

    @property
    def last(self) -> Unit[Any] | None:
        """The unit that was queued last, or None."""
        return self._unit

    @property
    def outcomes(self) -> tuple[Run, ...]:
        """The last 20 runs that have ended, oldest first."""
        return tuple(self._outcomes)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"recurring unit {self._queue.name} {self.name}")

    def __repr__(self) -> str:
        when = self.next_at
        state = f"next at {when.isoformat(sep=' ', timespec='seconds')}" if when is not None else "stopped"
        counts = f"{self.runs} runs, {self.failures} failed, {self.skipped} skipped, {self.missed} missed"
        return f"<Recurring {self._queue.name} {self.name} {self._times}: {state}; {counts}>"

    # ------------------------------------------------------------ in the controller's thread, with lead and lock

    def _arm(self) -> None:
        self._alarm = self._controller.running().alarms.set(self._times.alarm_at(), self._ring)

    def _ring(self) -> None:
        with self._lock:
            if self._alarm is None or self._queue.closed:
                return
            if self._times.is_due():
                due_at = self._times.due_at()
                if self._unit is not None and not self._unit.done():
                    self._skip()
                else:
                    self._queue_unit(due_at)
                self.missed += self._times.go_on()
            self._arm()

    def _skip(self) -> None:
        self.skipped += 1
        level = logging.DEBUG if self._skips_told else logging.WARNING  # once for each unit that takes too long
        self._skips_told = True
        told = "%s on queue %s: unit %s has not ended when the next is due, which is skipped (%d so far)"
        label = self._unit.label if self._unit is not None else ""
        self._controller.delivery.call(logger.log, level, told, str(self._times), self._queue.name, label, self.skipped)

    def _queue_unit(self, due_at: datetime) -> None:
        unit: Unit[Any] = Unit(self._call, self._data, next(self._queue.ids), time.monotonic_ns())
        extra = unit.need_extra()
        extra.handles = list(self._handles)
        extra.note_end = _not_for_sync
        extra.callbacks.append(partial(self._note_end, due_at))
        self._unit, self._skips_told = unit, False
        self.runs += 1
        self._queue.backlog(self._call.options.priority).append(unit)
        if self._call.options.queue_timeout is not None:
            self._controller.watch_queue_time(unit)
        self._controller.running().look_at(self._queue)

    # ------------------------------------------------------------ in the delivery thread

    def _note_end(self, due_at: datetime, unit: Unit[Any]) -> None:
        self._queue.let_go(unit)
        value = unit.value
        error = value.line() if type(value) is Ended else ""
        self._outcomes.append(Run(unit.label, due_at, unit.state.value, unit.run_time_s, error))
        if unit.state not in (UnitState.DONE, UnitState.CANCELLED):
            self.failures += 1
            logger.error("recurring unit %s %s: %s", unit.label, unit.state.value, error)


def _not_for_sync(unit: Unit[Any]) -> None:
    """Its failures are told by the log and by ``outcomes``; whoever syncs the queue has not queued it."""
    unit.data = ASKED


def every(queue: Queue, options: Options, seconds: float, fn: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Recurring:
    """Make one that runs each so many seconds, and start it."""
    check_seconds("seconds", seconds, above=True)
    return _started(queue, Recurring(_usable(queue), Period(queue.controller, float(seconds)), options, fn, args, kwargs))


def by_calendar(queue: Queue, options: Options, when: str | Cron, fn: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Recurring:
    """Make one that runs at the times of a cron expression, and start it."""
    from workq.schedule import Cron

    cron = when if isinstance(when, Cron) else Cron(when)
    return _started(queue, Recurring(_usable(queue), Calendar(queue.controller, cron), options, fn, args, kwargs))


def _usable(queue: Queue) -> Queue:
    """Return a queue on which units can recur; raise where they cannot."""
    if type(queue.controller) is not Controller:
        raise WorkqError("units recur on a queue of the application that has workers: not in a unit, and not with num_workers=0")
    if queue.closed:
        raise queue.refusal()
    return queue


def _started(queue: Queue, made: Recurring) -> Recurring:
    if not queue.opened:
        queue.controller.open_queue(queue)
        queue.opened = True
    made.start()
    return made
