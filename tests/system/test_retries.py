"""Retries: back-off, what to retry on, rest, poison; and what may come between."""

from __future__ import annotations

import itertools
import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.leaks import Holdings, wait_for_no_more_than
from tests.support import DEADLINE_S, wait_until
from workq import ArgumentError, Retry, UnitPoisoned, WorkerHalted

pytestmark = pytest.mark.slow

LONG_S = 3600.0


class Shaky(ConnectionError):
    """An error of this module."""


def fail_until(path: str, times: int) -> int:
    """Fail so many times, and count."""
    with open(path, "a") as file:
        file.write("x")
    tries = os.path.getsize(path)
    if tries <= times:
        raise Shaky(f"try {tries}")
    return tries


def die_until(path: str, times: int) -> int:
    """The same, but take the worker along."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.path.getsize(path)


def fail_and_die(path: str) -> None:
    """Fail and die in turn."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) % 2:
        raise Shaky("an odd try")
    os.kill(os.getpid(), signal.SIGKILL)


def attempt_here() -> int:
    unit = workq.current_unit()
    assert unit is not None
    if unit.attempt < 3:
        raise Shaky
    return unit.attempt


def nest(path: str) -> list[str]:
    with workq.WorkMgr(1) as inner:
        unit = inner.options(retries=Retry(5, delay=0.001, on=Shaky)).queue(fail_until, path, 2)
        assert unit.result() == 3
        return [f"{attempt.number} {attempt.outcome} {attempt.reason}" for attempt in unit.attempts]


@pytest.fixture(scope="module", autouse=True)
def _no_leaks_of_the_module() -> Iterator[None]:
    """The controllers live as long as the module: what they leave is looked for at its end."""
    before = Holdings.now()
    yield
    wait_for_no_more_than(before)


@pytest.fixture(autouse=True)
def _no_leaks(_no_leaks_of_the_module: None) -> None:
    """Instead of a look after each test."""


@pytest.fixture(scope="module", params=[2, 0], ids=["workers", "inline"])
def any_wq(request: pytest.FixtureRequest) -> Iterator[workq.WorkMgr]:
    with workq.Controller() as controller, workq.WorkMgr(request.param, controller=controller) as queue:
        yield queue


@pytest.fixture(scope="module")
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as made:
        yield made


@pytest.fixture
def wq(controller: workq.Controller) -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(2, controller=controller) as queue:
        yield queue


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "tries")


def rests(unit: workq.Unit[Any]) -> None:
    wait_until(lambda: unit.state.value == "resting", what="the unit rests")


# ---------------------------------------------------------------- with and without workers


def test_retries_with_exponential_back_off_rest_between_attempts(any_wq: workq.WorkMgr, path: str) -> None:
    unit = any_wq.options(retries=Retry(5, delay=0.01, factor=2, jitter=0)).queue(fail_until, path, 3)
    assert unit.result(DEADLINE_S) == 4
    attempts = unit.attempts
    assert [attempt.outcome for attempt in attempts] == ["failed", "failed", "failed", "done"]
    begun = [attempt.started_at or 0.0 for attempt in attempts]
    rests = [after - before for before, after in itertools.pairwise(begun)]
    assert rests[0] >= 0.01
    assert rests[1] >= 0.02
    assert rests[2] >= 0.04
    assert [attempt.reason.rpartition(".")[2] for attempt in attempts] == ["Shaky: try 1", "Shaky: try 2", "Shaky: try 3", ""]


def test_all_attempts_that_failed_alike_say_so_alike_also_when_the_exception_has_been_asked_for(any_wq: workq.WorkMgr, path: str) -> None:
    unit = any_wq.options(retries=1).queue(fail_until, path, 3)
    assert isinstance(unit.exception(DEADLINE_S), Shaky)
    assert [attempt.reason for attempt in unit.attempts] == [f"{Shaky.__module__}.Shaky: try {number}" for number in (1, 2)]


def test_attempts_that_timed_out_alike_say_so_alike(wq: workq.WorkMgr) -> None:
    unit = wq.options(retries=1, timeout=0.01).queue(select.select, [], [], [])
    assert isinstance(unit.exception(DEADLINE_S), workq.UnitTimeout)
    first, last = unit.attempts
    assert (
        first.reason
        == f"UnitTimeout: unit {unit.label} ran for more than its timeout of 0.01 s in {first.worker} (pid {first.pid}) and was stopped"
    )
    assert last.reason == first.reason.replace(f"{first.worker} (pid {first.pid})", f"{last.worker} (pid {last.pid})")


def test_attempts_whose_workers_have_ended_alike_say_so_alike(wq: workq.WorkMgr) -> None:
    unit = wq.options(retries=1).queue(os._exit, 3)
    assert isinstance(unit.exception(DEADLINE_S), workq.WorkerHalted)
    assert [attempt.reason for attempt in unit.attempts] == ["exited with code 3"] * 2


def test_a_unit_that_fails_as_nobody_asked_to_retry_is_tried_once(any_wq: workq.WorkMgr, path: str) -> None:
    unit = any_wq.options(retries=Retry(5, on=(KeyError, "lost", "timed_out"))).queue(fail_until, path, 3)
    with pytest.raises(Shaky, match="try 1"):
        unit.result(DEADLINE_S)
    assert (unit.attempt, len(unit.attempts)) == (1, 1)


@pytest.mark.parametrize("on", [Shaky, OSError, (KeyError, ConnectionError), "failed", ["failed"], None])
def test_a_type_stands_for_its_subclasses_and_a_word_for_an_outcome(any_wq: workq.WorkMgr, path: str, on: Any) -> None:
    assert any_wq.options(retries=Retry(2, on=on)).queue(fail_until, path, 2).result(DEADLINE_S) == 3


def test_the_unit_knows_which_attempt_it_is(any_wq: workq.WorkMgr) -> None:
    assert any_wq.options(retries=2).queue(attempt_here).result(DEADLINE_S) == 3


def test_used_up_retries_end_with_the_last_error_and_sync_says_which_attempt_it_was(any_wq: workq.WorkMgr, path: str) -> None:
    any_wq.options(retries=Retry(2, delay=0.001)).queue(fail_until, path, 9)
    with pytest.raises(workq.WorkErrors) as caught:
        any_wq.sync(DEADLINE_S)
    (error,) = caught.value.exceptions
    assert str(error) == "try 3"
    assert error.__notes__[-1].endswith(", at its attempt 3")


def test_a_unit_that_rests_can_be_cancelled(any_wq: workq.WorkMgr, path: str) -> None:
    unit = any_wq.options(retries=Retry(5, delay=LONG_S)).queue(fail_until, path, 9)
    if any_wq.num_workers:
        rests(unit)
    else:
        with pytest.raises(TimeoutError):
            unit.result(0.01)
    assert unit.state.value == "resting"
    assert not unit.running()
    assert unit.cancel()
    assert unit.cancelled()
    any_wq.sync(DEADLINE_S)


def test_no_attempt_begins_after_the_total_limit(any_wq: workq.WorkMgr, path: str) -> None:
    unit = any_wq.options(retries=Retry(9, delay=1.0, jitter=0.0, within=0.5)).queue(fail_until, path, 9)
    with pytest.raises(Shaky, match="try 1"):
        unit.result(DEADLINE_S)


# ---------------------------------------------------------------- with workers


def test_a_resting_unit_holds_no_worker_and_sync_waits_for_it(wq: workq.WorkMgr, path: str) -> None:
    unit = wq.options(retries=Retry(1, delay=0.2, jitter=0)).queue(fail_until, path, 1)
    rests(unit)
    assert wq.queue(len, "four").result(DEADLINE_S) == 4
    assert wq.statistics().running == 0
    with pytest.raises(TimeoutError):
        wq.sync(0)
    assert wq.sync(DEADLINE_S).done == 2
    assert unit.result() == 2


def test_closing_the_queue_ends_units_that_rest(controller: workq.Controller, path: str) -> None:
    queue = workq.WorkMgr(1, controller=controller)
    unit = queue.options(retries=Retry(5, delay=LONG_S)).queue(fail_until, path, 9)
    rests(unit)
    queue.close()
    assert unit.cancelled()
    wait_until(lambda: not len(controller.running().core.alarms), what="no alarm is left")


def test_a_thousand_units_that_rest_come_back(wq: workq.WorkMgr, tmp_path: Path) -> None:
    view = wq.options(retries=Retry(1, delay=0.02, jitter=0.5))
    units = [view.queue(fail_until, str(tmp_path / str(number)), 1) for number in range(300)]
    assert [unit.result(DEADLINE_S) for unit in units] == [2] * 300


def test_a_unit_that_kills_its_worker_again_and_again_ends_as_poisoned_with_all_its_attempts(wq: workq.WorkMgr, path: str) -> None:
    unit = wq.options(retries=100).queue(die_until, path, 100)
    with pytest.raises(UnitPoisoned) as caught:
        unit.result(DEADLINE_S)
    error = caught.value
    assert isinstance(error, WorkerHalted)
    assert error.signal == "SIGKILL"
    assert [attempt.outcome for attempt in error.attempts] == ["lost"] * 3
    assert len({attempt.pid for attempt in error.attempts}) == 3
    assert unit.state.value == "lost"
    text = str(error)
    assert "is poisoned: 3 workers have ended under it" in text
    for attempt in error.attempts:
        assert str(attempt) in text
    assert "retries=" not in text
    wq.queue(len, "four").result(DEADLINE_S)


def test_crashes_are_counted_apart_from_errors(wq: workq.WorkMgr, path: str) -> None:
    unit = wq.options(retries=Retry(100, crashes=2)).queue(fail_and_die, path)
    with pytest.raises(UnitPoisoned) as caught:
        unit.result(DEADLINE_S)
    assert [attempt.outcome for attempt in caught.value.attempts] == ["failed", "lost", "failed", "lost"]


def test_used_up_retries_do_not_advise_retries(wq: workq.WorkMgr, path: str) -> None:
    for options in (Retry(1), Retry(5, on=OSError)):
        with pytest.raises(WorkerHalted) as caught:
            wq.options(retries=options).queue(die_until, path, 100).result(DEADLINE_S)
        assert not isinstance(caught.value, UnitPoisoned)
        assert "options(retries" not in str(caught.value)
        assert "its attempts:\n  attempt 1: lost in worker_" in str(caught.value)
    with pytest.raises(WorkerHalted, match=r"options\(retries=\.\.\.\) runs such units again"):
        wq.queue(die_until, path, 100).result(DEADLINE_S)


def test_lost_units_and_time_outs_are_matched_by_word_and_by_type(wq: workq.WorkMgr, tmp_path: Path) -> None:
    for number, on in enumerate(["lost", WorkerHalted]):
        assert wq.options(retries=Retry(1, on=on)).queue(die_until, str(tmp_path / f"died{number}"), 1).result(DEADLINE_S) == 2
    for times, on in ((2, "timed_out"), (2, TimeoutError), (1, "lost")):
        unit = wq.options(timeout=0.02, retries=Retry(1, on=on)).queue(time.sleep, 600)
        with pytest.raises(workq.UnitTimeout):
            unit.result(DEADLINE_S)
        assert unit.attempt == times


def test_each_retry_is_logged_at_debug_level(wq: workq.WorkMgr, path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "workq")
    unit = wq.options(retries=Retry(1, delay=0.01, jitter=0)).queue(fail_until, path, 9)
    unit.exception(DEADLINE_S)
    wq.controller.delivery.drain(20.0)
    said = [record.getMessage() for record in caplog.records if "tried again" in record.getMessage()]
    assert said[0] == f"unit {unit.label}: {unit.attempts[0]}; it is tried again in 0.01 s"
    assert said[1].startswith(f"unit {unit.label}: attempt 2: failed in ")
    assert said[1].endswith("; it is not tried again: it was tried 2 times")


def test_many_units_that_fail_and_lose_their_workers_all_come_to_an_end(wq: workq.WorkMgr, tmp_path: Path) -> None:
    view = wq.options(retries=Retry(4, delay=0.005, jitter=1.0, crashes=10))
    functions = (fail_until, die_until)
    units = [view.queue(functions[number % 10 == 0], str(tmp_path / str(number)), 2) for number in range(60)]
    assert [unit.result(DEADLINE_S) for unit in units] == [3] * 60
    assert {unit.attempt for unit in units} == {3}


def test_units_of_units_are_tried_again_and_say_so(wq: workq.WorkMgr, path: str) -> None:
    attempts = wq.queue(nest, path).result(DEADLINE_S)
    assert [line.split(".")[0].split(" ")[:2] for line in attempts] == [["1", "failed"], ["2", "failed"], ["3", "done"]]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"factor": 0.5}, "factor"),
        ({"max_delay": None}, "max_delay"),
        ({"jitter": 1.5}, "jitter"),
        ({"on": "sometimes"}, "on"),
        ({"on": ()}, "on"),
        ({"on": (KeyError, 7)}, "on"),
        ({"on": int}, "on"),
        ({"within": 0}, "within"),
        ({"crashes": 0}, "crashes"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused_and_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^{named} must"):
        Retry(**{"limit": 3, **arguments})


def test_retries_is_a_number_or_a_retry(wq: workq.WorkMgr) -> None:
    with pytest.raises(ArgumentError, match=r"retries must be a whole number or a workq\.Retry"):
        wq.options(retries="3")  # type: ignore[arg-type]
