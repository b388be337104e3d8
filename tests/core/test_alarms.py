"""Alarms: set, dropped, rung in order, once."""

from __future__ import annotations

from tests.core.helpers import Told
from workq.core.actions import RingAlarm
from workq.core.alarms import SPARE, Alarms
from workq.core.events import AlarmDropped, AlarmId, AlarmSet


def A(number: int) -> AlarmId:
    return AlarmId(number)


def test_alarms_ring_once_at_their_time_and_in_its_order() -> None:
    told = Told()
    assert told(AlarmSet(A(1), 3.0)) == []
    assert told(AlarmSet(A(2), 1.0)) == []
    assert told(AlarmSet(A(3), 3.0)) == []
    assert told.scheduler.next_deadline() == 1.0
    assert told.after(0.9) == []
    assert told.after(0.1) == [RingAlarm(A(2))]
    assert told.scheduler.next_deadline() == 3.0
    assert told.after(10.0) == [RingAlarm(A(1)), RingAlarm(A(3))]
    assert told.scheduler.next_deadline() is None
    assert told.after(10.0) == []


def test_an_alarm_that_is_overdue_when_it_is_set_rings_at_once() -> None:
    told = Told()
    told.now = 5.0
    assert told(AlarmSet(A(1), 3.0)) == [RingAlarm(A(1))]


def test_a_dropped_alarm_does_not_ring_and_a_late_drop_is_no_harm() -> None:
    told = Told()
    told(AlarmSet(A(1), 1.0))
    told(AlarmSet(A(2), 2.0))
    assert told(AlarmDropped(A(1))) == []
    assert told(AlarmDropped(A(1))) == []
    assert told.scheduler.next_deadline() == 2.0
    assert told.after(2.0) == [RingAlarm(A(2))]
    assert told(AlarmDropped(A(2))) == []


def test_the_next_deadline_is_that_of_a_worker_or_of_an_alarm_whichever_is_first() -> None:
    told = Told()
    told.busy(1, 1)
    told.dry(1)
    linger_s = told.scheduler.settings.linger_s
    told(AlarmSet(A(1), linger_s + 1))
    assert told.scheduler.next_deadline() == linger_s
    told(AlarmSet(A(2), linger_s / 2))
    assert told.scheduler.next_deadline() == linger_s / 2


def test_dropped_alarms_take_no_memory() -> None:
    alarms = Alarms()
    for number in range(10 * SPARE):
        alarms.set(A(number), float(number))
        if number:
            alarms.drop(A(number))
    assert len(alarms) == 1
    assert len(alarms._heap) <= SPARE + 4
    assert alarms.take_due(1e9) == [A(0)]
