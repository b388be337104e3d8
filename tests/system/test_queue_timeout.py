"""The limit for the time in the queue: what has not begun in time ends, says that it never ran, and never runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held
from workq import UnitTimeout, WorkMgr

pytestmark = pytest.mark.slow


def touch(path: str) -> None:
    Path(path).touch()


def nest(path: str, folder: str) -> str:
    """Have a unit wait behind one that holds the only worker of its queue."""
    with WorkMgr(1) as inner:
        with Held(inner, Path(folder)):
            unit = inner.options(queue_timeout=0.02).queue(touch, path)
            return str(unit.exception(DEADLINE_S))


@pytest.fixture
def wq() -> Iterator[WorkMgr]:
    with workq.Controller() as controller, WorkMgr(1, controller=controller) as queue:
        yield queue


def test_a_unit_that_has_not_begun_in_time_ends_as_timed_out_and_never_runs(wq: WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path) as held:
        units = [wq.options(queue_timeout=0.05).queue(touch, str(tmp_path / "ran")) for _ in range(3)]
        plain = wq.queue(abs, -1)
        for unit in units:
            with pytest.raises(UnitTimeout, match=r"waited for more than its queue_timeout of 0\.05 s, and never ran"):
                unit.result(DEADLINE_S)
            assert unit.state.value == "timed out"
            assert unit.run_time_s is None
            assert unit.worker is None
        assert not held.unit.done()
    assert plain.result(DEADLINE_S) == 1
    statistics = wq.sync(DEADLINE_S)
    assert (statistics.timed_out, statistics.done) == (3, 2)
    assert not (tmp_path / "ran").exists()


def test_a_unit_that_waits_in_a_workers_hands_is_taken_back(wq: WorkMgr, tmp_path: Path) -> None:
    for _ in range(3):
        wq.queue(abs, -1).result()  # its units are known to be short: the next are sent behind one another
    with Held(wq, tmp_path) as held:
        unit = wq.options(queue_timeout=0.03).queue(touch, str(tmp_path / "ran"))
        assert isinstance(unit.exception(DEADLINE_S), UnitTimeout)
        assert not held.unit.done()
    wq.sync(DEADLINE_S)
    assert not (tmp_path / "ran").exists()


def test_retries_do_not_bring_back_what_waited_for_too_long_and_a_second_attempt_may_wait(wq: WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path):
        unit = wq.options(queue_timeout=0.03, retries=3).queue(touch, str(tmp_path / "ran"))
        assert isinstance(unit.exception(DEADLINE_S), UnitTimeout)
        assert unit.attempt == 1
    wq.queue(fail_once, str(tmp_path / "loads the module")).exception(DEADLINE_S)
    again = wq.options(queue_timeout=2, retries=workq.Retry(1, delay=2.1, jitter=0)).queue(fail_once, str(tmp_path / "tries"))
    assert again.result(DEADLINE_S) == 2


def fail_once(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    size = Path(path).stat().st_size
    if size < 2:
        raise ValueError("once")
    return size


def test_units_with_a_limit_are_forgotten_as_they_run(wq: WorkMgr) -> None:
    view = wq.options(queue_timeout=600.0)
    for _ in range(4):
        assert [unit.result() for unit in [view.queue(abs, -n) for n in range(3000)]] == list(range(3000))
    times = wq.controller.running().queue_times
    wait_until(lambda: sum(map(len, times._waiting.values())) <= 2 * 3000 + 1024, what="entries of units that have run are let go")


def test_the_limit_holds_without_workers_too() -> None:
    with WorkMgr(0) as wq:
        unit = wq.options(queue_timeout=0.01, retries=2).queue(abs, -1)
        quick = wq.options(queue_timeout=60).queue(abs, -2)
        wait_until(lambda: time.monotonic_ns() - unit.queued_ns > 20e6)
        with pytest.raises(UnitTimeout, match="never ran"):
            unit.result()
        assert quick.result() == 2
        assert wq.statistics().timed_out == 1


def test_the_limit_holds_for_units_of_units(wq: WorkMgr, tmp_path: Path) -> None:
    assert wq.queue(nest, str(tmp_path / "ran"), str(tmp_path)).result(DEADLINE_S).startswith("unit Default-")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [0, -1, "1", float("nan"), True])
def test_a_limit_that_makes_no_sense_is_refused(wq: WorkMgr, value: object) -> None:
    with pytest.raises(workq.ArgumentError, match=r"queue_timeout must be a .*number of seconds above 0"):
        wq.options(queue_timeout=value)  # type: ignore[arg-type]
