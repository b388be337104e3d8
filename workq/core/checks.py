"""What must hold in the scheduler's records after every event: safety, progress, no idle slot. For tests and simulations."""

from __future__ import annotations

from collections.abc import Mapping

from workq.core import placement, sizing
from workq.core.events import WorkerId
from workq.core.records import CategoryRow, QueueRow, WorkerRow
from workq.core.states import LEFT_FOR_GOOD, WorkerState

W = WorkerState


def check_category(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> None:
    """Assert that one category is in order, in itself and with its workers and queues."""
    _check_places(category, workers)
    wishes = own = 0
    for queue in category.queues.values():
        _check_queue(category, queue)
        wishes += queue.wish
        own += queue.own
    assert category.wishes == wishes, category
    assert len(category.served) <= category.living + own, "a served queue has a worker"
    assert category.dying == sum(row.holds_slot for row in category.crew[W.STOPPING].values()), category
    for row in category.worn.values():
        assert row is workers[row.id], row
        assert row.state not in LEFT_FOR_GOOD, row
    _check_progress(category, workers)


def _check_places(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> None:
    """Safety: each worker is in one place, and that is the place of its state."""
    attached = [(number, queue.id, state) for queue in category.queues.values() for state, crew in queue.crew.items() for number in crew]
    places = {number: (queue, state) for number, queue, state in attached}
    assert len(places) == len(attached), f"{category}: a worker serves two queues"
    filed = 0
    for state, rows in category.crew.items():
        for number, row in rows.items():
            filed += 1
            assert row is workers[number]
            assert row.state is state, row
            assert row.category == category.name, row
            assert places.pop(number, (None, state)) == (row.queue, state), row
            assert (row.blocked_how is not None) == (state is W.BLOCKED), row
    assert not places, f"{category}: queues have workers that are nowhere"
    assert filed == sum(row.category == category.name for row in workers.values()), category


def _check_queue(category: CategoryRow, queue: QueueRow) -> None:
    """Safety: a queue stands in the ring in which it belongs, and nowhere else."""
    assert (queue.id in category.fresh) == (queue.ring is category.fresh), queue
    assert (queue.id in category.served) == (queue.ring is category.served), queue
    assert queue.wish == queue.count_wish(), queue
    assert bool(queue.wish) == (queue.ring is not None), queue
    assert queue.waits == (queue.id in category.waiting), queue
    assert 0 <= queue.unserved <= queue.units, queue
    assert not queue.closed or not queue.deserted, queue
    for row in queue.fit.values():
        assert queue.id in row.fit_for, row
        assert row.state not in LEFT_FOR_GOOD, row
    if queue.session:
        assert sum(map(len, queue.crew.values())) <= 1, "a session has one worker"
    assert queue.own >= 0, queue
    assert not queue.units or queue.serving or queue.unserved, f"{queue} waits, and is served by nobody"


def _check_progress(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> None:
    """Progress and no idle slot: a free worker never stands beside a queue that may have it, nor room for a new one unused."""
    assert placement.next_pair(category) is None, category
    assert placement.next_own(category, workers) is None, category
    for row in category.crew[W.WAITING_FOR_UNITS].values():
        assert row.limit is None
    starts = sizing.count_starts(
        category.limits,
        wishes=category.wishes,
        fresh=len(category.fresh),
        active=category.active,
        coming=category.starting,
        dying=category.dying,
        living=category.living,
    )
    assert category.budget.allow(starts, category.starting) == 0, category
