"""When a recurring unit runs next, decided from numbers."""

from __future__ import annotations

import pytest

from workq.core.recurring import LOOK_S, SET_BACK_S, Beat, due_by_calendar, look_at, next_beat


@pytest.mark.parametrize(
    ("due", "period_s", "now", "beat"),
    [
        (10.0, 2.0, 10.0, Beat(12.0, 0)),
        (10.0, 2.0, 11.9, Beat(12.0, 0)),
        (10.0, 2.0, 12.0, Beat(14.0, 1)),
        (10.0, 2.0, 19.0, Beat(20.0, 4)),
    ],
)
def test_late_runs_do_not_shift_those_that_follow(due: float, period_s: float, now: float, beat: Beat) -> None:
    assert next_beat(due, period_s, now) == beat


def test_a_clock_that_is_set_back_a_little_repeats_nothing() -> None:
    assert due_by_calendar(due=10_000.0, now=10_000.0 - 3600, fresh=10_000.0 - 3500) == 10_000.0


def test_a_clock_that_is_set_back_far_is_a_new_time() -> None:
    now = 100_000.0 - SET_BACK_S - 60
    assert due_by_calendar(due=100_000.0, now=now, fresh=now + 60) == now + 60
    assert due_by_calendar(due=100_000.0, now=now, fresh=100_000.0) == 100_000.0, "the very same time"


def test_the_wall_is_looked_at_at_the_time_or_in_a_while() -> None:
    assert look_at(due=1030.0, wall_now=1000.0, now=5.0) == 35.0
    assert look_at(due=9999.0, wall_now=1000.0, now=5.0) == 5.0 + LOOK_S
    assert look_at(due=900.0, wall_now=1000.0, now=5.0) == 5.0
