"""A world of workers that exist in memory only (work.py), and a shell around the scheduler that obeys it as the controller does.

Facts wait in an inbox before the scheduler is told of them, and time may pass meanwhile, so that news is as late as it can be in a real
process; orders are obeyed at once. All that is random is decided by whoever uses this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from workq.core.actions import (
    Action,
    FailCategory,
    FailQueue,
    Grant,
    Interrupt,
    KillUnit,
    KillWorker,
    Limit,
    Release,
    RunOwn,
    Sample,
    StartWorker,
    StopWorker,
    TearDown,
)
from workq.core.events import (
    CategoryAdded,
    CategoryRemoved,
    Event,
    Limits,
    QueueClosed,
    QueueId,
    QueueOpened,
    QueuePaused,
    QueueResized,
    QueueResumed,
    StopReason,
    Tick,
    UnitId,
    UnitMustStop,
    WorkerBlocked,
    WorkerDry,
    WorkerExited,
    WorkerId,
    WorkerKilled,
    WorkerReady,
    WorkerTook,
    WorkerToreDown,
    WorkerWorn,
    WorkTaken,
    WorkWaits,
)
from workq.core.scheduler import Scheduler
from workq.core.states import IDLE, UnitState, WorkerState
from workq.testing.clock import ManualClock
from workq.testing.records import MemoryQueue, MemoryUnit, MemoryWorker, Script
from workq.testing.work import Work

U, W = UnitState, WorkerState


class MemoryEngine(Work):
    """A world for one scheduler.

    Attributes:
        scheduler: The scheduler that rules it; one with the default settings if none is given.
        start_fate: Says of each new worker after how many seconds it is ready, or None if it dies instead.
        batch_units: How many units a worker holds at most.
        quota_fate: Says of each new worker how many units it may run, or None.
        tear_down_s: How long a tear-down takes.
    """

    def __init__(
        self,
        clock: ManualClock,
        scheduler: Scheduler | None = None,
        start_fate: Callable[[], float | None] = lambda: 0.02,
        batch_units: int = 3,
        quota_fate: Callable[[], int | None] = lambda: None,
        tear_down_s: Callable[[], float] = lambda: 0.001,
    ) -> None:
        self.clock = clock
        self.scheduler = scheduler or Scheduler()
        self.start_fate = start_fate
        self.batch_units = batch_units
        self.quota_fate = quota_fate
        self.tear_down_s = tear_down_s
        self.inbox: deque[Event] = deque()
        self.queues: dict[QueueId, MemoryQueue] = {}
        self.workers: dict[WorkerId, MemoryWorker] = {}
        self.units: list[MemoryUnit] = []
        self.sampling: dict[str, bool] = {}
        self.failed_categories = self.failed_queues = self.recycled = 0
        self.orders = 0
        self._unchecked = True  # the scheduler has been told something since `check` looked at it

    # -- what an application does

    def add_category(self, name: str, limits: Limits) -> None:
        """Make a category, or change its limits."""
        self.inbox.append(CategoryAdded(name, limits))

    def remove_category(self, name: str) -> None:
        """Remove a category, all of whose queues are closed."""
        self.inbox.append(CategoryRemoved(name))

    def open_queue(
        self,
        category: str,
        max_workers: int,
        *,
        set_up_fate: Callable[[], bool] | None = None,
        tears_down: bool = False,
        session: bool = False,
        owner: MemoryWorker | None = None,
    ) -> MemoryQueue:
        """Open a queue, of the application or of a unit in ``owner``."""
        queue = MemoryQueue(QueueId(len(self.queues) + 1), category, set_up_fate, tears_down, session, owner=owner)
        self.queues[queue.id] = queue
        depth, by = (0, None) if owner is None else (1 + len(owner.own), owner.id)
        self.inbox.append(QueueOpened(queue.id, category, max_workers, depth, session, tears_down, by))
        return queue

    def wear(self, worker: MemoryWorker) -> None:
        """A worker is old, or large."""
        if worker.up:
            self.inbox.append(WorkerWorn(worker.id))

    def submit(self, queue: MemoryQueue, script: Script = Script.WORK, work_s: float = 0.01) -> MemoryUnit:
        """Queue one unit: to a dry worker of the queue at once, else to the backlog."""
        unit = MemoryUnit(UnitId(len(self.units) + 1), queue, script, work_s)
        self.units.append(unit)
        if queue.closed:
            unit.move("cancel")
            return unit
        dry = self._dry_worker(queue)
        if dry is None:
            queue.backlog.append(unit)
            self.inbox.append(WorkWaits(queue.id, len(queue.backlog)))
        else:
            self.inbox.append(WorkerTook(dry.id))
            self._hand_over(dry, unit)
        return unit

    def _dry_worker(self, queue: MemoryQueue) -> MemoryWorker | None:
        dry = (worker for worker in self.workers.values() if worker.queue is queue and worker.said_dry and not worker.leaving)
        dry = (worker for worker in dry if worker.quota != 0 and not worker.unfit)
        return None if queue.paused else next(dry, None)

    def stop(self, unit: MemoryUnit, reason: StopReason) -> None:
        """End a unit: at once if it has not begun."""
        if unit.ended or unit.state is U.STOPPING:
            return
        worker = next((worker for worker in self.workers.values() if unit in worker.hand or unit in worker.own), None)
        if unit.state is U.SENT and worker is not None:
            worker.hand.remove(unit)
            unit.move("recall")
            unit.move("cancel")
            self._look_at_children_of_others(unit)
            self._go_on(worker)
        elif unit.state is U.QUEUED:
            unit.queue.backlog.remove(unit)
            unit.move("cancel")
            self._tell_level(unit.queue)
            self._look_at_children_of_others(unit)
        elif worker is not None:
            unit.move("stop")
            unit.reason = reason
            self.inbox.append(UnitMustStop(unit.id, worker.id, reason, 0.1))

    def pause(self, queue: MemoryQueue, paused: bool = True) -> None:
        """Pause a queue, or resume it."""
        queue.paused = paused
        self.inbox.append(QueuePaused(queue.id) if paused else QueueResumed(queue.id))

    def resize(self, queue: MemoryQueue, max_workers: int) -> None:
        """Change how many workers may serve a queue."""
        self.inbox.append(QueueResized(queue.id, max_workers))

    def close(self, queue: MemoryQueue) -> None:
        """Delete a queue: what waits is cancelled, what runs is stopped."""
        if queue.closed:
            return
        queue.closed = True
        for unit in [unit for unit in self.units if unit.queue is queue]:
            self.stop(unit, StopReason.CANCELLED)
        self.inbox.append(QueueClosed(queue.id))

    # -- what happens to processes

    def exit(self, worker: MemoryWorker) -> None:
        """End a process: the unit that ran is lost, those behind it wait again."""
        del self.workers[worker.id]
        hand = list(worker.hand)
        worker.hand.clear()
        worker.life += 1
        while worker.own:
            self._lose(worker.own.pop())
        if hand and hand[0].state is not U.SENT:
            self._lose(hand.pop(0))
        for unit in reversed(hand):
            self._wait_again(unit, "worker gone")
        for queue in [queue for queue in self.queues.values() if queue.owner is worker]:
            self.close(queue)
        self.inbox.append(WorkerExited(worker.id))
        if worker.queue is not None and worker.queue.session:
            self.close(worker.queue)  # what it held is gone

    def _lose(self, unit: MemoryUnit) -> None:
        if unit.state is U.STOPPING:
            self._stopped(unit)
        else:
            unit.move("worker gone")
        self._look_at_children_of_others(unit)

    def check(self) -> None:
        """Assert that the scheduler's picture is in order and, once it has heard all news, that it is true."""
        if self._unchecked:
            self.scheduler.check()
            self._unchecked = False
        if self.inbox:
            return
        for worker in self.workers.values():
            row = self.scheduler.workers[worker.id]
            if row.state is not W.STOPPING:
                assert bool(worker.hand) == (row.state in (W.ACTIVE, W.BLOCKED)), (row, worker)
                assert worker.blocked == (row.state is W.BLOCKED or row.doubted), (row, worker)
                assert not row.outgoing or row.state not in IDLE, "it has been asked to leave"
            for unit in worker.hand:
                assert unit.state is not U.SENT or not unit.queue.paused, f"unit {unit.id} of a paused queue is in a worker's hands"
        for queue in self.queues.values():
            known = self.scheduler.queues.get(queue.id)
            units = known.units if known else 0
            assert bool(units) == bool(queue.backlog), (known, queue)
            assert units >= len(queue.backlog), "it is told whenever the number grows"

    # -- the turn of the controller

    def turn(self) -> Event:
        """Tell the scheduler one fact, the oldest or that time has passed, and obey its orders.

        That a worker is dry is told only if it is so still. The race: 1. a worker ends a unit that it took directly, and the news waits
        in the inbox; 2. the scheduler, which takes the worker for dry from before, grants it a queue, and it gets a unit; 3. the
        old news would make the scheduler believe that it is dry, and give it to a queue that would then wait behind that unit. The same
        holds of a worker that was blocked, and runs a unit itself by now.
        """
        event = self.inbox.popleft() if self.inbox else Tick()
        if isinstance(event, WorkerDry) and not self._is_dry(event.worker):
            return event
        if isinstance(event, WorkerBlocked) and self._runs_own(event.worker):
            return event
        self._unchecked = True
        for action in self.scheduler.handle(event, self.clock.now):
            self.orders += 1
            self._obey(action)
        return event

    def _kill_unit(self, number: WorkerId, unit: UnitId) -> None:
        """Kill a worker with a unit that has not ended, though the news of its end may be on the way."""
        worker = self.workers.get(number)
        if worker is not None and worker.has_begun(self.units[unit - 1]):
            self.inbox.append(WorkerKilled(number))
            self.exit(worker)

    def _is_dry(self, number: WorkerId) -> bool:
        worker = self.workers.get(number)
        return worker is not None and not worker.hand

    def _runs_own(self, number: WorkerId) -> bool:
        worker = self.workers.get(number)
        return worker is not None and bool(worker.own) and not worker.blocked

    def _obey(self, action: Action) -> None:
        match action:
            case StartWorker(number, category):
                self._start(MemoryWorker(number, category))
            case StopWorker(number, recycled):
                self.recycled += recycled
                self._ask_to_leave(number)
            case TearDown(number, queue):
                self._tear_down(number, queue)
            case FailQueue(queue):
                self.failed_queues += 1
                self._fail_units(self.queues[queue])
            case KillWorker(number):
                if number in self.workers:
                    self.exit(self.workers[number])
            case KillUnit(number, unit):
                self._kill_unit(number, unit)
            case Grant(number, queue, limit):
                self._grant(number, self.queues[queue], limit)
            case RunOwn(number, queue):
                self._run_own(number, self.queues[queue])
            case Limit(number, units):
                self._limit(number, units)
            case Release(number):
                self._release(number)
            case Interrupt(number, unit):
                self._interrupt(number, unit)
            case FailCategory(category):
                self._fail(category)
            case Sample(category, on):
                self.sampling[category] = on

    def _start(self, worker: MemoryWorker) -> None:
        self.workers[worker.id] = worker
        worker.quota = self.quota_fate()
        ready_after_s = self.start_fate()
        if ready_after_s is None:
            self.clock.call_after(0.01, lambda: self.exit(worker) if worker.id in self.workers else None)
        else:
            self.clock.call_after(ready_after_s, lambda: self._ready(worker))

    def _ready(self, worker: MemoryWorker) -> None:
        if worker.id in self.workers:
            worker.up = True
            self.inbox.append(WorkerReady(worker.id))

    def _ask_to_leave(self, number: WorkerId) -> None:
        if worker := self.workers.get(number):
            worker.leaving = True
            if not worker.hand:
                self.exit(worker)

    def _grant(self, number: WorkerId, queue: MemoryQueue, limit: int | None) -> None:
        if worker := self.workers.get(number):
            worker.queue = queue
            worker.allowance = limit
            worker.quota = None if queue.session else worker.quota
            self._go_on(worker)
            self._tell_level(queue)

    def _limit(self, number: WorkerId, units: int) -> None:
        if worker := self.workers.get(number):
            worker.allowance = units
            if units == 0:
                self._recall(worker)

    def _release(self, number: WorkerId) -> None:
        """Obey, even if the worker was given a unit a moment ago: the scheduler will hear of that, and attach it again."""
        if worker := self.workers.get(number):
            worker.queue = None
            worker.allowance = 0

    def _tear_down(self, number: WorkerId, queue: QueueId) -> None:
        """Have it done, and told of later."""
        self._release(number)
        if worker := self.workers.get(number):
            worker.fit_for.discard(queue)
            self.clock.call_after(self.tear_down_s(), lambda: self._tore_down(worker))

    def _tore_down(self, worker: MemoryWorker) -> None:
        if worker.id in self.workers:
            self.inbox.append(WorkerToreDown(worker.id))

    def _interrupt(self, number: WorkerId, unit_id: UnitId) -> None:
        worker = self.workers.get(number)
        meant = [unit for unit in (*worker.own, *list(worker.hand)[:1]) if unit.id == unit_id] if worker else []
        if worker and meant and worker.runs.script is not Script.DEAF:
            while worker.own and worker.own[-1] is not meant[0] and meant[0] in (*worker.own[:-1], worker.hand[0]):
                self._sweep_away(worker)
            self._finish(worker)

    def _fail(self, category: str) -> None:
        self.failed_categories += 1
        for queue in [queue for queue in self.queues.values() if queue.category == category and queue.backlog]:
            self._fail_units(queue)

    def _fail_units(self, queue: MemoryQueue) -> None:
        self.inbox.append(WorkTaken(queue.id))  # older news that units wait may stand in the inbox
        while queue.backlog:
            unit = queue.backlog.popleft()
            unit.move("fail")
            self._look_at_children_of_others(unit)


__all__ = ["MemoryEngine"]
