"""What must hold in the scheduler's records after every event: safety, progress, no idle slot. For tests and simulations."""

from __future__ import annotations

from collections.abc import Mapping

from workq.core import placement, sizing
from workq.core.events import WorkerId
from workq.core.records import CategoryRow, QueueRow, WorkerRow
from workq.core.states import ATTACHED, LEFT_FOR_GOOD, WorkerState

W = WorkerState


def check_category(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> None:
    """Assert that one category is in order, in itself and with its workers and queues."""
    _check_places(category, workers)
    for queue in category.queues.values():
        _check_queue(category, queue)
    assert category.wishes == sum(queue.wish for queue in category.queues.values()), category
    own = sum(queue.own for queue in category.queues.values())
    assert len(category.served) <= category.living + own, "a served queue has a worker"
    assert category.dying == sum(row.holds_slot for row in category.crew[W.STOPPING].values()), category
    for row in category.worn.values():
        assert row is workers[row.id], row
        assert row.state not in LEFT_FOR_GOOD, row
    _check_progress(category, workers)


def _check_places(category: CategoryRow, workers: Mapping[WorkerId, WorkerRow]) -> None:
    """Safety: each worker is in one place, and that is the place of its state."""
    filed = [row for rows in category.crew.values() for row in rows.values()]
    assert {row.id for row in filed} == {row.id for row in workers.values() if row.category == category.name}, category
    for state, rows in category.crew.items():
        for number, row in rows.items():
            assert row is workers[number]
            assert row.state is state, row
            attached = [queue for queue in category.queues.values() if state in ATTACHED and number in queue.crew[state]]
            assert [queue.id for queue in attached] == ([] if row.queue is None else [row.queue]), row
            assert (row.blocked_how is not None) == (state is W.BLOCKED), row


def _check_queue(category: CategoryRow, queue: QueueRow) -> None:
    """Safety: a queue stands in the ring in which it belongs, and nowhere else."""
    rings = [ring for ring in (category.fresh, category.served) if queue.id in ring]
    assert rings == ([] if queue.ring is None else [queue.ring]), queue
    assert queue.wish == queue.count_wish(), queue
    assert bool(queue.wish) == (queue.ring is not None), queue
    assert queue.waits == (queue.id in category.waiting), queue
    assert 0 <= queue.unserved <= queue.units, queue
    assert not queue.closed or not queue.deserted, queue
    for row in queue.fit.values():
        assert queue.id in row.fit_for, row
        assert row.state not in LEFT_FOR_GOOD, row
    assert not queue.session or sum(map(len, queue.crew.values())) <= 1, "a session has one worker"
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
