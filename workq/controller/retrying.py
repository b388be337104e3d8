"""Units that are tried again: at once, at the front of their backlog, or after a rest, which they spend in their queue's ``resting``.

The race of a unit that begins to rest: it is put there by whoever reads its end (a leader, in whose steps an exception of a signal handler
may strike), and its alarm is set by the controller. So the controller is told first; as it comes with the lead it finds either all or
nothing.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from workq.attempt import Attempt
from workq.config import Settings
from workq.controller import backlog as backlogs
from workq.controller.backlog import place_of
from workq.controller.records import GHOST, Worker
from workq.core.retrying import LOST, NO_RETRY, Tried, Verdict, judge
from workq.core.states import UnitState
from workq.errors import Halt, UnitPoisoned, UnitTimeout, WorkerHalted
from workq.outcome import PENDING, Ended
from workq.transport import failures
from workq.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.loop import Loop


logger = logging.getLogger("workq")


def comes_again(loop: Loop, unit: Unit[Any], end: Ended, attempt: Attempt, place: tuple[list[Any], int] | None = None) -> bool:
    """Put a unit back into its queue, if retries are left and nobody has asked it to end; its ``place`` is left in the same breath.

    Under the lead; runs no user code.
    """
    policy, queue, extra = unit.call.options.retry, unit.call.queue, unit.extra
    if policy is None or (queue.closed and not queue.draining) or unit.id <= queue.cleared:
        return False
    if extra is not None and extra.stopping is UnitState.CANCELLED:
        return False
    extra = unit.need_extra()
    verdict = judge_unit(unit, end, attempt, loop.settings, loop.random)
    _log(loop, unit, attempt, verdict)
    if not verdict.again:
        return False
    lost = end.state is UnitState.LOST
    queue.unusual = True
    if verdict.rest_s:
        put_back: Callable[..., object] = queue.resting.__setitem__
        arguments: tuple[Any, ...] = (unit, loop.clock() + verdict.rest_s)
        loop.command(take_to_rest, loop, unit)  # first, see above
    else:
        queue.room = bool(queue.workers)
        backlog = queue.backlog(unit.call.options.priority)
        put_back, arguments = backlog.insert, (place_of(backlog, unit.id), unit)
    earlier = [attempt]
    extra.history += earlier  # from here to the last line no call returns, so that nothing can strike in between
    extra.attempt += 1
    extra.crashes += lost
    extra.stopping = None
    if place is not None:
        place[0][place[1]] = GHOST
    put_back(*arguments)
    loop.look_at(queue)
    return True


def _log(loop: Loop, unit: Unit[Any], attempt: Attempt, verdict: Verdict) -> None:
    """Say what follows, at level DEBUG. The log's handlers are the application's code: not here, with the lead in hand."""
    if logger.isEnabledFor(logging.DEBUG):
        what = f"it is tried again in {verdict.rest_s:.3g} s" if verdict.again else f"it is not tried again: {verdict.why}"
        loop.controller.delivery.call(logger.debug, "unit %s: %s; %s", unit.label, attempt, what)


def judge_unit(unit: Unit[Any], end: Ended, attempt: Attempt, settings: Settings, random: Callable[[], float]) -> Verdict:
    """Ask the core about a unit that did not succeed."""
    policy, extra = unit.call.options.retry or NO_RETRY, unit.need_extra()
    crashes = extra.crashes + (end.state is UnitState.LOST)
    kinds = kinds_of(end) if policy.on is not None else ()
    tried = Tried(extra.attempt, end.state.value, kinds, crashes, (time.monotonic_ns() - unit.queued_ns) / 1e9)
    return judge(policy, tried, settings.poisoned_after, random())


def kinds_of(end: Ended) -> tuple[str, ...]:
    """Return the full names of an end's exception type and its bases, without making the exception: its class may be anybody's code."""
    if end.state is UnitState.TIMED_OUT:
        return failures.full_names(UnitTimeout)
    if end.state is UnitState.LOST:
        return failures.full_names(WorkerHalted)
    return failures.kinds_of(end.payload) if end.error is None else failures.full_names(type(end.error))


def attempt_of(unit: Unit[Any], end: Ended, worker: Worker, started_ns: int, ended_ns: int) -> Attempt:
    """Return the record of an attempt that has just ended."""
    run_time_s = (ended_ns - started_ns) / 1e9 if started_ns else None
    started_at = started_ns / 1e9 if started_ns else None
    return Attempt(unit.attempt, end.state.value, worker.name, worker.pid, started_at, run_time_s, end.reason())


def loss(unit: Unit[Any], halt: Halt, attempt: Attempt, settings: Settings) -> WorkerHalted:
    """Return the error of a unit that is lost for good; it is poisoned where it has ended worker after worker."""
    policy = unit.call.options.retry
    if policy is None:
        return WorkerHalted(halt)
    attempts = (*unit.need_extra().history, attempt)
    crashes = sum(one.outcome == LOST for one in attempts)
    most = policy.crashes or settings.poisoned_after
    return (UnitPoisoned if crashes >= most else WorkerHalted)(halt, attempts)


# ---------------------------------------------------------------- rest (in the controller's thread)


def take_to_rest(loop: Loop, unit: Unit[Any]) -> None:
    """Have a unit that has begun to rest woken at its time."""
    resting = unit.call.queue.resting
    due = resting.get(unit)
    if due is None:
        return  # an exception struck before it was put there; whoever reads its end next does it again. Or it was dropped since
    if unit.value is not PENDING:  # cancelled between its end in the worker and its rest
        resting.pop(unit, None)
        loop.lead.wake_ready()
    elif unit.need_extra().alarm is None:
        unit.need_extra().alarm = loop.alarms.set(due, partial(wake, loop, unit))


def wake(loop: Loop, unit: Unit[Any]) -> None:
    """Its rest is over: it waits where it stood, in front of what was queued later. Under the dispatch lock."""
    queue = unit.call.queue
    unit.need_extra().alarm = None
    if unit in queue.resting:
        if unit.value is PENDING:
            backlogs.put_back(queue.backlog(unit.call.options.priority), unit)  # first: it is nowhere at no moment
            queue.room = bool(queue.workers)
        queue.resting.pop(unit, None)
        queue.told = 0
        loop.look_at(queue)


def forget(loop: Loop, unit: Unit[Any]) -> None:
    """It has ended while it rested. In the controller's thread; more than once does no harm."""
    extra = unit.extra
    unit.call.queue.resting.pop(unit, None)
    if extra is not None and extra.alarm is not None:
        loop.alarms.drop(extra.alarm)
        extra.alarm = None
