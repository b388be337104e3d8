"""Workers that are worn: replaced between units, by a successor that was started first where there is room."""

from __future__ import annotations

import pytest

from tests.core.helpers import Q, Told, W
from workq.config import DEFAULTS
from workq.core.actions import Grant, Limit, Release, Sample, StartWorker, StopWorker
from workq.core.events import CategoryRemoved, Limits, QueueClosed
from workq.core.recycling import Wear, draw, room_for_successor
from workq.core.states import WorkerState

S = WorkerState
ON, OFF = Sample("Default", True), Sample("Default", False)


# ---------------------------------------------------------------- when


@pytest.mark.parametrize("luck", [0.0, 0.3, 0.999])
def test_limits_are_lowered_by_a_tenth_at_most_and_never_raised(luck: float) -> None:
    wear = draw(1000, 100.0, 5000, luck)
    assert wear.units is not None
    assert wear.early_units is not None
    assert wear.age_s is not None
    assert 900 <= wear.units <= 1000
    assert 90.0 <= wear.age_s <= 100.0
    assert wear.memory_bytes == 5000
    assert 1 <= wear.early_units < wear.units


@pytest.mark.parametrize("units", [1, 2, 9])
def test_a_small_number_of_units_is_exact(units: int) -> None:
    assert draw(units, None, None, 0.999) == Wear(units=units, early_units=units)


def test_what_has_no_limit_is_never_worn() -> None:
    wear = draw(None, None, None, 0.5)
    assert wear.endless
    assert not wear.is_worn(units=10**9, age_s=1e9, memory_bytes=1 << 60)


@pytest.mark.parametrize(("units", "age_s", "memory_bytes"), [(86, 0.0, 0), (0, 57.0, 0), (0, 0.0, 1 << 20)])
def test_any_one_limit_wears_a_worker(units: int, age_s: float, memory_bytes: int) -> None:
    wear = draw(100, 60.0, 1 << 20, 0.5)
    assert not wear.endless
    assert wear.is_worn(units=units, age_s=age_s, memory_bytes=memory_bytes)
    assert not wear.is_worn(units=85, age_s=56.9, memory_bytes=(1 << 20) - 1)


def test_there_is_room_for_a_successor_unless_the_total_is_reached_or_the_category_is_gone() -> None:
    assert room_for_successor(Limits(1), living=100, removed=False)
    assert room_for_successor(Limits(1, 3), living=2, removed=False)
    assert not room_for_successor(Limits(1, 3), living=3, removed=False)
    assert not room_for_successor(Limits(1), living=1, removed=True)


# ---------------------------------------------------------------- how


def test_a_worn_worker_serves_on_until_its_successor_is_ready() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    assert told.worn(1) == [StartWorker(W(2), "Default"), OFF]
    assert told.worn(1) == [], "told twice, one successor"
    assert told.dry(1) == [Grant(W(1), Q(1))], "it is used meanwhile"
    assert told.ready(2) == [Limit(W(1), 0), ON]
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True), Grant(W(2), Q(1))]
    assert told.states() == {1: S.STOPPING, 2: S.ACTIVE}


def test_no_more_workers_than_the_queue_may_have_serve_it_while_one_is_replaced() -> None:
    told = Told(most=4)
    told.opened(1, most=1)
    told.more(1, 1)
    told.waits(1, 5)
    told.worn(1)
    told.ready(2)
    assert told.states() == {1: S.ACTIVE, 2: S.WAITING_TO_ATTACH}


def test_a_spent_worker_takes_nothing_more_and_leaves_as_soon_as_it_is_dry() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    assert told.worn(1, spent=True) == [StartWorker(W(2), "Default"), OFF]
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True)]
    assert told.ready(2) == [Grant(W(2), Q(1)), ON]


def test_a_worker_that_becomes_spent_while_its_successor_starts_leaves_as_well() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.worn(1)
    assert told.worn(1, spent=True) == []
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True)]


def test_where_the_total_leaves_no_room_the_worn_worker_goes_first() -> None:
    told = Told(most=1, total=1)
    told.busy(1, 1)
    told.waits(1, 5)
    assert told.worn(1) == [Limit(W(1), 0)]
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True), OFF]
    assert told.exited(1) == [StartWorker(W(2), "Default")]


def test_a_worn_worker_is_kept_while_its_successor_cannot_start() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    told.worn(1)
    assert told.exited(2) == [ON]
    assert told.dry(1) == [Grant(W(1), Q(1))]
    assert told.after(DEFAULTS.start_backoff_s) == [], "no second try while the failure stands: it works, and nobody waits for a start"
    assert told.states() == {1: S.ACTIVE}


def test_the_successor_is_tried_again_once_a_start_has_gone_well() -> None:
    told = Told(most=2)
    told.busy(1, 1)
    told.worn(1)
    told.exited(2)
    told.waits(1, 5)
    assert told.after(DEFAULTS.start_backoff_s) == [StartWorker(W(3), "Default"), OFF]
    assert told.ready(3) == [StartWorker(W(4), "Default"), Grant(W(3), Q(1))]


def test_an_idle_worn_worker_goes_when_its_successor_is_ready_which_stays_no_longer_than_it_would_have() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.dry(1)
    told.after(DEFAULTS.linger_s)
    told.now += 20.0
    assert told.worn(1) == [StartWorker(W(2), "Default")]
    assert told.ready(2) == [StopWorker(W(1), recycled=True)]
    assert told.exited(1) == []
    assert told.after(DEFAULTS.idle_timeout_s - 20.0) == [StopWorker(W(2))], "a category that nobody uses comes to rest"


def test_an_idle_worn_worker_takes_units_while_its_successor_starts() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.dry(1)
    told.after(DEFAULTS.linger_s)
    told.worn(1)
    assert told.waits(1, 1) == [Grant(W(1), Q(1))]
    assert told.ready(2) == [Limit(W(1), 0), ON]


def test_a_worn_worker_that_blocks_is_replaced_when_its_unit_has_ended() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.blocked(1)
    told.worn(1)
    told.ready(2)
    assert told.states() == {1: S.BLOCKED, 2: S.WAITING_TO_ATTACH}
    assert told.unblocked(1) == [Limit(W(1), 0)]
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True)]


def test_wear_of_a_worker_that_is_leaving_or_gone_is_ignored() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.dry(1)
    told.after(DEFAULTS.linger_s)
    told.after(DEFAULTS.idle_timeout_s)
    assert told.states() == {1: S.STOPPING}
    assert told.worn(1) == []
    told.exited(1)
    assert told.worn(1) == []


def test_in_a_category_that_was_removed_a_worn_worker_just_goes() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told(QueueClosed(Q(1)))
    told(CategoryRemoved("Default"))
    assert told.worn(1) == []
    assert told.dry(1) == [Release(W(1)), StopWorker(W(1), recycled=True)]
