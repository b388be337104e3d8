"""Units that an owner runs itself: only where the hard limit leaves nobody else, one for each offer, and within the other limits."""

from __future__ import annotations

import pytest

from tests.core.helpers import Q, Told, W
from workq.core.actions import Grant, RunOwn, Sample, StartWorker
from workq.core.events import (
    CategoryAdded,
    Limits,
    OwnerDone,
    OwnerOffers,
    OwnerWithdraws,
    QueueClosed,
    QueueOpened,
    WorkerUnblocked,
)
from workq.core.states import WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


def waiting_for_its_own(told: Told, units: int, most: int = 4) -> None:
    """Worker 1 runs a unit of queue 1, which has made queue 2, queued units on it and waits for them."""
    told.busy(1, 1)
    told(QueueOpened(Q(2), "Default", most, 1, owner=W(1)))
    told.waits(2, units)


def test_an_owner_runs_a_unit_of_its_queue_where_no_other_worker_may_be_had() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    assert told.blocked(1) == [OFF]
    assert told(OwnerOffers(Q(2))) == [RunOwn(W(1), Q(2))]
    assert told.state(1) is S.ACTIVE, "it counts as active from here"


def test_whichever_is_heard_first_the_offer_or_that_it_is_blocked() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    assert told(OwnerOffers(Q(2))) == []
    assert told.blocked(1) == [RunOwn(W(1), Q(2)), OFF]


def test_an_offer_is_good_for_one_unit() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 3)
    told.blocked(1)
    assert told(OwnerOffers(Q(2))) == [RunOwn(W(1), Q(2)), ON]
    assert told.blocked(1) == [OFF]
    assert told(OwnerDone(Q(2))) == []
    assert told(OwnerOffers(Q(2))) == [RunOwn(W(1), Q(2)), ON]


def test_where_another_worker_may_be_had_it_is_had() -> None:
    told = Told(most=2, total=2)
    waiting_for_its_own(told, 1)
    told.blocked(1)
    assert told(OwnerOffers(Q(2))) == []
    assert told.states() == {1: S.BLOCKED, 2: S.STARTING}
    assert told.ready(2) == [Grant(W(2), Q(2)), ON]


def test_without_a_hard_limit_nobody_runs_its_own() -> None:
    told = Told(most=1)
    waiting_for_its_own(told, 5)
    told(OwnerOffers(Q(2)))
    assert RunOwn(W(1), Q(2)) not in told.blocked(1)


def test_a_limit_that_is_set_while_it_waits_has_it_run_its_own() -> None:
    told = Told(most=1)
    waiting_for_its_own(told, 1)
    told.blocked(1)
    told(OwnerOffers(Q(2)))
    told.exited(2)
    assert told(CategoryAdded("Default", Limits(1, 1))) == [RunOwn(W(1), Q(2))]


def test_two_owners_share_what_may_be_active() -> None:
    told = Told(most=1, total=2, always_queue=True)
    told.busy(1, 1)
    told.blocked(1)
    told.more(1, 1)
    told.blocked(2)
    for queue, owner in ((2, 1), (3, 2)):
        told(QueueOpened(Q(queue), "Default", 2, 1, owner=W(owner)))
        told.waits(queue, 1)
    assert told(OwnerOffers(Q(2))) == [RunOwn(W(1), Q(2)), ON]
    assert RunOwn(W(2), Q(3)) not in told(OwnerOffers(Q(3))), "one is active, and that is the most"
    assert told(OwnerDone(Q(2))) == []
    assert told.blocked(1) == [RunOwn(W(2), Q(3)), OFF]


def test_no_more_units_of_a_queue_run_at_once_than_it_may_have_workers() -> None:
    told = Told(most=3, total=2)
    told.busy(1, 1)
    told(QueueOpened(Q(2), "Default", 1, 1, owner=W(1)))
    told.blocked(1)
    told.waits(2, 2)
    told.ready(2)
    assert told(OwnerOffers(Q(2))) == [], "worker 2 serves it, and that is the most"
    assert told.exited(2) != []


def test_a_withdrawn_offer_is_forgotten() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    told(OwnerOffers(Q(2)))
    assert told(OwnerWithdraws(Q(2))) == []
    assert told.blocked(1) == [OFF]


@pytest.mark.parametrize("news", [OwnerOffers(Q(9)), OwnerWithdraws(Q(9)), OwnerDone(Q(9)), OwnerWithdraws(Q(2))])
def test_news_of_queues_that_are_gone_and_of_offers_that_were_not_made_change_nothing(news: OwnerDone) -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    assert told(news) == []


def test_a_closed_queue_has_nothing_to_be_run() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    told(OwnerOffers(Q(2)))
    told(QueueClosed(Q(2)))
    assert told.blocked(1) == []
    assert told.scheduler.categories["Default"].offers == {}


def test_the_offer_of_a_worker_that_has_ended_is_for_nobody() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    told(OwnerOffers(Q(2)))
    assert told.exited(1) == [StartWorker(W(2), "Default"), OFF]
    told.ready(2)
    assert told.states() == {2: S.ACTIVE}


def test_an_owner_that_goes_on_by_itself_is_not_given_anything() -> None:
    told = Told(most=2, total=1)
    waiting_for_its_own(told, 1)
    told.blocked(1)
    told(WorkerUnblocked(W(1)))
    assert told(OwnerOffers(Q(2))) == []
