"""The decisions of the controller: one fact in, the orders that follow from it out.

Not thread-safe, and never waits: it is told the time. The controller's thread owns it. The price of an event
does not depend on the number of queues: only the event's own category is looked at, and of its queues only those that have
workers and the head of the ring.
"""

from __future__ import annotations

from workq.core import sizing, stopping
from workq.core.actions import Action, FailCategory, FailQueue, Grant, KillWorker, RingAlarm
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
    WorkerKilled,
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
from workq.core.settling import Settling
from workq.core.states import ATTACHED, IDLE, LEFT_FOR_GOOD, WorkerState
from workq.core.stopping import StopRow

W = WorkerState


class Scheduler(Settling):
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

    Its rows, and how they are moved: `Roster`. What follows for a category: `Settling`.
    """

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
            case WorkerKilled(worker):
                self._note_killed(worker, now)
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
        """Ignored where the worker has ended its unit, or itself, since somebody looked at it.

        What was only judged is believed of no more workers than the queue may have: units that all sleep would else have stand-ins
        without end. The others count as active, and are believed when one of those goes on.
        """
        row = self.workers.get(worker)
        if row is None or row.state not in ATTACHED:
            return
        if row.state in (W.WAITING_FOR_UNITS, W.HELD):
            self._shift(row, "take", now)  # the news that it took a unit is still on its way
        if row.state is W.ACTIVE:
            queue = self._queue_of(row)
            row.doubted = how is BlockedHow.JUDGED and queue.judged >= queue.max_workers
            if not row.doubted:
                self._shift(row, "block", now)
                row.blocked_how = how
        elif how is BlockedHow.DECLARED:
            row.blocked_how = how  # surer than what was judged

    def _note_unblocked(self, worker: WorkerId, now: float) -> None:
        row = self.workers.get(worker)
        if row is None:
            return
        row.doubted = False
        if row.state is W.BLOCKED:
            queue = self._queue_of(row)
            self._shift(row, "unblock", now)
            self._rouse(queue)
            self._believe(queue, now)

    def _believe(self, queue: QueueRow, now: float) -> None:
        """One that was judged to be blocked is not any more: there is room for another."""
        for row in list(queue.crew[W.ACTIVE].values()):
            if row.doubted:
                self._note_blocked(row.id, BlockedHow.JUDGED, now)

    def _note_exited(self, worker: WorkerId, now: float) -> list[Action]:
        row = self.workers[worker]  # a worker exits once
        category = self.categories[row.category]
        queue = self.queues[row.queue] if row.queue is not None else None
        self._shift(row, "exit", now)
        del self.workers[worker]
        if queue is not None:
            self._believe(queue, now)
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

    def _note_killed(self, worker: WorkerId, now: float) -> None:
        """Ignored for one that has exited meanwhile. Not counted before it is told: the unit may have ended before it was struck."""
        if (row := self.workers.get(worker)) is not None:
            self._doom(row, now)

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
        return step
