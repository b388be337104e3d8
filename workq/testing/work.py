"""Workers in memory at work: what they are given, begin, wait for and end, and what the scheduler is told of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from workq.core.events import (
    BlockedHow,
    Event,
    OwnerDone,
    OwnerOffers,
    StopReason,
    UnitStopped,
    WorkerBlocked,
    WorkerDry,
    WorkerFit,
    WorkerId,
    WorkerUnblocked,
    WorkerUnfit,
    WorkerWorn,
    WorkTaken,
    WorkWaits,
)
from workq.core.states import UnitState
from workq.testing.clock import ManualClock
from workq.testing.records import MemoryQueue, MemoryUnit, MemoryWorker, Script

U = UnitState


class Work:
    """The part of a ``MemoryEngine`` that plays its workers. What it needs is the engine's."""

    if TYPE_CHECKING:
        clock: ManualClock
        batch_units: int
        inbox: deque[Event]
        workers: dict[WorkerId, MemoryWorker]

        def open_queue(self, category: str, max_workers: int, *, owner: MemoryWorker | None = None) -> MemoryQueue: ...
        def submit(self, queue: MemoryQueue, script: Script = Script.WORK, work_s: float = 0.01) -> MemoryUnit: ...
        def close(self, queue: MemoryQueue) -> None: ...
        def exit(self, worker: MemoryWorker) -> None: ...

    def _tell_level(self, queue: MemoryQueue) -> None:
        self.inbox.append(WorkWaits(queue.id, len(queue.backlog)) if queue.backlog else WorkTaken(queue.id))

    def _go_on(self, worker: MemoryWorker) -> None:
        """Give the worker what it may have, and say so if that is nothing."""
        queue = worker.queue
        while queue and self._may_take(worker, queue):
            if worker.allowance is not None:
                worker.allowance -= 1
            self._hand_over(worker, queue.backlog.popleft())
            if not queue.backlog:
                self.inbox.append(WorkTaken(queue.id))
        if worker.hand and worker.hand[0].state is U.SENT:
            self._begin(worker)
        elif not worker.hand and worker.leaving:
            self.exit(worker)
        elif not worker.hand:
            worker.said_dry = True
            self.inbox.append(WorkerDry(worker.id))

    def _may_take(self, worker: MemoryWorker, queue: MemoryQueue) -> bool:
        room = len(worker.hand) < self.batch_units and not worker.blocked and not worker.leaving
        able = worker.quota != 0 and not worker.unfit
        return room and able and bool(queue.backlog) and worker.allowance != 0 and not queue.paused

    def _hand_over(self, worker: MemoryWorker, unit: MemoryUnit) -> None:
        unit.move("send")
        worker.hand.append(unit)
        worker.said_dry = False
        if worker.quota is not None:
            worker.quota -= 1
            if worker.quota <= 1:
                self.inbox.append(WorkerWorn(worker.id, spent=not worker.quota))
        if len(worker.hand) == 1:
            self._begin(worker)

    def _begin(self, worker: MemoryWorker) -> None:
        unit = worker.runs
        unit.move("start")
        unit.starts += 1
        worker.life += 1
        if not self._set_up(worker, unit.queue):
            self._plan(worker, 0.001, lambda: self._fail_set_up(worker))
            return
        half = unit.work_s / 2
        match unit.script:
            case Script.WAIT:
                self._plan(worker, half, lambda: self._block(worker, lambda: self._plan(worker, half, lambda: self._finish(worker))))
            case Script.NEST:
                self._plan(worker, half, lambda: self._block(worker, lambda: self._nest(worker)))
            case Script.TREE:
                self._plan(worker, half, lambda: self._branch(worker))
            case Script.CRASH:
                self._plan(worker, half, lambda: self.exit(worker))
            case _:
                self._plan(worker, unit.work_s, lambda: self._finish(worker))

    def _set_up(self, worker: MemoryWorker, queue: MemoryQueue) -> bool:
        """Set the worker up for a queue, if it is not yet; return whether that went well."""
        if queue.id in worker.fit_for or (queue.set_up_fate is None and not queue.tears_down):
            return True
        if queue.set_up_fate is not None and not queue.set_up_fate():
            return False
        worker.fit_for.add(queue.id)
        self.inbox.append(WorkerFit(worker.id, queue.id))
        return True

    def _fail_set_up(self, worker: MemoryWorker) -> None:
        """The unit that met it fails; those behind it go elsewhere."""
        unit = worker.hand.popleft()
        worker.unfit = True
        worker.life += 1
        self.inbox.append(WorkerUnfit(worker.id, unit.queue.id, failed=unit.state is not U.STOPPING))
        if unit.state is U.STOPPING:
            self._stopped(unit)
            self.inbox.append(UnitStopped(unit.id))
        else:
            unit.move("raise")
        self._recall(worker)
        self._look_at_children_of_others(unit)
        self._go_on(worker)

    def _plan(self, worker: MemoryWorker, seconds: float, step: Callable[[], None]) -> None:
        life = worker.life
        self.clock.call_after(seconds, lambda: step() if worker.life == life else None)

    def _block(self, worker: MemoryWorker, then: Callable[[], None]) -> None:
        worker.blocked = True
        self.inbox.append(WorkerBlocked(worker.id, BlockedHow.DECLARED))
        self._recall(worker)
        then()

    def _nest(self, worker: MemoryWorker) -> None:
        """Queue two units on the unit's own queue and on a new one; it goes on when both have ended."""
        unit = worker.hand[0]
        inner = self.open_queue(unit.queue.category, 2)
        own = inner if unit.queue.session else unit.queue  # the one worker of a session would wait for itself
        unit.children += [self.submit(own, work_s=unit.work_s), self.submit(inner, work_s=unit.work_s)]
        self._look_at_children(worker)

    def _look_at_children(self, worker: MemoryWorker) -> None:
        unit = worker.runs if worker.hand else None
        if unit and worker.blocked and unit.children and all(child.ended for child in unit.children):
            self._plan(worker, 0.0, lambda: self._finish(worker))

    def _stopped(self, unit: MemoryUnit) -> None:
        unit.move("interrupted by time-out" if unit.reason is StopReason.TIMED_OUT else "interrupted by cancel")

    def _wait_again(self, unit: MemoryUnit, move: str) -> None:
        unit.move(move)
        if unit.queue.closed:
            unit.move("cancel")
            return
        unit.queue.backlog.appendleft(unit)
        self.inbox.append(WorkWaits(unit.queue.id, len(unit.queue.backlog)))

    def _recall(self, worker: MemoryWorker) -> None:
        """Take back what is behind the running unit."""
        while worker.hand and worker.hand[-1].state is U.SENT:
            self._wait_again(worker.hand.pop(), "recall")

    # -- units that run their own units

    def _branch(self, worker: MemoryWorker) -> None:
        """Queue two units on a queue of the unit's own, wait for them, and offer to run them."""
        unit = worker.runs
        unit.inner = self.open_queue(unit.queue.category, 2, owner=worker)
        script = Script.TREE if unit.level < 2 else Script.WORK
        for _ in range(2):
            child = self.submit(unit.inner, script, unit.work_s)
            child.level = unit.level + 1
            unit.children.append(child)
        self._wait_for_own(worker)

    def _wait_for_own(self, worker: MemoryWorker) -> None:
        unit = worker.runs
        worker.blocked = True
        self.inbox.append(WorkerBlocked(worker.id, BlockedHow.DECLARED))
        self._recall(worker)
        if unit.inner is not None and not unit.inner.closed:
            self.inbox.append(OwnerOffers(unit.inner.id))
        self._look_at_children(worker)

    def _run_own(self, number: WorkerId, queue: MemoryQueue) -> None:
        worker = self.workers.get(number)
        if worker is None:
            return
        if queue.closed:
            if worker.blocked:
                self.inbox.append(WorkerBlocked(worker.id, BlockedHow.DECLARED))
            return
        if not queue.backlog or not worker.blocked or worker.runs.inner is not queue:
            self.inbox.append(OwnerDone(queue.id))  # others were quicker, or the wait is over
            if worker.blocked:
                self.inbox.append(WorkerBlocked(worker.id, BlockedHow.DECLARED))
            if worker.blocked and worker.runs.inner is queue:
                self.inbox.append(OwnerOffers(queue.id))
            self._tell_level(queue)
            return
        unit = queue.backlog.popleft()
        worker.blocked = False
        worker.own.append(unit)
        unit.move("send")
        self._begin(worker)
        self._tell_level(queue)

    def _end_own(self, worker: MemoryWorker) -> None:
        """End the unit that a worker runs itself; the one that waits goes on waiting."""
        unit = worker.own.pop()
        worker.life += 1
        if unit.state is U.STOPPING:
            self._stopped(unit)
            self.inbox.append(UnitStopped(unit.id))
        else:
            unit.move("return")
        self._left(worker, unit)
        self._wait_for_own(worker)
        self._look_at_children_of_others(unit)

    def _sweep_away(self, worker: MemoryWorker) -> None:
        """End the innermost by an interrupt of a unit that waits for it."""
        unit = worker.own.pop()
        worker.life += 1
        if unit.state is not U.STOPPING:
            unit.move("stop")
        self._stopped(unit)
        self.inbox.append(UnitStopped(unit.id))
        self._left(worker, unit)

    def _left(self, worker: MemoryWorker, unit: MemoryUnit) -> None:
        """The worker is no longer in a unit's code."""
        if unit.inner is not None:
            self.close(unit.inner)
        if not unit.queue.closed:
            self.inbox.append(OwnerDone(unit.queue.id))

    def _look_at_children_of_others(self, unit: MemoryUnit) -> None:
        for worker in list(self.workers.values()):
            if worker.hand and unit in worker.runs.children:
                self._look_at_children(worker)

    def _finish(self, worker: MemoryWorker) -> None:
        """End the unit that runs."""
        if worker.own:
            self._end_own(worker)
        else:
            self._end(worker)

    def _end(self, worker: MemoryWorker) -> None:
        """End the running unit, one way or the other, and go on."""
        unit = worker.hand.popleft()
        worker.life += 1
        if unit.inner is not None:
            self.close(unit.inner)
        if unit.state is U.STOPPING:
            self._stopped(unit)
            self.inbox.append(UnitStopped(unit.id))
        else:
            unit.move("return")
        if worker.blocked:
            worker.blocked = False
            self.inbox.append(WorkerUnblocked(worker.id))
        self._look_at_children_of_others(unit)
        self._go_on(worker)


__all__ = ["Work"]
