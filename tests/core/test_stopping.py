"""Stopping a unit: a moment's grace, interrupts, and one kill."""

from __future__ import annotations

import pytest

from tests.core.helpers import Told, U, W
from workq.config import Settings
from workq.core.actions import Interrupt, KillUnit, Sample, StartWorker
from workq.core.events import StopReason, UnitStopped
from workq.core.states import WorkerState
from workq.core.stopping import Rung, StopRow, climb

SETTINGS = Settings(grace_s=0.5, interrupt_repeat_s=1.0)


@pytest.fixture
def told() -> Told:
    told = Told(settings=SETTINGS)
    told.busy(1, 1)
    return told


def test_the_ladder_is_grace_interrupts_and_one_kill() -> None:
    stop = StopRow(U(7), W(1), StopReason.CANCELLED, delete_timeout_s=2.5)
    assert climb(stop, SETTINGS, 10.0) == (Interrupt(W(1), U(7)), 11.0)
    assert climb(stop, SETTINGS, 11.0) == (Interrupt(W(1), U(7)), 12.0)
    assert climb(stop, SETTINGS, 12.0) == (Interrupt(W(1), U(7)), 12.5)
    assert stop.rung is Rung.INTERRUPTED
    assert climb(stop, SETTINGS, 12.5) == (KillUnit(W(1), U(7)), None)
    assert stop.rung is Rung.KILLED


def test_a_deaf_unit_is_interrupted_then_killed(told: Told) -> None:
    assert told.must_stop(7, 1, delete_timeout_s=1.5) == []
    assert told.scheduler.next_deadline() == 0.5
    assert told.after(0.5) == [Interrupt(W(1), U(7))]
    assert told.after(1.0) == [Interrupt(W(1), U(7))]
    assert told.scheduler.next_deadline() == 2.0
    assert told.after(0.5) == [KillUnit(W(1), U(7))]
    assert told.state(1) is WorkerState.ACTIVE, "until it has been done"
    assert told.killed(1) == []
    assert told.state(1) is WorkerState.STOPPING
    assert told.after(100) == [], "once"


def test_a_unit_that_ends_within_the_grace_is_left_alone(told: Told) -> None:
    told.must_stop(7, 1)
    assert told.after(0.4, UnitStopped(U(7))) == []
    assert told.scheduler.next_deadline() is None
    assert told.after(100) == []


def test_a_unit_that_ends_before_its_worker_is_struck_leaves_the_worker_in_service(told: Told) -> None:
    told.must_stop(7, 1, delete_timeout_s=0)
    told.after(0.5)
    assert told.after(0) == [KillUnit(W(1), U(7))]
    assert told(UnitStopped(U(7))) == []
    assert told.state(1) is WorkerState.ACTIVE
    assert told.scheduler.stops == {}
    assert told.scheduler.next_deadline() is None


def test_a_second_stop_of_the_same_unit_changes_nothing(told: Told) -> None:
    told.must_stop(7, 1, delete_timeout_s=1.0)
    assert told.after(0.4, None) == []
    assert told.must_stop(7, 1, delete_timeout_s=9.0) == []
    assert told.after(0.1) == [Interrupt(W(1), U(7))]
    assert told.after(1.0) == [KillUnit(W(1), U(7))]


def test_the_exit_of_the_worker_ends_the_stop(told: Told) -> None:
    told.must_stop(7, 1)
    assert told.exited(1) == []
    assert told.scheduler.stops == {}
    assert told.scheduler.next_deadline() is None


def test_late_news_of_stops_is_ignored(told: Told) -> None:
    assert told(UnitStopped(U(99))) == []
    assert told.must_stop(7, 99) == []
    told.must_stop(8, 1, delete_timeout_s=0)
    told.after(0.5)
    assert told.after(0) == [KillUnit(W(1), U(8))]
    assert told.killed(1) == []
    assert told.must_stop(9, 1) == [], "its worker is being killed"
    assert told(UnitStopped(U(8))) == []
    assert told(UnitStopped(U(8))) == []
    assert told.scheduler.stops == {}
    told.exited(1)
    assert told.killed(1) == []


def test_two_units_that_a_worker_has_begun_are_killed_with_it(told: Told) -> None:
    told.must_stop(7, 1, delete_timeout_s=0)
    told.must_stop(8, 1, delete_timeout_s=0)
    told.after(0.5)
    assert told.after(0) == [KillUnit(W(1), U(7)), KillUnit(W(1), U(8))]
    assert [told.killed(1), told.killed(1)] == [[], []], "told for each of them, and counted once"
    told.exited(1)
    assert told.states() == {}


def test_a_killed_worker_is_replaced_once_it_is_gone(told: Told) -> None:
    told.more(1, 1)
    told.waits(1, 5)
    told.must_stop(7, 1, delete_timeout_s=0)
    told.after(0.5)
    assert told.after(0) == [KillUnit(W(1), U(7))]
    assert told.killed(1) == []
    assert told.exited(1) == [StartWorker(W(3), "Default"), Sample("Default", False)]


def test_a_killed_worker_is_replaced_at_the_next_need_when_nothing_waits(told: Told) -> None:
    told.must_stop(7, 1, delete_timeout_s=0)
    told.after(0.5)
    told.after(0)
    assert told.exited(1) == []
    assert told.waits(1, 1) == [StartWorker(W(2), "Default")]
