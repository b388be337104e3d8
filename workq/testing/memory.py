"""Workers that exist in memory only, and a shell around the scheduler that obeys it as the controller does.

Units have a script instead of code. Facts wait in an inbox before the scheduler is told of them, and time may pass meanwhile, so that
news is as late as it can be in a real process; orders are obeyed at once. All that is random is decided by whoever uses this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

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
    BlockedHow,
    CategoryAdded,
    CategoryRemoved,
    Event,
    Limits,
    OwnerDone,
    OwnerOffers,
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
    UnitStopped,
    WorkerBlocked,
    WorkerDry,
    WorkerExited,
    WorkerFit,
    WorkerId,
    WorkerReady,
    WorkerTook,
    WorkerToreDown,
    WorkerUnblocked,
    WorkerUnfit,
    WorkerWorn,
    WorkTaken,
    WorkWaits,
)
from workq.core.scheduler import Scheduler
from workq.core.states import IDLE, UNIT_ENDS, UNIT_MOVES, UnitState, WorkerState, advance
from workq.testing.clock import ManualClock

U, W = UnitState, WorkerState


class Script(Enum):
    """What a unit does when it runs."""

    WORK = "work"  # computes for its time
    WAIT = "wait"  # computes for half of it, then waits as long for a lock
    NEST = "nest"  # queues units and waits for them
    TREE = "tree"  # queues units on a queue of its own, waits for them, and runs them itself where it is told to
    DEAF = "deaf"  # computes, and ignores every interrupt
    CRASH = "crash"  # takes its worker with it


@dataclass(slots=True, eq=False)
class MemoryUnit:
    """One unit: where it is, and how often it was begun."""

    id: UnitId
    queue: MemoryQueue
    script: Script
    work_s: float
    children: list[MemoryUnit] = field(default_factory=list)
    state: UnitState = U.QUEUED
    starts: int = 0
    inner: MemoryQueue | None = None
    level: int = 0
    reason: StopReason | None = None

    @property
    def ended(self) -> bool:
        """It has come to one of its ends."""
        return self.state in UNIT_ENDS

    def move(self, move: str) -> None:
        """Make one legal move."""
        self.state = advance(UNIT_MOVES, self.state, move)


@dataclass(slots=True, eq=False)
class MemoryQueue:
    """One queue with its backlog.

    Attributes:
        set_up_fate: Says of each set-up whether it goes well; None: there is none.
        tears_down: Its workers have something to do before they leave it.
        session: It has one worker of its own; when that is gone it is closed.
    """

    id: QueueId
    category: str
    set_up_fate: Callable[[], bool] | None = None
    tears_down: bool = False
    session: bool = False
    backlog: deque[MemoryUnit] = field(default_factory=deque)
    paused: bool = False
    closed: bool = False
    owner: MemoryWorker | None = None


@dataclass(slots=True, eq=False)
class MemoryWorker:
    """One process that is none.

    Attributes:
        allowance: How many more units it may be given; None: any number.
        hand: The units that it was given; the first is the one that runs.
        own: The units that it runs itself while the one before waits for them, the innermost last.
        said_dry: WorkerDry was told, and nothing was given to it since.
        leaving: It was asked to leave, and does so once its hands are empty.
        quota: How many more units it may ever be given; None: any number.
        fit_for: The queues that it is set up for.
        unfit: Its set-up has failed: it begins nothing more.
        life: Changes when what is planned for the running unit no longer holds.
    """

    id: WorkerId
    category: str
    up: bool = False
    queue: MemoryQueue | None = None
    allowance: int | None = 0
    hand: deque[MemoryUnit] = field(default_factory=deque)
    own: list[MemoryUnit] = field(default_factory=list)
    blocked: bool = False
    said_dry: bool = True
    leaving: bool = False
    quota: int | None = None
    fit_for: set[QueueId] = field(default_factory=set)
    unfit: bool = False
    life: int = 0

    @property
    def runs(self) -> MemoryUnit:
        """The unit whose code it is in."""
        return self.own[-1] if self.own else self.hand[0]

    def has_begun(self, unit: MemoryUnit) -> bool:
        """Whether it is in that unit's code, or below it."""
        return unit in self.own or (bool(self.hand) and self.hand[0] is unit)


class MemoryEngine:
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

    def _stopped(self, unit: MemoryUnit) -> None:
        unit.move("interrupted by time-out" if unit.reason is StopReason.TIMED_OUT else "interrupted by cancel")

    def _wait_again(self, unit: MemoryUnit, move: str) -> None:
        unit.move(move)
        if unit.queue.closed:
            unit.move("cancel")
            return
        unit.queue.backlog.appendleft(unit)
        self.inbox.append(WorkWaits(unit.queue.id, len(unit.queue.backlog)))

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
            case KillWorker(number) | KillUnit(number, _):
                if number in self.workers:
                    self.exit(self.workers[number])
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

    def _recall(self, worker: MemoryWorker) -> None:
        """Take back what is behind the running unit."""
        while worker.hand and worker.hand[-1].state is U.SENT:
            self._wait_again(worker.hand.pop(), "recall")

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

    # -- workers at work

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
