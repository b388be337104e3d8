"""Queues whose workers are set up before their first unit and have something to do after their last."""

from __future__ import annotations

from tests.core.helpers import Q, Told, W
from workq.config import DEFAULTS
from workq.core.actions import FailQueue, Grant, KillWorker, Limit, Release, Sample, StartWorker, StopWorker, TearDown
from workq.core.events import QueueClosed, QueuePaused
from workq.core.states import WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


def torn(most: int = 1, **limits: int) -> Told:
    """A queue 1 that tears down, with one busy worker that is set up for it."""
    told = Told(most, **limits)  # type: ignore[arg-type]
    told.opened(1, tears_down=True)
    told.more(1, 1)
    told.fit(1)
    return told


# ---------------------------------------------------------------- tearing down


def test_a_worker_that_is_set_up_stays_with_its_queue_and_tears_down_when_it_is_released() -> None:
    told = torn()
    told.dry(1)
    assert told.after(DEFAULTS.linger_s) == [], "to be set up again costs more than to wait a little"
    assert told.after(DEFAULTS.idle_timeout_s) == [TearDown(W(1), Q(1))]
    assert told.state(1) is S.TEARING_DOWN
    assert told.tore_down(1) == []
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_a_worker_that_ran_a_unit_and_was_dry_before_we_heard_of_either_lingers_as_long() -> None:
    told = torn()
    told.dry(1)
    told.after(20.0)
    told.dry(1)
    assert told.after(DEFAULTS.idle_timeout_s - 1) == []


def test_a_worker_tears_down_when_its_queue_is_closed() -> None:
    told = torn()
    told.dry(1)
    assert told(QueueClosed(Q(1))) == [TearDown(W(1), Q(1))]
    assert told.scheduler.queues == {}


def test_a_worker_tears_down_when_its_queue_is_paused() -> None:
    told = torn()
    told.dry(1)
    assert told(QueuePaused(Q(1))) == [TearDown(W(1), Q(1))]


def test_a_worker_tears_down_before_another_queue_gets_it() -> None:
    told = torn()
    told.opened(2)
    told.dry(1)
    assert told.waits(2) == [TearDown(W(1), Q(1)), StartWorker(W(2), "Default")], "the extra worker is started for who has nobody"
    assert told.tore_down(1) == [Grant(W(1), Q(2)), OFF] or told.state(1) is S.ACTIVE


def test_a_worker_that_tears_down_counts_as_active() -> None:
    told = torn(2)
    told.opened(2)
    told.dry(1)
    told(QueueClosed(Q(1)))
    assert told.waits(2, 3) == [StartWorker(W(2), "Default")]


def test_a_superfluous_worker_tears_down_instead_of_being_retired() -> None:
    told = torn()
    told.waits(1, 3)
    told.blocked(1)
    told.ready(2)
    told.unblocked(1)
    assert told.dry(1)[0] == TearDown(W(1), Q(1))
    told.tore_down(1)
    assert told.state(1) is S.WAITING_TO_ATTACH


def test_a_worn_worker_tears_down_before_it_leaves() -> None:
    told = torn()
    told.worn(1, spent=True)
    assert told.dry(1) == [TearDown(W(1), Q(1))]
    assert told.tore_down(1) == [StopWorker(W(1), recycled=True)]


def test_a_worker_that_does_not_end_its_tear_down_is_killed() -> None:
    told = torn()
    told.dry(1)
    told(QueueClosed(Q(1)))
    assert told.after(DEFAULTS.close_timeout_s) == [KillWorker(W(1))]
    assert told.tore_down(1) == [], "too late"
    assert told.exited(1) == []


def test_a_worker_that_exits_has_nothing_to_tear_down() -> None:
    told = torn()
    assert told.exited(1) == []
    assert told.tore_down(1) == []
    assert told.fit(1) == []


def test_a_worker_that_was_given_a_unit_just_before_it_was_to_tear_down_goes_on() -> None:
    told = torn()
    told.dry(1)
    told(QueuePaused(Q(1)))
    assert told.took(1) == [Grant(W(1), Q(1)), Limit(W(1), 0)]
    assert told.tore_down(1) == []
    assert told.state(1) is S.ACTIVE


# ---------------------------------------------------------------- setting up


def test_a_worker_that_is_not_set_up_has_nothing_to_tear_down() -> None:
    told = Told(most=1)
    told.opened(1, tears_down=True)
    told.more(1, 1)
    told.dry(1)
    assert told(QueueClosed(Q(1))) == [Release(W(1))]


def test_an_idle_worker_that_is_set_up_for_the_queue_goes_before_others() -> None:
    told = Told(most=2)
    told.busy(1, 2)
    told.fit(1)
    told.dry(1)
    told.dry(2)
    told.after(DEFAULTS.linger_s)
    assert told.waits(1) == [Grant(W(1), Q(1)), ON]
    told(QueueClosed(Q(1)))
    told.dry(1)
    assert told.scheduler.workers[W(1)].fit_for == set()


def test_a_worker_whose_set_up_failed_leaves_and_another_takes_its_place() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    assert told.unfit(1) == [Limit(W(1), 0)]
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True), StartWorker(W(2), "Default"), OFF]


def test_where_every_set_up_fails_the_queues_units_fail_and_nothing_is_started_any_more() -> None:
    told = Told(most=1)
    told.opened(1)
    told.waits(1, 9)
    for worker in range(1, DEFAULTS.start_tries + 1):
        told.ready(worker)
        told.waits(1, 9 - worker)
        orders = told.unfit(worker)
        last = told.dry(worker)
        told.exited(worker)
    assert orders[0] == FailQueue(Q(1))
    assert StartWorker(W(DEFAULTS.start_tries + 1), "Default") not in last
    assert told.taken(1) == []
    assert told.states() == {}
    assert told.waits(1, 1) == [StartWorker(W(4), "Default")], "a new unit has it tried again, once"
    told.ready(4)
    assert told.unfit(4)[0] == FailQueue(Q(1))


def test_while_one_worker_is_set_up_the_others_failures_fail_nothing_but_it_is_left_alone_with_the_queue() -> None:
    told = Told(most=3)
    told.opened(1)
    told.waits(1, 9)
    for worker in (1, 2, 3):
        told.ready(worker)
    told.fit(1)
    told.waits(1, 9)
    for worker in (2, 3):
        told.unfit(worker)
        told.dry(worker)
        told.exited(worker)
    assert told.states() == {1: S.ACTIVE, 4: S.STARTING, 5: S.STARTING}
    told.ready(4)
    assert not any(isinstance(order, FailQueue) for order in told.unfit(4))
    told.dry(4)
    told.exited(4)
    assert told.ready(5) == [ON], "three have failed in a row: it is served by those that are set up"
    assert told.states() == {1: S.ACTIVE, 5: S.WAITING_TO_ATTACH}
    assert told.exited(1) == [Grant(W(5), Q(1))], "and by one, where none is"


def test_a_set_up_that_goes_well_lets_others_be_tried_again() -> None:
    told = Told(most=1)
    told.opened(1)
    told.waits(1, 9)
    for worker in (1, 2, 3):
        told.ready(worker)
        told.unfit(worker)
        told.dry(worker)
        told.exited(worker)
    told.waits(1, 1)
    told.ready(4)
    assert told.fit(4) == []
    assert not told.scheduler.queues[Q(1)].capped


def test_a_set_up_that_was_cut_short_counts_as_no_failure() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    for worker in range(1, 8):
        assert told.unfit(worker, failed=False)[0] == Limit(W(worker), 0)
        told.dry(worker)
        told.exited(worker)
        told.ready(worker + 1)
    assert told.scheduler.queues[Q(1)].failed_set_ups == 0


def test_news_of_set_ups_that_comes_too_late_changes_nothing() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    assert told.unfit(9, queue=7) == []
    assert told.fit(1, queue=7) == []
    told(QueueClosed(Q(1)))
    assert told.unfit(1) == []
    told.dry(1)
    assert told.state(1) is S.STOPPING
    assert told.unfit(1) == []
