"""Sizing: as many workers as are wished for and allowed, one more for a queue that has none, and an end to failing starts."""

from __future__ import annotations

import pytest

from tests.core.helpers import Q, Told, W
from workq.core.actions import FailCategory, Grant, KillWorker, Sample, StartWorker, StopWorker
from workq.core.events import CategoryAdded, Limits
from workq.core.sizing import RestartBudget, count_starts
from workq.core.states import WorkerState

S = WorkerState
NOTHING = {"wishes": 0, "fresh": 0, "active": 0, "coming": 0, "dying": 0, "living": 0}


@pytest.mark.parametrize(
    ("limits", "numbers", "starts"),
    [
        (Limits(4), {}, 0),
        (Limits(4), {"wishes": 2, "fresh": 1}, 2),
        (Limits(4), {"wishes": 9, "fresh": 1}, 4),
        (Limits(4), {"wishes": 9, "fresh": 1, "active": 3}, 1),
        (Limits(4), {"wishes": 9, "fresh": 2, "active": 3}, 1 + 1),  # the last slot, and one for a queue that has nobody
        (Limits(4), {"wishes": 9, "fresh": 1, "coming": 1}, 3),
        (Limits(4), {"wishes": 1, "fresh": 1, "coming": 1}, 0),
        (Limits(4), {"wishes": 9, "fresh": 0, "active": 4}, 0),
        (Limits(4), {"wishes": 1, "fresh": 1, "active": 4}, 1),
        (Limits(4), {"wishes": 1, "fresh": 1, "active": 5}, 0),  # one such worker at a time
        (Limits(4), {"wishes": 2, "fresh": 2, "active": 4, "coming": 1}, 0),
        (Limits(4, always_queue=True), {"wishes": 1, "fresh": 1, "active": 4}, 0),
        (Limits(4), {"wishes": 9, "dying": 2}, 2),
        (Limits(4, 6), {"wishes": 9, "living": 5}, 1),
        (Limits(4, 6), {"wishes": 9, "living": 7}, 0),
    ],
)
def test_starts_are_what_is_wished_for_within_the_limits(limits: Limits, numbers: dict[str, int], starts: int) -> None:
    assert count_starts(limits, **{**NOTHING, **numbers}) == starts


def test_a_budget_waits_longer_after_each_failure_and_gives_up_at_the_last() -> None:
    budget = RestartBudget(tries=3, backoff_s=0.5)
    assert budget.allow(4, coming=0) == 4
    assert budget.fail(wave=0, now=10.0) is False
    assert (budget.retry_at, budget.allow(4, coming=0)) == (10.5, 0)
    budget.retry_at = None
    assert budget.allow(4, coming=0) == 1, "one, to see whether it works"
    assert budget.allow(4, coming=1) == 0
    assert budget.fail(wave=1, now=11.0) is False
    assert budget.retry_at == 12.0
    assert budget.fail(wave=2, now=13.0) is True
    assert budget.exhausted


def test_workers_that_were_started_together_fail_once() -> None:
    budget = RestartBudget(tries=2, backoff_s=0.5)
    assert [budget.fail(wave=0, now=1.0) for _ in range(5)] == [False] * 5
    assert budget.failures == 1


def test_a_success_begins_the_count_anew() -> None:
    budget = RestartBudget(tries=2, backoff_s=0.5)
    budget.fail(wave=0, now=1.0)
    budget.begin_anew()
    assert (budget.failures, budget.retry_at) == (0, None)
    assert budget.fail(wave=1, now=2.0) is False
    assert budget.retry_at == 2.5


def test_workers_are_started_one_by_one_as_units_are_queued() -> None:
    told = Told(most=4)
    assert told.opened(1) == []
    assert told.waits(1, 1) == [StartWorker(W(1), "Default")]
    assert told.waits(1, 1) == [], "the one that comes will do"
    assert told.waits(1, 3) == [StartWorker(W(2), "Default"), StartWorker(W(3), "Default")]
    assert told.waits(1, 100) == [StartWorker(W(4), "Default")]


def test_a_queue_gets_no_more_workers_than_its_maximum() -> None:
    told = Told(most=8)
    told.opened(1, most=2)
    assert told.waits(1, 100) == [StartWorker(W(1), "Default"), StartWorker(W(2), "Default")]


def test_all_processes_of_a_category_are_at_most_its_total() -> None:
    told = Told(most=4, total=2)
    told.busy(1, 2)
    assert told.waits(1, 9) == [Sample("Default", True)]
    assert told.blocked(1) == []
    assert told.blocked(2) == [Sample("Default", False)], "the waiters run their units themselves"
    assert told.states() == {1: S.BLOCKED, 2: S.BLOCKED}


def test_a_worker_that_cannot_start_is_tried_a_bounded_number_of_times() -> None:
    told = Told()
    told.opened(1)
    assert told.waits(1, 1) == [StartWorker(W(1), "Default")]
    assert told.exited(1) == []
    assert told.scheduler.next_deadline() == pytest.approx(0.05)
    assert told.waits(1, 2) == [], "more work does not shorten the wait"
    assert told.after(0.05) == [StartWorker(W(2), "Default")]
    assert told.exited(2) == []
    assert told.after(0.099) == []
    assert told.after(0.001) == [StartWorker(W(3), "Default")]
    assert told.exited(3) == [FailCategory("Default")]
    assert told.scheduler.next_deadline() is None
    assert told.after(1000) == [], "it never spins"


def test_a_failed_category_is_tried_again_when_there_is_new_work() -> None:
    told = Told()
    told.opened(1)
    told.waits(1, 1)
    for number in (1, 2, 3):
        actions = told.exited(number)
        told.after(1)
    assert actions == [FailCategory("Default")]
    assert told.waits(1, 2) == [StartWorker(W(4), "Default"), StartWorker(W(5), "Default")]
    assert told.exited(4) == []
    assert told.exited(5) == []
    assert told.after(1) == [StartWorker(W(6), "Default")]
    assert told.ready(6) == [Grant(W(6), Q(1)), StartWorker(W(7), "Default")]


def test_a_category_with_workers_does_not_fail_because_it_can_have_no_more() -> None:
    told = Told(most=4)
    told.busy(1, 1)
    assert told.waits(1, 1) == [StartWorker(W(2), "Default")]
    for number, wait_s in ((2, 0.05), (3, 0.1), (4, 0.2), (5, 0.4), (6, 0.8)):
        assert told.exited(number) == [Sample("Default", True)]
        assert told.after(wait_s * 0.99) == []
        assert told.after(wait_s * 0.02) == [StartWorker(W(number + 1), "Default"), Sample("Default", False)]
    told.exited(7)
    assert told.waits(1, 2) == [], "new work does not shorten the wait"
    assert told.dry(1) == [Grant(W(1), Q(1))]
    assert told.exited(1) == [StartWorker(W(8), "Default"), Sample("Default", False)], "the last one has gone: try at once"
    assert told.exited(8) == [FailCategory("Default")]


def test_a_category_whose_only_worker_waits_for_units_that_nobody_can_run_fails() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.blocked(1)
    told.waits(1, 1)
    told.exited(2)
    told.after(0.1)
    told.exited(3)
    told.after(0.2)
    assert told.exited(4) == [FailCategory("Default")]


def test_a_start_that_takes_too_long_is_killed_and_counts_as_failed() -> None:
    told = Told(most=1)
    told.opened(1)
    told.waits(1, 1)
    assert told.scheduler.next_deadline() == 20.0
    assert told.after(20) == [KillWorker(W(1)), StartWorker(W(2), "Default")], "the extra one, for a queue that has none"
    assert told.ready(1) == [], "crossed our kill"
    assert told.exited(1) == []
    assert told.state(2) is S.STARTING


def test_a_worker_that_exits_while_work_waits_is_replaced_at_once() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    told.waits(1, 5)
    for number in range(1, 20):
        assert told.exited(number) == [StartWorker(W(number + 1), "Default"), Sample("Default", False)], "without limit"
        assert told.ready(number + 1) == [Grant(W(number + 1), Q(1)), Sample("Default", True)]


def test_a_worker_that_exits_while_nothing_waits_is_replaced_when_something_does() -> None:
    told = Told(most=1)
    told.busy(1, 1)
    assert told.exited(1) == []
    assert told.waits(1, 1) == [StartWorker(W(2), "Default")]


def test_an_idle_worker_ends_after_the_idle_time_and_is_killed_when_it_does_not() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    told.after(0.05)
    assert told.state(1) is S.WAITING_TO_ATTACH
    assert told.after(29.9) == []
    assert told.after(0.1) == [StopWorker(W(1))]
    assert told.after(4.9) == []
    assert told.after(0.1) == [KillWorker(W(1))]
    assert told.scheduler.next_deadline() is None
    assert told.exited(1) == []
    assert told.states() == {}


def test_lower_limits_take_workers_away_as_they_complete_units() -> None:
    told = Told(most=4)
    told.busy(1, 4)
    assert told(CategoryAdded("Default", Limits(3))) != []
    told.dry(2)
    assert told.states() == {1: S.ACTIVE, 2: S.RETIRED, 3: S.ACTIVE, 4: S.ACTIVE}
