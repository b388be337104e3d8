"""Sessions: a queue with one worker of its own, that stays with it."""

from __future__ import annotations

from tests.core.helpers import Q, Told, W
from workq.config import DEFAULTS
from workq.core.actions import Grant, Limit, Release, Sample, StartWorker, StopWorker, TearDown
from workq.core.events import QueueClosed, QueuePaused, QueueResumed
from workq.core.states import WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


def held(most: int = 1, **options: bool) -> Told:
    """A session 1 whose worker has run a unit and has nothing to do."""
    told = Told(most)
    told.opened(1, most=1, session=True, **options)
    told.more(1, 1)
    if options:
        told.fit(1)
    assert told.dry(1) == []
    return told


def test_the_worker_of_a_session_is_held_for_it_however_long_that_does_nothing() -> None:
    told = held()
    assert told.after(10 * DEFAULTS.idle_timeout_s) == []
    assert told.state(1) is S.HELD
    assert told.waits(1) == [Grant(W(1), Q(1)), ON]


def test_a_held_worker_is_not_counted_and_serves_nobody_else() -> None:
    told = held()
    told.opened(2)
    assert told.waits(2, 3) == [StartWorker(W(2), "Default")]
    assert told.ready(2) == [Grant(W(2), Q(2)), ON]
    assert told.states() == {1: S.HELD, 2: S.ACTIVE}


def test_the_worker_of_a_session_goes_on_at_once_though_the_category_is_full_and_is_not_limited() -> None:
    told = held()
    told.opened(2)
    told.waits(2, 3)
    told.ready(2)
    assert told.took(1) == []
    assert told.states() == {1: S.ACTIVE, 2: S.ACTIVE}
    told.waits(2, 9)
    assert told.scheduler.workers[W(1)].limit is None


def test_a_session_has_one_worker_also_while_that_is_blocked() -> None:
    told = held()
    assert told.blocked(1) == []
    assert told.state(1) is S.BLOCKED
    assert told.waits(1, 3) == []
    assert told.states() == {1: S.BLOCKED}
    assert told.dry(1) == []
    assert told.state(1) is S.HELD


def test_when_a_session_is_closed_its_worker_ends() -> None:
    told = held()
    assert told(QueueClosed(Q(1))) == [Release(W(1)), StopWorker(W(1), recycled=True)]
    assert told.scheduler.queues == {}


def test_when_a_session_is_closed_its_busy_worker_ends_after_its_unit() -> None:
    told = held()
    told.took(1)
    assert told(QueueClosed(Q(1))) == []
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True)]


def test_the_worker_of_a_session_tears_down_before_it_ends() -> None:
    told = held(tears_down=True)
    assert told(QueueClosed(Q(1))) == [TearDown(W(1), Q(1))]
    assert told.tore_down(1) == [StopWorker(W(1), recycled=True)]


def test_the_worker_of_a_session_is_never_replaced_as_what_it_holds_cannot_be() -> None:
    told = held()
    assert told.worn(1) == []
    assert told.states() == {1: S.HELD}


def test_a_worn_worker_that_a_session_gets_stays_with_it_when_its_successor_is_ready() -> None:
    told = Told(1)
    told.busy(2, 1)
    told.dry(1)
    told.after(DEFAULTS.linger_s)
    assert told.worn(1) == [StartWorker(W(2), "Default")]
    told.opened(1, most=1, session=True)
    assert told.waits(1) == [Grant(W(1), Q(1))]
    assert told.ready(2) == [ON]
    told.taken(1)
    told.dry(1)
    assert told.states() == {1: S.HELD, 2: S.WAITING_TO_ATTACH}


def test_a_paused_session_takes_no_unit_until_it_is_resumed() -> None:
    told = held()
    told.took(1)
    assert told(QueuePaused(Q(1))) == [Limit(W(1), 0)]
    told.dry(1)
    assert told.waits(1, 2) == []
    assert told(QueueResumed(Q(1))) == [Grant(W(1), Q(1)), ON]
    assert told(QueuePaused(Q(7))) == []


def test_a_session_whose_worker_is_killed_has_no_other_until_it_is_closed() -> None:
    told = held()
    told.waits(1, 2)
    told(QueueClosed(Q(1)))
    assert told.exited(1) == []
    assert told.scheduler.queues == {}
