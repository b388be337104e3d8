"""Settling: what follows for a category from what has changed in it: who serves whom, who is started, who goes."""

from __future__ import annotations

from workq.core import placement, recycling, sizing
from workq.core.actions import Action, Grant, Limit, RunOwn, Sample, StartWorker
from workq.core.events import WorkerId
from workq.core.records import CategoryRow, WorkerRow
from workq.core.roster import Roster
from workq.core.states import IDLE, WorkerState

W = WorkerState


class Settling(Roster):
    """Brings categories in order, one at a time, after each event that has touched them."""

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

    def _allow_starts(self, category: CategoryRow) -> None:
        category.budget.retry_at = None
        self._deadlines.pop(category, None)
        self._touch(category)

    def _begin_anew(self, category: CategoryRow) -> None:
        category.budget.begin_anew()
        self._deadlines.pop(category, None)
