"""Recurring units, with a clock that the test moves: no process, no thread, no waiting."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Iterator

import pytest

import workq
from tests.controller.test_times import Stage
from tests.support import wait_until
from workq import ArgumentError, Cron

UTC = datetime.UTC


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    made.controller.wall_clock = made.clock.time
    made.wq.queue(abs, -1)
    assert made.ready().step()  # the worker is there before time begins to leap
    made.turn()
    yield made
    made.controller.close()


def show(stage: Stage, wall: str) -> None:
    """Set the clock on the wall."""
    stage.clock.wall_ahead = datetime.datetime.fromisoformat(wall).timestamp() - stage.clock.now


def work(stage: Stage) -> None:
    """Have the worker run what it was sent, and hear of it."""
    worker = stage.engine.workers[1]
    while worker.step():
        stage.turn()
    stage.turn()


def test_a_recurring_unit_runs_each_period_and_late_turns_do_not_shift_the_next(stage: Stage) -> None:
    beat = stage.wq.every(10.0, abs, -7)
    stage.after(9.9)
    assert (beat.runs, beat.active, beat.last) == (0, True, None)
    stage.after(0.4)
    work(stage)
    assert beat.runs == 1
    assert beat.last is not None
    assert beat.last.result() == 7
    stage.after(9.6)
    assert beat.runs == 1
    stage.after(0.2)
    assert beat.runs == 2


def test_a_run_that_overlaps_itself_is_told_and_not_doubled(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    beat = stage.wq.every(10.0, abs, -7)
    stage.after(10.0)
    worker = stage.engine.workers[1]
    assert worker.begin()
    first = beat.last
    for _ in range(3):
        stage.after(10.0)
    assert (beat.runs, beat.skipped) == (1, 3)
    assert beat.last is first
    worker.end()
    stage.turn()
    stage.after(10.0)
    assert beat.runs == 2
    stage.controller.delivery.drain(20.0)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        record.getMessage() == "every 10 s on queue stage: unit stage:2 abs has not ended when the next is due, which is skipped (1 so far)"
    )


def test_times_that_pass_while_nobody_looks_are_counted_and_run_once(stage: Stage) -> None:
    beat = stage.wq.every(10.0, abs, -7)
    stage.after(45.0)
    work(stage)
    assert (beat.runs, beat.missed, beat.skipped) == (1, 3, 0)
    stage.after(5.0)
    assert beat.runs == 2


def test_stop_and_start(stage: Stage) -> None:
    beat = stage.wq.every(10.0, abs, -7)
    stage.after(9.0)
    beat.stop()
    beat.stop()
    assert (beat.active, beat.next_at) == (False, None)
    stage.after(100.0)
    assert beat.runs == 0
    beat.start()
    beat.start()
    stage.after(9.0)
    assert beat.runs == 0
    stage.after(1.0)
    assert beat.runs == 1
    assert "next at" in repr(beat)
    beat.stop()
    assert "stopped; 1 runs" in repr(beat)


def test_outcomes_are_kept_bounded_and_failures_are_not_those_of_sync(stage: Stage) -> None:
    beat = stage.wq.options(name="beat").every(10.0, abs, -7)
    for _ in range(25):
        stage.after(10.0)
        work(stage)
    wait_until(lambda: beat.outcomes and beat.outcomes[-1].unit == "stage:26 beat")
    assert len(beat.outcomes) == 20
    run = beat.outcomes[-1]
    assert (run.state, run.error) == ("done", "")
    stage.after(10.0)
    assert beat.last is not None
    beat.last.cancel()
    stage.turn()
    wait_until(lambda: beat.outcomes[-1].state == "cancelled")
    assert beat.failures == 0
    assert stage.wq.sync(0).cancelled == 1


def test_closing_the_queue_stops_what_recurs_on_it(stage: Stage) -> None:
    beat = stage.wq.every(10.0, abs, -7)
    stage.controller.close_queue(stage.wq._row)
    stage.turn()
    assert not beat.active
    assert len(stage.controller.running().core.alarms) == 0
    stage.after(100.0)
    assert beat.runs == 0
    with pytest.raises(workq.QueueClosed):
        beat.start()
    with pytest.raises(workq.QueueClosed):
        stage.wq.every(1.0, abs, -7)


def test_a_cron_expression_runs_at_its_times(stage: Stage) -> None:
    show(stage, "2024-05-06 11:58:30+00:00")
    job = stage.wq.cron(Cron("*/5 * * * *", tz=UTC), abs, -7)
    assert job.next_at == datetime.datetime(2024, 5, 6, 12, 0, tzinfo=UTC)
    for seconds in (60.0, 29.0):
        stage.after(seconds)
    assert job.runs == 0
    stage.after(1.0)
    assert job.runs == 1
    work(stage)
    for _ in range(5):
        stage.after(60.0)
    assert job.runs == 2
    assert job.missed == 0


def test_a_clock_that_is_set_forward_runs_what_was_due_once_and_one_that_is_set_back_repeats_nothing(stage: Stage) -> None:
    show(stage, "2024-05-06 11:58:30+00:00")
    job = stage.wq.cron(Cron("0 * * * *", tz=UTC), abs, -7)
    show(stage, "2024-05-06 14:30:00+00:00")
    stage.after(60.0)
    assert (job.runs, job.missed) == (1, 2)
    work(stage)
    show(stage, "2024-05-06 13:59:30+00:00")
    stage.after(60.0)
    assert job.runs == 1, "14:00 has been"
    assert job.next_at == datetime.datetime(2024, 5, 6, 15, 0, tzinfo=UTC)
    show(stage, "2024-05-01 00:59:30+00:00")
    stage.after(10.0)
    stage.after(50.0)
    stage.after(1.0)
    assert job.next_at <= datetime.datetime(2024, 5, 1, 2, 0, tzinfo=UTC), "a new time"


def test_a_time_that_summer_time_leaves_out_runs_after_the_jump_and_one_that_comes_twice_runs_once() -> None:
    job = Cron("30 2 * * *", tz="Europe/Berlin")
    spring = job.after(datetime.datetime.fromisoformat("2024-03-30T12:00:00+01:00"))
    assert spring.isoformat() == "2024-03-31T03:00:00+02:00"
    autumn = datetime.datetime.fromisoformat("2024-10-26T12:00:00+02:00")
    assert [job.after(autumn).isoformat(), job.after(job.after(autumn)).isoformat()] == [
        "2024-10-27T02:30:00+02:00",
        "2024-10-28T02:30:00+01:00",
    ]
    assert job.between(autumn, autumn + datetime.timedelta(days=10)) == 10


@pytest.mark.parametrize("expression", ["", "* * *", "61 * * * *", "0 0 31 2 *", 5])
def test_an_expression_that_makes_no_sense_is_refused(stage: Stage, expression: object) -> None:
    with pytest.raises(ArgumentError, match="expression must be"):
        stage.wq.cron(expression, abs, -7)  # type: ignore[arg-type]


@pytest.mark.parametrize("tz", ["Middle/Earth", "", 7, "../etc/passwd"])
def test_a_time_zone_that_does_not_exist_is_refused(tz: object) -> None:
    with pytest.raises(ArgumentError, match="tz must be"):
        Cron("* * * * *", tz=tz)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "1", None])
def test_a_period_that_makes_no_sense_is_refused(stage: Stage, seconds: object) -> None:
    with pytest.raises(ArgumentError, match="seconds must be"):
        stage.wq.every(seconds, abs, -7)  # type: ignore[arg-type]


def test_what_cannot_be_pickled_is_refused_at_the_call(stage: Stage) -> None:
    with pytest.raises(workq.PicklingError, match="argument 1"):
        stage.wq.every(1.0, abs, threading.Lock())


def test_without_workers_and_in_units_nothing_recurs(stage: Stage) -> None:
    with workq.WorkMgr(0, controller=stage.controller) as inline, pytest.raises(workq.WorkqError, match="not with num_workers=0"):
        inline.every(1.0, abs, -7)
