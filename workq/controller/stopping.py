"""Units that have to stop: cancelled, timed out, of deleted queues. The core climbs the ladder; here is what its rungs do."""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from workq.controller.dispatch import GHOST_VALUE
from workq.controller.records import GHOST, OWN_FIRST, Batch, OwnBatch, Worker
from workq.core.events import StopReason, UnitId, UnitMustStop, WorkerId, WorkerKilled
from workq.core.states import UnitState
from workq.outcome import PENDING, Ended, cancelled, timed_out
from workq.process import stack
from workq.transport.board import KIND_INTERRUPTED, MASK, STACK_FD, STARTED, TARGET
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")

DEAF_AFTER = 5  # interrupts that have changed nothing; then the unit is asked where it is


ENDS = {
    StopReason.CANCELLED: UnitState.CANCELLED,
    StopReason.TIMED_OUT: UnitState.TIMED_OUT,
    StopReason.MEMORY: UnitState.FAILED,
    StopReason.CPU: UnitState.FAILED,
}


class Stop:
    """A unit that has to stop, and where it runs."""

    __slots__ = ("number", "signals", "unit", "worker")

    def __init__(self, unit: Unit[Any], worker: Worker, number: int) -> None:
        self.unit = unit
        self.worker = worker
        self.number = number  # the worker's number of the unit
        self.signals = 0  # interrupts that were sent


class Stops:
    """The rows of units that have to stop, and the clock of time-outs. Belongs to the controller's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._rows: dict[UnitId, Stop] = {}
        self._ids = count(1)
        self.next_check: float | None = None

    # ------------------------------------------------------------ asking

    def stop(self, unit: Unit[Any], why: str, reason: StopReason = StopReason.CANCELLED, error: BaseException | None = None) -> None:
        """Have a unit end, wherever it is; one that is past a limit of its own ends with this ``error``. With the lead."""
        loop = self._loop
        with loop.dispatcher.lock:
            place = loop.dispatcher.find(unit)
            if place is not None and place[0].words[STARTED] < place[1] < OWN_FIRST:
                loop.dispatcher.recall(place[0])  # it waits behind another: take it back, and drop it
                place = loop.dispatcher.find(unit)
        if unit.value is not PENDING:
            return
        if place is None:
            queue = unit.call.queue
            queue.unusual = True  # whoever sends what is left of it has the worker skip it
            queue.cancelled += 1
            loop.ends.settle(unit, cancelled(unit, why))
            queue.resting.pop(unit, None)
            with loop.dispatcher.lock:
                loop.dispatcher.trim(queue)
            loop.lead.wake_ready()
            return
        extra = unit.need_extra()
        if extra.stopping is None:
            extra.exceeded = error
            extra.stopping = ENDS[reason]
            worker, number = place
            unit_id = UnitId(next(self._ids))
            self._rows[unit_id] = Stop(unit, worker, number)
            loop.tell(UnitMustStop(unit_id, WorkerId(int(worker.number)), reason, unit.call.queue.delete_timeout_s))

    def ended(self) -> list[UnitId]:
        """Return the rows whose unit has ended since, or is no longer there, and forget them. Under the lock."""
        gone = [unit_id for unit_id, row in self._rows.items() if row.unit.value is not PENDING or self._moved(row)]
        for unit_id in gone:
            self._follow(self._rows.pop(unit_id))
        return gone

    def _moved(self, row: Stop) -> bool:
        """Return whether the unit is no longer where it was to be stopped."""
        extra = row.unit.extra
        return (extra is not None and extra.stopping is None) or self._loop.dispatcher.find(row.unit) != (row.worker, row.number)

    def _follow(self, row: Stop) -> None:
        """A unit that had to stop was not begun after all, and went back: its worker saw the limit in time, or has ended."""
        extra = row.unit.extra
        if row.unit.value is not PENDING or extra is None or extra.stopping is None:
            return
        wanted, extra.stopping = extra.stopping, None
        if wanted is UnitState.CANCELLED:
            self._loop.command(self._loop.withdrawals.stop_unit, row.unit)

    def kill_now(self, unit: Unit[Any], why: str) -> None:
        """Kill the worker of a unit that was asked to end, without waiting any longer. With the lead."""
        for unit_id, row in list(self._rows.items()):
            if row.unit is unit:
                with self._loop.dispatcher.lock:
                    self.kill(WorkerId(int(row.worker.number)), unit_id, why)

    # ------------------------------------------------------------ the rungs (with lead and lock)

    def interrupt(self, number: WorkerId, unit_id: UnitId) -> None:
        """Raise ExternalInterrupt in the unit. The word names it, so a signal that comes too late strikes nobody."""
        row = self._rows.get(unit_id)
        if row is None or row.worker.exited:
            return
        row.worker.words[TARGET] = row.number
        row.signals += 1
        if row.signals == DEAF_AFTER:
            stack.ask(row.worker.pid, row.worker.words[STACK_FD])  # the answer is read before the kill, if it comes to that
        if row.signals == 1:
            self._loop.controller.tallies.count(row.worker.category, "interrupted")
            logger.debug("unit %s is interrupted in %s (pid %d)", row.unit.label, row.worker.name, row.worker.pid)
        self._loop.engine.interrupt(row.worker.lane)

    def kill(self, number: WorkerId, unit_id: UnitId, why: str = "did not end within delete_timeout") -> None:
        """Kill the worker of a unit that does not end, and say so; no other unit can be hit, as none may begin any more.

        Once: a worker that holds much memory takes a while to go, and meanwhile may be found too greedy again, or too slow.
        """
        row = self._rows.get(unit_id)
        if row is None or row.worker.exited or row.worker.killed_for is not None:
            return
        loop, worker = self._loop, row.worker
        loop.dispatcher.recall(worker)
        loop.dispatcher.read(worker)
        if row.number >= OWN_FIRST:
            loop.nested.answer()  # that it has ended stands among what the worker has said
        if row.unit.value is not PENDING or self._moved(row):
            return  # it has just ended
        worker.killed_for = f"its unit {row.unit.label} {why}"
        loop.controller.tallies.count(worker.category, "killed")
        where = stack.answer(worker.pid, worker.words[STACK_FD]) if row.signals >= DEAF_AFTER else ""
        logger.warning("%s (pid %d) is killed: %s%s", worker.name, worker.pid, worker.killed_for, where and f"; it was at\n{where}")
        loop.engine.kill(worker.lane)
        loop.tell(WorkerKilled(number))

    # ------------------------------------------------------------ time-outs

    def due(self, now: float) -> bool:
        """Return whether a time-out should be looked at."""
        return self.next_check is not None and self.next_check <= now

    def watch(self, timeout_s: float) -> None:
        """A unit with a time-out was sent: look again no later than after that. Under the dispatch lock, any thread."""
        due = time.monotonic() + timeout_s
        if self.next_check is None or due < self.next_check:
            self.next_check = due
            self._loop.ring()

    def check(self, now: float) -> None:
        """Stop the units whose time is over. With the lead.

        A unit that begins right after a look cannot be overdue before its time-out has passed once more, so the next look is at the
        end of the running one's time or after the shortest time-out, whichever is first.
        """
        if not self.due(now):
            return
        self.next_check = None
        for worker in self._loop.dispatcher.workers:
            due = self._check_worker(worker, now)
            if due is not None and (self.next_check is None or due < self.next_check):
                self.next_check = due

    def _check_worker(self, worker: Worker, now: float) -> float | None:
        dues = [
            due for due in (self._check_batches(worker, now), *(self._check_own(batch, now) for batch in worker.own)) if due is not None
        ]
        return min(dues, default=None)

    def _check_own(self, batch: OwnBatch, now: float) -> float | None:
        """The same for a unit that a worker runs while its maker waits."""
        unit = batch.units[0]
        timeout = None if unit is GHOST else unit.call.options.timeout
        if timeout is None:
            return None
        over: float = (batch.begun_ns / 1e9 if batch.begun_ns else now) + timeout
        if over > now:
            return over
        if unit.extra is None or unit.extra.stopping is None:
            self.stop(unit, "it ran for too long", StopReason.TIMED_OUT)
        return None

    def _check_batches(self, worker: Worker, now: float) -> float | None:
        units = [unit for batch in tuple(worker.batches) for unit in batch.units[batch.at :] if unit is not GHOST]
        timeouts: list[float] = [unit.call.options.timeout for unit in units if unit.call.options.timeout is not None]
        if not timeouts:
            return None
        next_look = now + min(timeouts)
        running = self._loop.dispatcher.running(worker)
        timeout = running[0].call.options.timeout if running is not None else None
        if running is not None and timeout is not None:
            unit, begun_s = running
            over = begun_s + timeout
            if over > now:
                return min(next_look, over)
            if unit.extra is None or unit.extra.stopping is None:
                self.stop(unit, "it ran for too long", StopReason.TIMED_OUT)
        return next_look


def failed_end(loop: Loop, worker: Worker, batch: Batch, at: int, kind: int, payload: Any) -> Any:
    """Return how a unit ended that raised; GHOST_VALUE where it is tried again. Under the lead; runs no user code."""
    unit = batch.units[at]
    stopping = unit.extra.stopping if unit.extra is not None else None
    queue = unit.call.queue
    if unit.value is not PENDING:
        return unit.value
    if kind == KIND_INTERRUPTED and stopping is UnitState.CANCELLED:
        queue.cancelled += 1
        return cancelled(unit, "it was interrupted while it ran")
    if kind == KIND_INTERRUPTED and stopping is UnitState.TIMED_OUT:
        end = timed_out(unit, unit.call.options.timeout or 0.0, worker)
    elif kind == KIND_INTERRUPTED and stopping is UnitState.FAILED:
        end = exceeded(unit)
    else:
        end = Ended(UnitState.FAILED, payload=payload, function=unit.call.name, exact=queue.exact_errors)
    if stopping is UnitState.FAILED and unit.call.options.memory_bytes is not None and not queue.session:
        worker.quota = 0  # what it took it may hold on to: the worker is replaced
        loop.ring()
    if unit.call.options.retry is not None:
        from workq.controller import retrying  # loaded already, by whoever asked for retries

        if isinstance(batch, OwnBatch):
            begun_ns, ended_ns = batch.begun_ns, batch.ended_ns
        else:
            begun_ns, ended_ns = loop.dispatcher.begun_ns(worker, batch, at), worker.lane.board.ends[(batch.first + at) & MASK]
        attempt = retrying.attempt_of(unit, end, worker, begun_ns, ended_ns)
        if retrying.comes_again(loop, unit, end, attempt, (batch.units, at)):
            return GHOST_VALUE
    count_end(unit, end.state)
    return end


def exceeded(unit: Unit[Any]) -> Ended:
    """Return the end of a unit that was stopped as it was past a limit of its own."""
    assert unit.extra is not None
    return Ended(UnitState.FAILED, unit.extra.exceeded)


def count_end(unit: Unit[Any], state: UnitState) -> None:
    """Count an end other than done or cancelled."""
    queue = unit.call.queue
    queue.note_failure(unit)
    if state is UnitState.FAILED:
        queue.failed += 1
    elif state is UnitState.TIMED_OUT:
        queue.timed_out += 1
    elif state is UnitState.LOST:
        queue.lost += 1
