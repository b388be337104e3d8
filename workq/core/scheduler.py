"""The decisions of the controller: one fact in, the orders that follow from it out.

Not thread-safe, and never waits: it is told the time. The controller's thread owns it. The price of an event
does not depend on the number of queues: only the event's own category is looked at, and of its queues only those that have
workers and the head of the ring.
"""

from __future__ import annotations

from itertools import count

from workq.config import DEFAULTS, Settings
from workq.core import checks, placement, recycling, sizing, stopping
from workq.core.actions import (
    Action,
    FailCategory,
    FailQueue,
    Grant,
    KillWorker,
    Limit,
    Release,
    RingAlarm,
    RunOwn,
    Sample,
    StartWorker,
    StopWorker,
    TearDown,
)
from workq.core.alarms import Alarms
from workq.core.events import (
    AlarmDropped,
    AlarmSet,
    BlockedHow,
    CategoryAdded,
    CategoryRemoved,
    Event,
    Limits,
    OwnerDone,
    OwnerOffers,
    OwnerWithdraws,
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
from workq.core.records import CategoryRow, QueueRow, WorkerRow
from workq.core.states import ATTACHED, IDLE, LEFT_FOR_GOOD, WORKER_MOVES, WorkerState, advance
from workq.core.stopping import StopRow

W = WorkerState


class Scheduler:
    """Decides which worker serves which queue, how many there are, and what is done against units that have to stop.

    Example:
        >>> from workq.core.events import CategoryAdded, Limits, QueueId, QueueOpened, WorkWaits
        >>> scheduler = Scheduler()
        >>> scheduler.handle(CategoryAdded("Default", Limits(max_active_workers=2)), now=0.0)
        []
        >>> scheduler.handle(QueueOpened(QueueId(1), "Default", max_workers=2), now=0.0)
        []
        >>> scheduler.handle(WorkWaits(QueueId(1), units=1), now=0.0)
        [StartWorker(worker=1, category='Default')]

    Attributes:
        categories, queues, workers, stops: The rows, by name or number. Whoever reads them must not change them.
        alarms: What else is to be done at some time.
        peak_active: By category: the most workers that were active at once. Stays when the category goes.
        retirements: By category: how often a worker was retired.
    """

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        self.settings = settings
        self.categories: dict[str, CategoryRow] = {}
        self.queues: dict[QueueId, QueueRow] = {}
        self.workers: dict[WorkerId, WorkerRow] = {}
        self.stops: dict[UnitId, StopRow] = {}
        self.alarms = Alarms()
        self.peak_active: dict[str, int] = {}
        self.retirements: dict[str, int] = {}
        self._worker_ids = count(1)
        self._deadlines: dict[WorkerRow | StopRow | CategoryRow, float] = {}
        self._touched: dict[str, CategoryRow] = {}  # categories to be settled before the current event is done
        self._patience_s = {
            W.STARTING: settings.start_timeout_s,
            W.WAITING_TO_ATTACH: settings.idle_timeout_s,
            W.RETIRED: settings.idle_timeout_s,
            W.WAITING_FOR_UNITS: settings.linger_s,
            W.STOPPING: settings.close_timeout_s,
            W.TEARING_DOWN: settings.close_timeout_s,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one fact and return what has to be done about it."""
        actions = self._note(event, now)
        if self._deadlines and min(self._deadlines.values()) <= now:
            actions += self._expire(now)
        if self.alarms:
            actions += [RingAlarm(alarm) for alarm in self.alarms.take_due(now)]
        for category in self._touched.values():
            actions += self._settle(category, now)
        self._touched.clear()
        return actions

    def next_deadline(self) -> float | None:
        """Return when to call again with Tick if nothing happens before, or None."""
        at = min(self._deadlines.values(), default=None)
        alarm_at = self.alarms.next_at()
        return at if alarm_at is None else alarm_at if at is None else min(at, alarm_at)

    # -- facts

    def _note(self, event: Event, now: float) -> list[Action]:
        match event:
            case WorkerDry(worker):
                self._note_dry(worker, now)
            case WorkerTook(worker):
                return self._note_took(worker, now)
            case WorkWaits(queue, units):
                return self._note_level(queue, units, now)
            case WorkTaken(queue):
                return self._note_level(queue, 0, now)
            case WorkerReady(worker):
                self._note_ready(worker, now)
            case WorkerBlocked(worker, how):
                self._note_blocked(worker, how, now)
            case WorkerUnblocked(worker):
                self._note_unblocked(worker, now)
            case WorkerExited(worker):
                return self._note_exited(worker, now)
            case WorkerWorn(worker, spent):
                self._note_worn(worker, spent)
            case WorkerFit(worker, queue):
                self._note_fit(worker, queue)
            case WorkerUnfit(worker, queue, failed):
                return self._note_unfit(worker, queue, failed)
            case WorkerToreDown(worker):
                self._note_torn_down(worker, now)
            case UnitMustStop(unit, worker, reason, delete_timeout_s):
                self._note_stop(unit, worker, reason, delete_timeout_s, now)
            case UnitStopped(unit):
                self._forget_stop(unit)
            case QueueOpened():
                self._note_opened(event)
            case OwnerOffers(queue):
                self._note_offer(queue, True)
            case OwnerWithdraws(queue):
                self._note_offer(queue, False)
            case OwnerDone(queue):
                self._note_own_done(queue)
            case QueueClosed(queue):
                self._note_closed(queue)
            case QueuePaused(queue):
                return self._note_paused(queue, True, now)
            case QueueResumed(queue):
                return self._note_paused(queue, False, now)
            case QueueResized(queue, max_workers):
                self._note_resized(queue, max_workers)
            case AlarmSet(alarm, at):
                self.alarms.set(alarm, at)
            case AlarmDropped(alarm):
                self.alarms.drop(alarm)
            case CategoryAdded(name, limits):
                self._note_category(name, limits)
            case CategoryRemoved(name):
                self._note_removed(self.categories[name])
            case _:
                assert isinstance(event, Tick), event
        return []

    def _note_category(self, name: str, limits: Limits) -> None:
        row = self.categories.get(name)
        if row is None:
            budget = sizing.RestartBudget(self.settings.start_tries, self.settings.start_backoff_s)
            self.categories[name] = row = CategoryRow(name, limits, budget)
        row.limits = limits
        row.removed = False
        self._touch(row)

    def _note_removed(self, category: CategoryRow) -> None:
        category.removed = True
        self._begin_anew(category)
        self._touch(category)

    def _note_opened(self, opened: QueueOpened) -> None:
        category = self.categories[opened.category]
        assert opened.queue not in self.queues, f"queue {opened.queue} is open already"
        assert not category.removed, f"category {opened.category} has been removed"
        row = QueueRow(
            opened.queue,
            opened.category,
            opened.max_workers,
            opened.depth,
            opened.owner,
            session=opened.session,
            tears_down=opened.tears_down,
        )
        category.queues[row.id] = self.queues[row.id] = row
        category.nested += row.depth > 0

    def _note_resized(self, queue_id: QueueId, max_workers: int) -> None:
        if queue := self._open_queue(queue_id):
            queue.max_workers = max_workers
            self._rouse(queue)

    def _note_paused(self, queue_id: QueueId, paused: bool, now: float) -> list[Action]:
        queue = self._open_queue(queue_id)
        if queue is None:
            return []
        queue.paused = paused
        self._rouse(queue)
        return self._wake_held(queue, now)

    def _note_closed(self, queue_id: QueueId) -> None:
        if queue := self._open_queue(queue_id):
            queue.closed = True
            queue.units = queue.unserved = 0
            self.categories[queue.category].offers.pop(queue_id, None)
            self._rouse(queue)
            if queue.session:
                for row in [row for rows in queue.crew.values() for row in rows.values()]:
                    self._send_off(row)

    def _note_offer(self, queue_id: QueueId, offered: bool) -> None:
        if queue := self._open_queue(queue_id):
            category = self.categories[queue.category]
            if offered:
                category.offers[queue_id] = queue
            else:
                category.offers.pop(queue_id, None)
            self._touch(category)

    def _note_own_done(self, queue_id: QueueId) -> None:
        if queue := self._open_queue(queue_id):
            queue.own -= 1
            self._rouse(queue)

    def _note_level(self, queue_id: QueueId, units: int, now: float) -> list[Action]:
        queue = self._open_queue(queue_id)
        if queue is None:
            return []
        category = self.categories[queue.category]
        if units and not category.waiting and category.budget.exhausted and not category.has_hands:
            self._begin_anew(category)
        queue.units = queue.unserved = units
        self._review(queue)
        return self._wake_held(queue, now)

    def _wake_held(self, queue: QueueRow, now: float) -> list[Action]:
        """Have the worker of a session go on where units wait for it; it needs no free slot, as it is the only one that may."""
        held = [row for row in queue.crew[W.HELD].values() if queue.waits]
        for row in held:
            self._shift(row, "grant", now, queue.id)
        return [Grant(row.id, queue.id) for row in held]

    def _note_ready(self, worker: WorkerId, now: float) -> None:
        row = self.workers[worker]  # a worker says it once, and not after it has exited
        self._shift(row, "ready", now)
        row.was_ready = True
        self._begin_anew(self.categories[row.category])
        if (predecessor := self._predecessor_of(row)) is not None:
            self._send_off(predecessor)
            if predecessor.state in IDLE and row.state in IDLE:  # whom nobody uses is not made young by being replaced
                self._deadlines[row] = self._deadlines[predecessor]

    def _note_dry(self, worker: WorkerId, now: float) -> None:
        """A dry worker that was released, is leaving or has exited meanwhile is told of too late, which is no harm."""
        row = self.workers.get(worker)
        if row is not None and row.state in (W.ACTIVE, W.BLOCKED):
            queue = self._queue_of(row)
            self._shift(row, "hold" if queue.session else "dry", now)
            if queue.ring is not None:
                queue.ring.move_to_end(queue.id)  # it has had its turn
        elif row is not None and row.state is W.WAITING_FOR_UNITS:
            self._deadlines[row] = now + self._linger_s(row)  # it took a unit and ended it before we were told of either

    def _note_took(self, worker: WorkerId, now: float) -> list[Action]:
        """Note what the hot path has done.

        The race: 1. the core releases a dry worker; 2. a thread that queues a unit hands it to that worker; 3. the release is
        performed. The worker is attached again then, whatever the limits say: it has the unit. If it was given to another queue
        meanwhile it stays there.
        """
        row = self.workers.get(worker)
        if row is not None and row.state in (W.WAITING_FOR_UNITS, W.HELD):
            self._shift(row, "take", now)
        elif row is not None and (row.state in IDLE or row.state is W.TEARING_DOWN) and row.last_queue in self.queues:
            self._shift(row, "grant", now, row.last_queue)
            row.limit = None
            self._rouse(self._queue_of(row))
            return [Grant(row.id, row.last_queue)]
        return []

    def _note_blocked(self, worker: WorkerId, how: BlockedHow, now: float) -> None:
        """Ignored where the worker has ended its unit, or itself, since somebody looked at it."""
        row = self.workers.get(worker)
        if row is None or row.state not in ATTACHED:
            return
        if row.state in (W.WAITING_FOR_UNITS, W.HELD):
            self._shift(row, "take", now)  # the news that it took a unit is still on its way
        if row.state is W.ACTIVE:
            self._shift(row, "block", now)
            row.blocked_how = how
        elif how is BlockedHow.DECLARED:
            row.blocked_how = how  # surer than what was judged

    def _note_unblocked(self, worker: WorkerId, now: float) -> None:
        row = self.workers.get(worker)
        if row is not None and row.state is W.BLOCKED:
            self._shift(row, "unblock", now)
            self._rouse(self._queue_of(row))

    def _note_exited(self, worker: WorkerId, now: float) -> list[Action]:
        row = self.workers[worker]  # a worker exits once
        category = self.categories[row.category]
        self._shift(row, "exit", now)
        del self.workers[worker]
        if not row.was_ready and (predecessor := self._predecessor_of(row)) is not None:
            predecessor.successor = None
        for unit in [stop.unit for stop in self.stops.values() if stop.worker == worker]:
            self._forget_stop(unit)
        return [] if row.was_ready else self._note_failed_start(category, row.wave, now)

    def _note_stop(self, unit: UnitId, worker: WorkerId, reason: StopReason, delete_timeout_s: float, now: float) -> None:
        """Ignored for a unit that is being stopped already, and for one whose worker has exited or is being killed."""
        row = self.workers.get(worker)
        if unit not in self.stops and row is not None and row.state is not W.STOPPING:
            self.stops[unit] = stop = StopRow(unit, worker, reason, delete_timeout_s)
            self._deadlines[stop] = now + self.settings.grace_s

    def _forget_stop(self, unit: UnitId) -> None:
        """Ignored for a unit that is not being stopped: it ended before we were told to, or its worker exited."""
        if stop := self.stops.pop(unit, None):
            self._deadlines.pop(stop, None)

    def _note_failed_start(self, category: CategoryRow, wave: int, now: float) -> list[Action]:
        """Try again later; after the last try fail what waits, unless there are workers that will get round to it."""
        if category.removed:
            return []
        if category.budget.fail(wave, now) and not category.has_hands:
            return self._give_up(category)
        if category.budget.retry_at is not None:
            self._deadlines[category] = category.budget.retry_at
        return []

    def _begin_anew(self, category: CategoryRow) -> None:
        category.budget.begin_anew()
        self._deadlines.pop(category, None)

    def _give_up(self, category: CategoryRow) -> list[Action]:
        """Fail what waits in the category. Its failures stay counted till a queue has new units."""
        self._allow_starts(category)
        for queue in list(category.queues.values()):
            queue.units = queue.unserved = 0
            self._review(queue)
        return [FailCategory(category.name)]

    # -- facts about workers that are to be replaced, and about what queues want done in theirs

    def _note_worn(self, worker: WorkerId, spent: bool) -> None:
        """Ignored for a worker that is leaving, and for that of a session: what it holds cannot be replaced."""
        row = self.workers.get(worker)
        if row is None or row.state in LEFT_FOR_GOOD or (row.queue is not None and self._queue_of(row).session):
            return
        row.spent = row.spent or spent
        category = self.categories[row.category]
        category.worn[row.id] = row
        category.restless = True
        self._touch(category)

    def _send_off(self, row: WorkerRow) -> None:
        """Have a worker leave when it has ended what it has begun, whether somebody takes its place or not."""
        if row.state not in LEFT_FOR_GOOD:
            row.outgoing = True
            category = self.categories[row.category]
            category.worn[row.id] = row
            category.restless = True
            self._touch(category)

    def _keep(self, row: WorkerRow) -> None:
        """It belongs to a session now: it stays, however worn, and whoever was to take its place is a worker like any other."""
        self.categories[row.category].worn.pop(row.id, None)
        row.successor = None

    def _predecessor_of(self, row: WorkerRow) -> WorkerRow | None:
        return None if row.succeeds is None else self.categories[row.category].worn.get(row.succeeds)

    def _note_fit(self, worker: WorkerId, queue_id: QueueId) -> None:
        """Ignored where the queue is closed and gone, or the worker has exited meanwhile."""
        row, queue = self.workers.get(worker), self.queues.get(queue_id)
        if row is None or queue is None or row.state in LEFT_FOR_GOOD:
            return
        queue.fit[worker] = row
        row.fit_for.add(queue_id)
        queue.failed_set_ups = 0
        queue.capped = False
        self._rouse(queue)

    def _note_unfit(self, worker: WorkerId, queue_id: QueueId, failed: bool) -> list[Action]:
        """Send the worker off. After so many failures in a row fail what waits, unless workers are there that could be set up."""
        row, queue = self.workers.get(worker), self._open_queue(queue_id)
        if row is not None:
            self._send_off(row)
        if queue is None or not failed:
            return []
        queue.failed_set_ups += 1
        queue.capped = queue.failed_set_ups >= self.settings.start_tries
        self._rouse(queue)
        if not queue.capped or queue.fit:
            return []
        queue.units = queue.unserved = 0
        self._review(queue)
        return [FailQueue(queue.id)]

    def _note_torn_down(self, worker: WorkerId, now: float) -> None:
        """Ignored where it comes too late: the worker was killed for it, or has a unit again."""
        row = self.workers.get(worker)
        if row is not None and row.state is W.TEARING_DOWN:
            self._shift(row, "torn down", now)

    # -- time

    def _expire(self, now: float) -> list[Action]:
        """Do what is due: against workers and units that have taken too long, and for categories that may try again."""
        actions: list[Action] = []
        for row in [row for row, at in self._deadlines.items() if at <= now]:
            if isinstance(row, WorkerRow):
                actions.append(self._lose_patience(row, now))
            elif isinstance(row, StopRow):
                actions.append(self._climb(row, now))
            else:
                self._allow_starts(row)
        return actions

    def _lose_patience(self, row: WorkerRow, now: float) -> Action:
        if row.state is W.WAITING_FOR_UNITS:
            return self._release(row, now)
        if row.state in IDLE:
            return self._dismiss(row, now)
        self._doom(row, now)
        return KillWorker(row.id)

    def _climb(self, stop: StopRow, now: float) -> Action:
        step, next_at = stopping.climb(stop, self.settings, now)
        if next_at is not None:
            self._deadlines[stop] = next_at
        else:
            del self._deadlines[stop]
            self._doom(self.workers[stop.worker], now)
        return step

    def _doom(self, row: WorkerRow, now: float) -> None:
        """Count a worker as killed: it has no deadline any more, since nothing is stronger, and holds its slot until it is gone."""
        self._shift(row, "stop", now)
        self._deadlines.pop(row, None)
        if not row.holds_slot:
            row.holds_slot = True
            self.categories[row.category].dying += 1

    def _allow_starts(self, category: CategoryRow) -> None:
        category.budget.retry_at = None
        self._deadlines.pop(category, None)
        self._touch(category)

    # -- consequences

    def _settle(self, category: CategoryRow, now: float) -> list[Action]:
        """Bring one category in order: place free workers, free superfluous ones, start new ones, tell limits, sample."""
        actions = self._replace_worn(category, now) if category.worn else []
        granted = self._place(category, now, actions)
        if granted or category.wishes or category.restless or category.beyond > 0:
            cleared = self._clear_dry(category, now)
            actions += cleared
            granted += self._place(category, now, actions) if cleared else []
            starts = self._start(category, now)
            actions += self._tell_limits(category, granted)
            actions += starts
        if category.offers:
            actions += self._run_own(category, now)
        actions += self._sample(category)
        if category.removed:
            actions += self._wind_up(category, now)
        return actions

    def _replace_worn(self, category: CategoryRow, now: float) -> list[Action]:
        """Start those who take the place of worn workers, and dismiss the worn ones that are free and can be done without."""
        actions: list[Action] = []
        for row in list(category.worn.values()):
            if not row.outgoing and row.successor is None:
                actions += self._start_successor(category, row, now)
            row.outgoing = row.outgoing or row.spent
            if row.outgoing and row.state in (W.WAITING_FOR_UNITS, W.HELD):
                actions.append(self._release(row, now))
            if row.outgoing and row.state in IDLE:
                actions.append(self._dismiss(row, now, recycled=True))
        return actions

    def _start_successor(self, category: CategoryRow, row: WorkerRow, now: float) -> list[Action]:
        """Start the successor of a worn worker, if there is room; where there will be none, or the worker is spent, that leaves."""
        room = recycling.room_for_successor(category.limits, living=category.living, removed=category.removed)
        row.outgoing = not room
        if not room or category.budget.failures:
            return []
        started = self._launch(category, now)
        row.successor = started.worker
        self.workers[started.worker].succeeds = row.id
        return [started]

    def _place(self, category: CategoryRow, now: float, actions: list[Action]) -> list[WorkerId]:
        """Give free workers to queues that wait, and return them. One that has to tear down first does so, and is placed later."""
        granted: list[WorkerId] = []
        while pair := placement.next_pair(category):
            worker, queue = pair
            if worker.queue is not None and worker.queue != queue.id and self._queue_of(worker).has_to_tear_down(worker.id):
                actions.append(self._release(worker, now))
                continue
            self._shift(worker, "grant", now, queue.id)
            if queue.ring is not None:
                queue.ring.move_to_end(queue.id)
            granted.append(worker.id)
        return granted

    def _run_own(self, category: CategoryRow, now: float) -> list[Action]:
        """Have owners run units of their queues themselves, where no worker can be had. From here on they count as active."""
        actions: list[Action] = []
        while pair := placement.next_own(category, self.workers):
            owner, queue = pair
            del category.offers[queue.id]
            queue.own += 1
            queue.units -= 1
            queue.unserved = max(0, queue.unserved - 1)
            self._shift(owner, "unblock", now)
            self._rouse(queue)
            actions.append(RunOwn(owner.id, queue.id))
        return actions

    def _clear_dry(self, category: CategoryRow, now: float) -> list[Action]:
        """Retire dry workers that are too many; release those whose queue has no more units to come."""
        actions: list[Action] = []
        for row in list(category.crew[W.WAITING_FOR_UNITS].values()):
            queue = self._queue_of(row)
            if placement.is_superfluous(category, queue):
                actions.append(self._retire(row, now))
            elif queue.closed or queue.paused:
                actions.append(self._release(row, now))
        return actions

    def _tell_limits(self, category: CategoryRow, granted: list[WorkerId]) -> list[Action]:
        """Tell each active worker how much it may take, if that differs from what it was told.

        A quantum is taken back only when the worker is dry: it comes back soon by itself.
        """
        actions: list[Action] = []
        pressure = placement.Pressure.of(category)
        limited = False
        for row in category.crew[W.ACTIVE].values():
            queue = self._queue_of(row)
            leaves = row.outgoing and not row.spent  # a spent one takes nothing more by itself, and may run what it has been given
            limit = 0 if leaves else placement.limit_for(queue, pressure, self.settings.quantum_units)
            if row.id in granted or (row.limit == 0 and limit != 0):
                actions.append(Grant(row.id, queue.id, limit))
                row.limit = limit
            elif limit is not None and limit != row.limit and not queue.closed:
                actions.append(Limit(row.id, limit))
                row.limit = limit
            limited = limited or row.limit is not None
        category.restless = limited
        return actions

    def _start(self, category: CategoryRow, now: float) -> list[Action]:
        if category.wishes <= category.starting:
            return []
        if category.budget.exhausted and not category.has_hands:
            self._allow_starts(category)  # the last worker that there was has gone: see at once whether another can be had
        starts = sizing.count_starts(
            category.limits,
            wishes=category.wishes,
            fresh=len(category.fresh),
            active=category.active,
            coming=category.starting,
            dying=category.dying,
            living=category.living,
        )
        starts = category.budget.allow(starts, category.starting)
        return [self._launch(category, now) for _ in range(starts)]

    def _launch(self, category: CategoryRow, now: float) -> StartWorker:
        row = WorkerRow(WorkerId(next(self._worker_ids)), category.name, now, wave=category.budget.wave)
        self.workers[row.id] = category.crew[W.STARTING][row.id] = row
        self._deadlines[row] = now + self.settings.start_timeout_s
        return StartWorker(row.id, category.name)

    def _sample(self, category: CategoryRow) -> list[Action]:
        """Look for blocked workers only where that may help: units wait, nobody is coming, somebody is busy."""
        on = bool(category.waiting and category.crew[W.ACTIVE] and not category.starting)
        if on is category.sampling:
            return []
        category.sampling = on
        return [Sample(category.name, on)]

    def _wind_up(self, category: CategoryRow, now: float) -> list[Action]:
        idle = [row for state in (W.WAITING_TO_ATTACH, W.RETIRED) for row in category.crew[state].values()]
        actions = [self._dismiss(row, now) for row in idle]
        if not category.living:
            del self.categories[category.name]
        return actions

    # -- changes of one row

    def _release(self, row: WorkerRow, now: float, move: str = "release") -> Action:
        """Have a dry worker leave its queue, which may want something done first."""
        queue = self._queue_of(row)
        if not queue.has_to_tear_down(row.id):
            self._shift(row, move, now)
            return Release(row.id)
        del queue.fit[row.id]
        row.fit_for.discard(queue.id)
        self._shift(row, "tear down", now)
        return TearDown(row.id, queue.id)

    def _retire(self, row: WorkerRow, now: float) -> Action:
        self.retirements[row.category] = self.retirements.get(row.category, 0) + 1
        return self._release(row, now, "retire")

    def _dismiss(self, row: WorkerRow, now: float, *, recycled: bool = False) -> Action:
        self._shift(row, "stop", now)
        return StopWorker(row.id, recycled)

    def _shift(self, row: WorkerRow, move: str, now: float, to_queue: QueueId | None = None) -> None:
        """Make one move of one worker, with all that hangs on it: crews, queue, deadline, wishes.

        An illegal move raises before anything has changed.
        """
        state = advance(WORKER_MOVES, row.state, move)
        before = self.queues[row.queue] if row.queue is not None else None
        self._leave(row, before, state)
        if to_queue is not None:
            row.queue = row.last_queue = to_queue
            if self.queues[to_queue].session:
                self._keep(row)
        elif state not in ATTACHED:
            row.queue = None
        after = self.queues[row.queue] if row.queue is not None else None
        self._enter(row, after, state, now)
        for queue in (before, after) if before is not after else (after,):
            if queue is not None:
                self._review(queue)

    def _leave(self, row: WorkerRow, queue: QueueRow | None, state: WorkerState) -> None:
        """Take the row out of everything that its present state put it in."""
        category = self.categories[row.category]
        self._touched[category.name] = category
        del category.crew[row.state][row.id]
        if queue is not None:
            del queue.crew[row.state][row.id]
            if row.state is W.ACTIVE:
                queue.unserved = min(queue.units, queue.unserved + 1)
        if row.state is W.BLOCKED:
            row.blocked_how = None
        if state is W.GONE and row.holds_slot:
            category.dying -= 1
        if state in LEFT_FOR_GOOD:
            category.worn.pop(row.id, None)
            self._unfit_for_all(row)

    def _enter(self, row: WorkerRow, queue: QueueRow | None, state: WorkerState, now: float) -> None:
        """Put the row into everything that belongs to its new state."""
        if row.state is not state:
            row.state = state
            row.since = now
            self._deadlines.pop(row, None)
            patience_s = self._linger_s(row) if state is W.WAITING_FOR_UNITS else self._patience_s.get(state)
            if patience_s is not None:
                self._deadlines[row] = now + patience_s
        if state is not W.GONE:
            crew = self.categories[row.category].crew[state]
            crew[row.id] = row
            if state is W.ACTIVE:
                self.peak_active[row.category] = max(self.peak_active.get(row.category, 0), len(crew))
        if queue is not None:
            queue.crew[state][row.id] = row
            if state is W.ACTIVE:
                queue.unserved = max(0, queue.unserved - 1)
        if queue is not None and state in (W.WAITING_FOR_UNITS, W.HELD):
            row.limit = None  # what it was told is used up
            if queue.closed or queue.paused:
                self.categories[row.category].restless = True  # so that it is released at once

    def _linger_s(self, row: WorkerRow) -> float:
        """Return how long a dry worker stays with its queue: longer where it would have to tear down, and to be set up again."""
        ready = self._queue_of(row).has_to_tear_down(row.id)
        return self.settings.idle_timeout_s if ready else self.settings.linger_s

    def _unfit_for_all(self, row: WorkerRow) -> None:
        """It is set up for no queue any more: it leaves."""
        for queue_id in row.fit_for:
            queue = self.queues[queue_id]
            del queue.fit[row.id]
            self.categories[row.category].review(queue)
        self.categories[row.category].restless = True
        row.fit_for.clear()

    # -- look-ups

    def _open_queue(self, queue_id: QueueId) -> QueueRow | None:
        """Return the row of a queue; None for a closed one: any thread may have spoken of it just before another closed it."""
        queue = self.queues.get(queue_id)
        return None if queue is None or queue.closed else queue

    def _queue_of(self, row: WorkerRow) -> QueueRow:
        assert row.queue is not None, row
        return self.queues[row.queue]

    def _touch(self, category: CategoryRow) -> None:
        self._touched[category.name] = category

    def _review(self, queue: QueueRow) -> None:
        """Draw the conclusions from a change of a queue. A closed one goes with its last worker."""
        category = self.categories[queue.category]
        self._touched[category.name] = category
        category.review(queue)
        if queue.closed and queue.deserted:
            del self.queues[queue.id], category.queues[queue.id]
            for row in queue.fit.values():
                row.fit_for.discard(queue.id)
            category.nested -= queue.depth > 0

    def _rouse(self, queue: QueueRow) -> None:
        """Draw the conclusions from a change after which workers of `queue` may have to be told another limit."""
        self.categories[queue.category].restless = True
        self._review(queue)

    # -- for tests

    def check(self) -> None:
        """Assert what must hold after every event. Looks at every row: for tests and simulations only."""
        for category in self.categories.values():
            checks.check_category(category, self.workers)
        for row in self.workers.values():
            assert row.state is not W.GONE, row
            assert (row.state in ATTACHED) == (row.queue is not None), row
            assert (row.state in self._patience_s) or row not in self._deadlines, row
        for stop in self.stops.values():
            assert stop.worker in self.workers, stop
        assert not self._touched
