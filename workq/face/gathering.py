"""Waiting for a queue: sync, wait, wait_one. In the thread that waits, output is written and callbacks are made.

A queue is *quiet* when nothing is outstanding: no unit is open, and no callback has yet to be made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from workq.controller.exiting import counted
from workq.controller.records import Queue
from workq.core.states import UnitState
from workq.errors import WaitError, WorkErrors, not_in_time, shortened
from workq.given.arguments import check_progress
from workq.outcome import ASKED, Ended
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.face.waiting import Waiting
    from workq.seeing.bar import Bar

logger = logging.getLogger("workq")


class Deadline:
    """When a wait is over; worked out once. What is told of it is the time that the caller gave."""

    __slots__ = ("_at", "_timeout")

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return how many seconds are left, 0 or more; None: any number."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def over(self) -> bool:
        """Return whether no time is left."""
        return self._at is not None and time.monotonic() >= self._at

    def error(self, what: str) -> TimeoutError:
        """Return what to raise when it is over."""
        return not_in_time(what, self._timeout)


# ---------------------------------------------------------------- the waits of WorkMgr


def sync(row: Queue, timeout: float | None, progress: bool | str = False) -> None:
    """Wait until a queue is quiet, and raise what has failed."""
    gather(row, timeout, progress)
    raise_failures(row)


def never() -> bool:
    """Return False."""
    return False


def gather(row: Queue, timeout: float | None, progress: bool | str = False, enough: Callable[[], bool] = never) -> bool:
    """Wait until a queue is quiet, or until it is `enough()`, and return whether it was."""
    refuse_in_callback(row, "sync()")
    watch = _watch(row, progress)
    if not row.opened:
        return enough()
    deadline = Deadline(timeout)
    try:
        _gather(row, deadline, watch, enough)
    finally:
        if watch is not None:
            watch.close()
    row.controller.delivery.drain(1.0)
    row.emit()
    return enough()


def _gather(row: Queue, deadline: Deadline, watch: Watch | None, enough: Callable[[], bool]) -> None:
    while not _one_round(row, deadline, watch, enough) and not enough():
        if row.callbacks is not None:
            row.emit()
            make_callbacks(row)


def wait(row: Queue, timeout: float | None) -> bool:
    """Wait until a queue is quiet or a callback says EXIT; return whether it is quiet."""
    refuse_in_callback(row, "wait()")
    if row.opened:
        deadline = Deadline(timeout)
        try:
            _wait_for_exit(row, deadline)
        except TimeoutError:
            if not deadline.over():  # it was not ours, but a signal handler's
                raise
        if not is_quiet(row):
            row.emit()
            return False
        row.controller.delivery.drain(1.0)
        row.emit()
    raise_failures(row)
    return True


def wait_one(row: Queue, timeout: float | None) -> Unit[Any] | None:
    """Return the next unit that has ended, after its callback; None where the queue is quiet."""
    if row.callbacks is not None:
        refuse_in_callback(row, "wait_one()")
    deadline = None
    while True:
        unit = next_ended(row)
        if unit is not None:
            row.emit()
            if row.callbacks is not None:
                _await_callback(row, unit)
            return unit
        if is_quiet(row):
            return next_ended(row)
        deadline = deadline or Deadline(timeout)
        if row.callbacks is not None and row.callbacks.due():
            make_callbacks(row)  # of units that somebody has asked, and that are not handed out
            continue
        wait_for(row, lambda: bool(row.ended) or may_go_on(row), deadline, f"no unit of queue {row.name} has ended")


def next_completed(manager: Waiting, timeout: float | None) -> Unit[Any] | None:
    """`wait_one` at each step of `as_completed`: at once where a unit has ended, no callback is to be made, and nothing to be written."""
    row = manager._row
    if row.callbacks is None and not row.outputs and not row.half_written:
        unit = next_ended(row)
        if unit is not None:
            if row.outputs:
                row.emit()
            return unit
    return manager.wait_one(timeout)


class Watch:
    """Draws how far a queue has come, while somebody waits for it."""

    def __init__(self, row: Queue, bar: Bar) -> None:
        self._row = row
        self.bar = bar
        self._ended = ended_units(row) - sum(unit.data is not ASKED for unit in tuple(row.ended))  # not what was handed out
        self._failed = failed_units(row) - len(row.unasked_failures())

    def draw(self) -> None:
        """Draw, if it is time."""
        done = ended_units(self._row) - self._ended
        self.bar.show(done, failed_units(self._row) - self._failed, done + self._row.open_units())

    def close(self) -> None:
        """Draw for the last time."""
        self.draw()
        self.bar.close()


def _watch(row: Queue, progress: bool | str) -> Watch | None:
    check_progress(progress)
    if progress is False:
        return None
    from workq.controller.seeing import progress_notes
    from workq.seeing.bar import bar_for

    bar = bar_for(row, progress, row.name, None, lambda: progress_notes(row))
    return None if bar is None else Watch(row, bar)


def ended_units(row: Queue) -> int:
    """Return how many units of a queue have ended."""
    return row.done + row.cancelled + failed_units(row)


def failed_units(row: Queue) -> int:
    """Return how many of them have ended badly."""
    return row.failed + row.timed_out + row.lost


def _one_round(row: Queue, deadline: Deadline, watch: Watch | None = None, enough: Callable[[], bool] = never) -> bool:
    """Wait until callbacks are due, or the queue is quiet; return whether it is."""
    paused = " (it is paused)" if row.paused else ""
    all_of_it = row if row.callbacks is None else None  # a callback may do what a unit waits for
    what = f"queue {row.name}{paused} has not ended its units"
    wait_for(row, lambda: may_go_on(row) or enough(), deadline, what, all_of_it, watch)
    return is_quiet(row)


def may_go_on(row: Queue) -> bool:
    """Return whether callbacks can be made, or nothing is outstanding."""
    callbacks = row.callbacks
    return is_quiet(row) if callbacks is None else callbacks.due() or is_quiet(row)


def is_quiet(row: Queue) -> bool:
    """Return whether nothing of a queue is outstanding. Units first: their ends are noted with the callbacks before they count as ended."""
    return not row.busy() and (row.callbacks is None or not row.callbacks.count())


def make_callbacks(row: Queue, until: Unit[Any] | None = None, most: float = inf) -> bool:
    """Make what callbacks are due, at most so many. Ctrl-C in one is as Ctrl-C in the wait."""
    if row.callbacks is None:
        return False
    try:
        return row.callbacks.make(until, most)
    except KeyboardInterrupt as error:
        break_off(row, error)
        raise


def _await_callback(row: Queue, unit: Unit[Any]) -> None:
    """Make the callbacks up to that of a unit, or wait for whoever does."""
    assert row.callbacks is not None
    while row.callbacks.expects(unit):
        make_callbacks(row, unit)
        if row.callbacks.expects(unit):
            wait_for(row, lambda: row.callbacks is None or row.callbacks.due() or not row.callbacks.expects(unit), None, "")


def refuse_in_callback(row: Queue, what: str) -> None:
    """Raise where a callback of a queue would wait for that queue, and so for itself."""
    if row.callbacks is not None and row.callbacks.made_here():
        raise WaitError(
            f"a callback of queue {row.name} cannot call its {what}: it would wait for itself. "
            "It may queue more units, whose callbacks are made after it, or ask a unit for its result()"
        )


# ---------------------------------------------------------------- what has ended


def next_ended(row: Queue) -> Unit[Any] | None:
    """Return the next unit that has ended and that nobody has asked."""
    ended = row.ended
    while ended:
        try:
            unit = ended.popleft()
        except IndexError:
            return None
        if unit.data is not ASKED:
            return unit
    return None


def raise_failures(row: Queue, besides: str = "") -> None:
    """Raise the failures that nobody has asked for, and what callbacks have raised, in order of submission."""
    failures = []
    units = 0
    ended = row.ended
    while ended:
        try:
            unit = ended.popleft()
        except IndexError:  # somebody else takes them as well
            break
        if type(unit.value) is Ended and unit.data is not ASKED and unit.value.state is not UnitState.CANCELLED:
            unit.data = ASKED
            failures.append((unit.id, 0, _shown(unit)))
            units += 1
    raised: list[tuple[int, Exception]] = []
    if row.callbacks is not None:
        raised, row.callbacks.failures = row.callbacks.failures, []
    if failures or raised:
        failures += [(number, 1, error) for number, error in raised]
        failures.sort(key=lambda failure: failure[:2])
        what = [counted(units, "unit")] if units else []
        what += [counted(len(raised), "callback")] if raised else []
        raise WorkErrors(f"{' and '.join(what)} of queue {row.name} failed{besides}", [error for _, _, error in failures])


def _shown(unit: Unit[Any]) -> Exception:
    """Return a unit's failure with a note that says which unit it was."""
    error = unit.value.exception()
    error.add_note(f"in unit {unit.label}" + (f", at its attempt {unit.attempt}" if unit.attempt > 1 else ""))
    return error  # type: ignore[no-any-return]


# ---------------------------------------------------------------- waiting, and Ctrl-C


def _wait_for_exit(row: Queue, deadline: Deadline) -> None:
    while not _one_round(row, deadline):
        row.emit()
        if make_callbacks(row) or (deadline.over() and not is_quiet(row)):
            break


def wait_for(
    row: Queue,
    ready: Callable[[], bool],
    timeout: float | Deadline | None,
    what: str,
    waits_for: Queue | None = None,
    watch: Watch | None = None,
) -> None:
    """Wait for units of a queue, and write meanwhile what they print. Ctrl-C ends them: interrupted at the first, killed at the second."""
    deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout)
    try:
        _wait_and_write(row, ready, deadline, what, waits_for, watch)
    except KeyboardInterrupt as error:
        break_off(row, error)
        raise shortened(error) from None


def _wait_and_write(
    row: Queue, ready: Callable[[], bool], deadline: Deadline, what: str, waits_for: Queue | None, watch: Watch | None
) -> None:
    """Wait until it is ready; a function of its own, see ``Lead._read_until``."""
    while True:
        _wait_once(row, ready, deadline, what, waits_for, watch)
        if row.outputs:  # before the next look: who waits for a unit has read what it wrote
            row.emit()
        elif watch is None:
            return
        if ready():
            return
        if deadline.over():
            raise deadline.error(what)


def _wait_once(row: Queue, ready: Callable[[], bool], deadline: Deadline, what: str, waits_for: Queue | None, watch: Watch | None) -> None:
    """Wait until it is ready, there is output, or it is time to draw."""
    pause_s = deadline.left()
    if watch is not None:
        watch.draw()
        pause_s = watch.bar.pause_s(pause_s)
    try:
        row.controller.wait(lambda: bool(row.outputs) or ready(), pause_s, what, waits_for, row)
    except TimeoutError as error:
        if not str(error).startswith(what):
            raise  # a signal handler's
        if watch is None or deadline.over():
            raise deadline.error(what) from None


def break_off(row: Queue, error: KeyboardInterrupt) -> None:
    """End all units of a queue, as somebody has pressed Ctrl-C, and say in a note how many."""
    dropped = row.open_units()
    row.controller.break_off(row)
    if dropped:
        message = f"{counted(dropped, 'unit')} of queue {row.name} that had not ended {'is' if dropped == 1 else 'are'} cancelled"
        error.add_note(f"workq: {message}")
        logger.info("Ctrl-C: %s", message)
