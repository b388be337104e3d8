"""Holding a queue up, and emptying it: pause, clear, and the stop at the first failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from workq.controller.exiting import counted
from workq.controller.records import Queue
from workq.face import gathering
from workq.outcome import PENDING

STOPPED_S = 5.0  # beyond its delete_timeout, until a unit that is stopped must have ended
MOST_FAILURES = 64  # the last ones that are remembered for whoever stops at the first


def pause(row: Queue, timeout: float | None) -> bool:
    """Have workers take no new unit of a queue; return whether none runs, by the end of the time at the latest."""
    controller = row.controller
    controller.pause_queue(row, True)
    if not row.opened:
        return True
    try:
        gathering.wait_for(row, lambda: not row.paused or controller.is_still(row), timeout, "")
    except TimeoutError:
        return False
    return controller.is_still(row)


def clear(row: Queue, timeout: float, warn: Callable[[str], object]) -> int:
    """Empty a queue; return how many of its units are cancelled by that."""
    if not row.opened or row.closed:
        return 0
    before = row.cancelled
    last = row.cleared = next(row.ids)  # what is queued from now on has a higher number, and stays
    _stop_all(row, timeout, "its queue was cleared")
    row.emit()
    row.controller.tell_unasked(row, warn)
    for _ in range(len(row.ended)):
        try:
            unit = row.ended.popleft()
        except IndexError:
            break
        if unit.id > last:
            row.ended.append(unit)
    if row.callbacks is not None:
        row.callbacks.drop(last)
        row.callbacks.failures.clear()
        row.controller.wake_waiters()
    return row.cancelled - before


def _stop_all(row: Queue, timeout: float, why: str) -> None:
    """Cancel what waits; wait for what runs, and then stop it."""
    controller = row.controller
    controller.drop_waiting(row, why, row.cleared)
    running = [unit for unit in controller.running_units(row) if unit.id <= row.cleared]
    if running:  # one of them may have had its number before, and come into the backlog since: another thread was about to queue it
        controller.drop_waiting(row, why, row.cleared)

    def all_ended() -> bool:
        return all(unit.value is not PENDING for unit in running)

    if timeout:
        try:
            gathering.wait_for(row, all_ended, timeout, "")
            return
        except TimeoutError:
            if all_ended():
                return
    controller.stop_running(row, why, row.cleared)
    gathering.wait_for(row, all_ended, row.delete_timeout_s + STOPPED_S, f"{counted(len(running), 'unit')} of queue {row.name} do not end")


def sync_to_first_failure(row: Queue, timeout: float | None, progress: bool | str = False) -> None:
    """Wait until a queue is quiet, or has a failure: then cancel what waits, stop what runs, and raise it."""
    failed = FirstFailure(row)
    stopped = failed.stop() if gathering.gather(row, timeout, progress, failed) else 0
    row.emit()
    verb = "was" if stopped == 1 else "were"
    gathering.raise_failures(row, f", and {counted(stopped, 'other')} {verb} cancelled" if stopped else "")


class FirstFailure:
    """Tells whether a unit of a queue has failed that nobody has asked for, or a callback."""

    def __init__(self, row: Queue) -> None:
        self._row = row
        if row.new_failures is None:
            row.new_failures = deque(maxlen=MOST_FAILURES)
        self._before = bool(row.unasked_failures())

    def __call__(self) -> bool:
        """Return whether there is one. Called again and again by whoever reads, so it looks at little."""
        row = self._row
        if self._before or (row.callbacks is not None and row.callbacks.failures):
            return True
        assert row.new_failures is not None
        return any(not unit.asked for unit in tuple(row.new_failures))

    def stop(self) -> int:
        """Cancel what waits and stop what runs, without any wait for it; return how many units that cancels."""
        row = self._row
        before = row.cancelled
        row.cleared = next(row.ids)
        _stop_all(row, 0.0, "another unit of its queue has failed (stop_on_error)")
        return row.cancelled - before
