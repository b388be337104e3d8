"""The scheduler as a whole: blocked workers and their stand-ins, categories, sampling, and what raises."""

from __future__ import annotations

import sys

import pytest

from tests.core.helpers import Q, Told, U, W
from workq.core.actions import Grant, Interrupt, Limit, Release, Sample, StartWorker, StopWorker
from workq.core.events import (
    BlockedHow,
    CategoryAdded,
    CategoryRemoved,
    Limits,
    QueueClosed,
    QueueOpened,
    WorkerDry,
    WorkerReady,
    WorkWaits,
)
from workq.core.scheduler import Scheduler
from workq.core.states import IllegalMove, WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


def test_a_new_scheduler_waits_for_nothing() -> None:
    scheduler = Scheduler()
    assert scheduler.next_deadline() is None
    assert (scheduler.categories, scheduler.queues, scheduler.workers, scheduler.stops) == ({}, {}, {}, {})


def test_a_blocked_worker_has_a_stand_in_while_units_wait() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    assert told.waits(1, 3) == [ON]
    assert told.blocked(1) == [StartWorker(W(2), "Default"), OFF]
    assert told.ready(2) == [Grant(W(2), Q(1)), ON]
    assert told.states() == {1: S.BLOCKED, 2: S.ACTIVE}


def test_a_blocked_worker_has_no_stand_in_while_nothing_waits() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    assert told.blocked(1) == []
    assert told.waits(1, 1) == [StartWorker(W(2), "Default")]


def test_after_an_unblock_the_next_worker_that_completes_a_unit_is_retired() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 3)
    told.blocked(1)
    told.ready(2)
    assert told.unblocked(1) == [Limit(W(2), 0), Limit(W(1), 0)]
    assert told.states() == {1: S.ACTIVE, 2: S.ACTIVE}, "nothing is interrupted"
    assert told.dry(2) == [Release(W(2)), Grant(W(1), Q(1))]
    assert told.states() == {1: S.ACTIVE, 2: S.RETIRED}


def test_the_unblocked_worker_itself_is_retired_if_it_completes_first() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 3)
    told.blocked(1)
    told.ready(2)
    told.unblocked(1)
    assert told.dry(1) == [Release(W(1)), Grant(W(2), Q(1))]
    assert told.states() == {1: S.RETIRED, 2: S.ACTIVE}


def test_a_retired_worker_stands_in_before_an_idle_and_before_a_new_one() -> None:
    told = Told(most=2)
    told.busy(1, 2)
    told.waits(1, 3)
    told.blocked(1)
    told.ready(3)
    told.unblocked(1)
    told.dry(3)
    told.taken(1)
    told.dry(2)
    told.after(0.05)
    assert told.states() == {1: S.ACTIVE, 2: S.WAITING_TO_ATTACH, 3: S.RETIRED}
    told.blocked(1)
    assert told.waits(1, 1) == [Grant(W(3), Q(1)), ON]
    assert told.waits(1, 1) == [Grant(W(2), Q(1))]


def test_more_than_a_queues_maximum_after_an_unblock_are_retired_too() -> None:
    told = Told(most=8)
    told.opened(1, most=1)
    told.waits(1, 5)
    told.ready(1)
    told.blocked(1)
    told.ready(2)
    assert told.unblocked(1) == [Limit(W(2), 0), Limit(W(1), 0)]
    assert told.dry(2) == [Release(W(2)), Grant(W(1), Q(1))]
    assert told.state(2) is S.RETIRED


def test_a_dry_worker_in_excess_is_retired_when_another_unblocks() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.blocked(1)
    told.more(1, 1)
    told.dry(2)
    assert told.states() == {1: S.BLOCKED, 2: S.WAITING_FOR_UNITS}
    assert told.unblocked(1) == [Release(W(2))]
    assert told.states() == {1: S.ACTIVE, 2: S.RETIRED}


def test_nested_units_never_wait_for_a_worker_that_waits_for_them() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    for depth in range(1, 7):
        assert told.blocked(depth) == []
        told.opened(depth + 1)
        assert told.waits(depth + 1, 1) == [StartWorker(W(depth + 1), "Default")]
        told.ready(depth + 1)
        told.taken(depth + 1)
    assert list(told.states().values()) == [S.BLOCKED] * 6 + [S.ACTIVE]


def test_no_more_workers_are_judged_blocked_than_the_queue_may_have() -> None:
    told = Told(most=8)
    told.opened(1, 2)
    told.more(1, 2)
    told.waits(1, 5)
    for worker in (1, 2):
        told.blocked(worker, BlockedHow.JUDGED)
    for worker in (3, 4):
        told.ready(worker)
        told.blocked(worker, BlockedHow.JUDGED)
    assert list(told.states().values()) == [S.BLOCKED, S.BLOCKED, S.ACTIVE, S.ACTIVE], "the stand-ins have none themselves"
    told.unblocked(1)
    assert list(told.states().values())[:4] == [S.ACTIVE, S.BLOCKED, S.BLOCKED, S.ACTIVE], "one goes on, so another is believed"
    told.exited(2)
    assert list(told.states().values())[:3] == [S.ACTIVE, S.BLOCKED, S.BLOCKED]
    told.blocked(1)
    assert told.states()[1] is S.BLOCKED, "its own word is always taken"


def test_it_is_known_how_a_worker_is_blocked() -> None:
    told = Told()
    told.busy(1, 1)
    row = told.scheduler.workers[W(1)]
    assert row.blocked_how is None
    told.now = 3.0
    told.blocked(1, BlockedHow.JUDGED)
    assert (row.blocked_how, row.since) == (BlockedHow.JUDGED, 3.0)
    told.blocked(1, BlockedHow.DECLARED)
    assert row.blocked_how is BlockedHow.DECLARED
    told.blocked(1, BlockedHow.JUDGED)
    assert row.blocked_how is BlockedHow.DECLARED, "surer"
    told.unblocked(1)
    assert row.blocked_how is None


def test_a_blocked_worker_that_ends_its_unit_is_dry() -> None:
    told = Told()
    told.busy(1, 1)
    told.blocked(1)
    told.dry(1)
    assert told.state(1) is S.WAITING_FOR_UNITS


def test_a_worker_that_blocks_in_a_unit_that_it_took_directly_is_blocked() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.blocked(1)
    assert told.state(1) is S.BLOCKED


def test_late_news_of_blocks_is_ignored() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.after(0.05)
    assert told.blocked(1) == []
    assert told.unblocked(1) == []
    assert told.blocked(99) == []
    assert told.unblocked(99) == []
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_a_queue_that_has_all_its_workers_is_sampled_too() -> None:
    told = Told(most=8)
    told.opened(1, most=1)
    told.waits(1, 5)
    assert told.ready(1) == [Grant(W(1), Q(1)), ON]
    assert told.blocked(1, BlockedHow.JUDGED) == [StartWorker(W(2), "Default"), OFF]


def test_a_worker_is_looked_at_only_while_units_wait_and_all_workers_are_busy() -> None:
    told = Told(most=2)
    told.busy(1, 1)  # nothing waits: it is not looked at
    assert told.waits(1, 1) == [StartWorker(W(2), "Default")]  # something waits, but somebody is coming
    assert told.ready(2) == [Grant(W(2), Q(1)), ON]
    assert told.taken(1) == [OFF]  # nothing waits any more
    assert told.waits(1, 1) == [ON]
    assert told.blocked(1) == [StartWorker(W(3), "Default"), OFF]  # somebody is coming again


def test_categories_share_nothing() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told(CategoryAdded("SQL", Limits(1)))
    told(QueueOpened(Q(2), "SQL", 8))
    assert told.waits(2, 1) == [StartWorker(W(2), "SQL")]
    told.ready(2)
    told.taken(2)
    told.dry(2)
    told.after(0.05)
    assert told.waits(1, 1) == [ON]


def test_a_removed_category_lets_all_its_workers_leave() -> None:
    told = Told(most=4)
    told.busy(1, 3)
    told.dry(1)
    told.after(0.05)
    told.dry(2)
    assert told(QueueClosed(Q(1))) == [Release(W(2))]
    assert told(CategoryRemoved("Default")) == [StopWorker(W(1)), StopWorker(W(2))]
    assert told.dry(3) == [Release(W(3)), StopWorker(W(3))]
    for number in (1, 2, 3):
        assert told.exited(number) == []
    assert told.scheduler.categories == {}
    assert told.scheduler.next_deadline() is None


def test_a_worker_that_starts_into_a_removed_category_leaves_again() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 2)
    told(QueueClosed(Q(1)))
    assert told(CategoryRemoved("Default")) == []
    assert told.ready(1) == [StopWorker(W(1))]
    assert told.exited(2) == [], "no start fails here any more"
    told.exited(1)
    assert told.scheduler.categories == {}


def test_an_empty_category_is_gone_at_once() -> None:
    told = Told()
    assert told(CategoryRemoved("Default")) == []
    assert told.scheduler.categories == {}


def test_a_category_that_failed_to_start_can_be_removed() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 1)
    told.exited(1)
    assert told.scheduler.next_deadline() is not None
    told(QueueClosed(Q(1)))
    told(CategoryRemoved("Default"))
    assert told.scheduler.next_deadline() is None


def test_a_category_can_come_back_before_its_workers_are_gone() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told(QueueClosed(Q(1)))
    assert told(CategoryRemoved("Default")) == [StopWorker(W(1))]
    assert told(CategoryAdded("Default", Limits(1))) == []
    told.opened(2)
    assert told.waits(2, 1) == [StartWorker(W(2), "Default")]
    told.exited(1)
    assert list(told.scheduler.categories) == ["Default"]


def test_what_cannot_happen_raises_and_changes_nothing() -> None:
    told = Told()
    told.busy(1, 1)
    with pytest.raises(IllegalMove, match=r"'ready' is no move from WorkerState\.ACTIVE"):
        told.ready(1)
    told.scheduler.check()
    assert told.states() == {1: S.ACTIVE}
    with pytest.raises(KeyError):
        told.ready(99)
    with pytest.raises(KeyError):
        told.exited(99)
    with pytest.raises(AssertionError, match="open already"):
        told.opened(1)
    told.scheduler.check()


def test_a_queue_cannot_be_opened_in_a_removed_category() -> None:
    told = Told()
    told.busy(1, 1)
    told(QueueClosed(Q(1)))
    told(CategoryRemoved("Default"))
    with pytest.raises(AssertionError, match="removed"):
        told.opened(2)


def test_several_things_that_are_due_are_done_at_once() -> None:
    told = Told(most=3)
    told.busy(1, 3)
    told.dry(1)
    told.must_stop(7, 2)
    assert told.after(0.05) == [Release(W(1)), Interrupt(W(2), U(7))]


def test_the_price_of_an_event_does_not_depend_on_the_number_of_queues() -> None:
    """Counted in steps of the interpreter, not in time."""
    few, many = steps_of_a_turn(queues=10), steps_of_a_turn(queues=1000)
    assert many < 1.1 * few


def steps_of_a_turn(queues: int) -> int:
    told = Told(most=4)
    for queue in range(1, queues + 1):
        told.scheduler.handle(QueueOpened(Q(queue), "Default", 8), 0)
        told.scheduler.handle(WorkWaits(Q(queue), 100), 0)
    for worker in range(1, 6):
        told.scheduler.handle(WorkerReady(W(worker)), 0)
    steps = 0

    def count(frame: object, event: str, argument: object) -> object:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        for worker in range(1, 6):
            told.scheduler.handle(WorkerDry(W(worker)), 0)
    finally:
        sys.settrace(before)
    return steps


def test_where_units_always_queue_every_worker_beyond_the_maximum_is_retired() -> None:
    told = Told(most=1, always_queue=True)
    told.busy(1, 1)
    told.blocked(1)
    told.busy(2, 1)
    assert told.unblocked(1) == [Limit(W(2), 0), Limit(W(1), 0)]
    assert told.dry(2) == [Release(W(2)), Grant(W(1), Q(1))]
    assert told.state(2) is S.RETIRED


def test_a_dry_worker_of_the_queue_itself_goes_before_an_idle_one() -> None:
    told = Told(most=3)
    told.busy(1, 2)
    told.dry(1)
    told.after(0.05)
    told.dry(2)
    assert told.waits(1, 1) == [Grant(W(2), Q(1)), ON]
