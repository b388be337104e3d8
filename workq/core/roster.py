"""Roster: the rows of categories, queues, workers and stops, and each change of one with all that hangs on it."""

from __future__ import annotations

from itertools import count

from workq.config import DEFAULTS, Settings
from workq.core import checks
from workq.core.actions import Action, Release, StopWorker, TearDown
from workq.core.alarms import Alarms
from workq.core.events import QueueId, UnitId, WorkerId
from workq.core.records import CategoryRow, QueueRow, WorkerRow
from workq.core.states import ATTACHED, LEFT_FOR_GOOD, WORKER_MOVES, WorkerState, advance
from workq.core.stopping import StopRow

W = WorkerState


class Roster:
    """What the scheduler knows. A worker changes its state in `_shift` and nowhere else, so that crews, deadlines and wishes agree with it.

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

    def _doom(self, row: WorkerRow, now: float) -> None:
        """Count a worker as killed: it has no deadline any more, since nothing is stronger, and holds its slot until it is gone."""
        self._shift(row, "stop", now)
        self._deadlines.pop(row, None)
        if not row.holds_slot:
            row.holds_slot = True
            self.categories[row.category].dying += 1

    def _send_off(self, row: WorkerRow) -> None:
        """Have a worker leave when it has ended what it has begun, whether somebody takes its place or not."""
        if row.state not in LEFT_FOR_GOOD:
            row.outgoing = True
            category = self.categories[row.category]
            category.worn[row.id] = row
            category.restless = True
            self._touch(category)

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

    def _keep(self, row: WorkerRow) -> None:
        """It belongs to a session now: it stays, however worn, and whoever was to take its place is a worker like any other."""
        self.categories[row.category].worn.pop(row.id, None)
        row.successor = None

    def _leave(self, row: WorkerRow, queue: QueueRow | None, state: WorkerState) -> None:
        """Take the row out of everything that its present state put it in."""
        category = self.categories[row.category]
        self._touched[category.name] = category
        del category.crew[row.state][row.id]
        if queue is not None:
            del queue.crew[row.state][row.id]
            if row.state is W.ACTIVE:
                queue.unserved = min(queue.units, queue.unserved + 1)
        row.doubted = False
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

    def _predecessor_of(self, row: WorkerRow) -> WorkerRow | None:
        return None if row.succeeds is None else self.categories[row.category].worn.get(row.succeeds)

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
