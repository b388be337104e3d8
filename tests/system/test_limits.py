"""memory_mb and cpu_s of units; max_units, max_age_s and max_memory_mb of workers."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_gone, wait_until
from tests.system import crew
from workq import ArgumentError, Category, Controller, UnitCpuExceeded, UnitMemoryExceeded, WorkMgr
from workq.process import probe

pytestmark = pytest.mark.slow

ENDLESS = 1000.0


@pytest.fixture
def wq() -> Iterator[WorkMgr]:
    with Controller() as controller, WorkMgr(1, delete_timeout=0.1, controller=controller) as one:
        yield one


# ---------------------------------------------------------------- memory of a unit


def test_a_unit_that_takes_more_than_its_memory_fails_with_a_clear_error_and_its_worker_is_replaced(wq: WorkMgr) -> None:
    pid = wq.queue(crew.pid).result()
    unit = wq.options(memory_mb=64).queue(crew.take, 80, "wait")
    error = unit.exception()
    assert isinstance(error, UnitMemoryExceeded)
    assert isinstance(error, MemoryError)
    assert error.limit_bytes == 64 << 20
    assert 64 << 20 < error.used_bytes < 300 << 20
    assert str(error).startswith(f"unit {unit.label} took ")
    assert "more than its limit of 64 MiB" in str(error)
    assert unit.state.value == "failed"
    wait_gone(pid)
    assert wq.queue(crew.pid).result() != pid
    metrics = wq.metrics()
    assert metrics.workers_halted == 0
    assert (metrics.workers_recycled, metrics.workers_killed) in ((1, 0), (0, 1))


def test_a_unit_within_its_memory_is_left_alone(wq: WorkMgr) -> None:
    assert wq.options(memory_mb=400).queue(crew.take, 64).result() == 64
    assert wq.metrics().workers_recycled == 0


def test_what_earlier_units_have_left_in_the_worker_is_not_charged_to_a_unit(wq: WorkMgr) -> None:
    pid = wq.queue(crew.keep_memory, 150).result()
    for _ in range(3):
        assert wq.options(memory_mb=100).queue(crew.burn, 0.06).result() == 0.06
    assert wq.queue(crew.pid).result() == pid


def test_memory_of_child_processes_is_charged_to_the_unit(wq: WorkMgr) -> None:
    assert isinstance(wq.options(memory_mb=64).queue(crew.take_in_child, 100).exception(), UnitMemoryExceeded)


def test_a_unit_that_goes_on_taking_is_killed_at_once_and_the_reason_is_said_once(wq: WorkMgr, caplog: pytest.LogCaptureFixture) -> None:
    wq.delete_timeout = 600.0
    unit = wq.options(memory_mb=64).queue(crew.take_deaf, 256)
    error = unit.exception(DEADLINE_S)
    assert isinstance(error, UnitMemoryExceeded)
    assert error.used_bytes > 128 << 20  # what it was killed for, and not what it was asked to end for
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"is killed: its unit {unit.label} holds " in warning
    assert " MiB of memory, far more than its limit of 64 MiB" in warning


@pytest.mark.parametrize(
    ("used_bytes", "figure"),
    [(100 * 2**20 + 1, "100.000001"), (100 * 2**20 + 2**17, "100.1"), (101 * 2**20, "101"), (1500 * 2**20, "1500")],
)
def test_what_a_unit_took_is_a_figure_that_is_more_than_its_limit(used_bytes: int, figure: str) -> None:
    error = UnitMemoryExceeded("unit a", 100 << 20, used_bytes)
    assert str(error) == f"unit a took {figure} MiB of memory, more than its limit of 100 MiB"


def test_units_of_other_functions_and_without_limits_are_not_looked_at(wq: WorkMgr) -> None:
    limited, free = wq.options(memory_mb=64), wq.queue(crew.take, 120)
    assert free.result() == 120
    assert [limited.queue(crew.take, 1).result() for _ in range(20)] == [1] * 20


def test_retries_have_a_unit_that_took_too_much_tried_again_elsewhere(wq: WorkMgr) -> None:
    unit = wq.options(memory_mb=64, retries=1).queue(crew.take, 80, "wait")
    assert isinstance(unit.exception(), UnitMemoryExceeded)
    assert [attempt.outcome for attempt in unit.attempts] == ["failed", "failed"]


# ---------------------------------------------------------------- CPU time of a unit


@pytest.mark.parametrize("function", [crew.burn, crew.burn_in_child, crew.burn_in_threads, crew.burn_deaf])
def test_a_unit_that_takes_more_than_its_cpu_time_fails_with_a_clear_error(wq: WorkMgr, function: Any) -> None:
    unit = wq.options(cpu_s=0.2).queue(function, ENDLESS)
    error = unit.exception()
    assert isinstance(error, UnitCpuExceeded)
    assert error.limit_s == 0.2
    assert 0.2 <= error.used_s < 10
    assert "of CPU time, more than its limit of 0.2 s" in str(error)
    assert wq.queue(len, "four").result() == 4


def test_time_that_a_unit_waits_is_no_cpu_time(wq: WorkMgr) -> None:
    assert isinstance(wq.options(cpu_s=0.1, timeout=0.5).queue(crew.time_out).exception(), workq.UnitTimeout)


def test_a_worker_whose_unit_took_too_much_cpu_time_serves_on(wq: WorkMgr) -> None:
    wq.delete_timeout = 60
    pid = wq.queue(crew.pid).result()
    assert isinstance(wq.options(cpu_s=0.05).queue(crew.burn, ENDLESS).exception(), UnitCpuExceeded)
    assert wq.queue(crew.pid).result() == pid


def test_cpu_time_of_earlier_units_is_not_charged_to_a_unit(wq: WorkMgr) -> None:
    wq.queue(crew.burn, 0.3).result()
    assert [wq.options(cpu_s=0.25).queue(crew.burn, 0.05).result() for _ in range(3)] == [0.05] * 3


def test_limits_hold_for_units_of_units_and_of_sessions_and_of_map(wq: WorkMgr) -> None:
    assert wq.queue(limited_in_a_unit).result() == "UnitCpuExceeded"
    with wq.session() as session, pytest.raises(UnitCpuExceeded):
        session.options(cpu_s=0.05).queue(crew.burn, ENDLESS).result()
    with pytest.raises(UnitCpuExceeded):
        list(wq.options(cpu_s=0.05).map(crew.burn, [0.0, ENDLESS]))


def limited_in_a_unit() -> str:
    with WorkMgr(1) as wq:
        return type(wq.options(cpu_s=0.05).queue(crew.burn, ENDLESS).exception()).__name__


@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan"), float("inf")])
@pytest.mark.parametrize("argument", ["memory_mb", "cpu_s"])
def test_limits_of_units_that_are_not_allowed_are_refused(wq: WorkMgr, argument: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=argument):
        wq.options(**{argument: value})  # type: ignore[arg-type]


def test_the_probe_counts_all_processes_below(wq: WorkMgr) -> None:
    own = probe.rss_bytes(os.getpid())
    assert probe.tree_rss_bytes(os.getpid()) >= own > 1 << 20
    wq.queue(crew.burn, 0.1).result()
    pid = wq.queue(crew.pid).result()
    assert probe.tree_cpu_ns(pid) > 90_000_000
    assert probe.tree_cpu_ns(os.getpid()) > time.process_time_ns()
    assert probe.rss_bytes(2**22) == probe.tree_cpu_ns(2**22) == 0


# ---------------------------------------------------------------- workers that are replaced


def queue_of(controller: Controller, workers: int = 1, **limits: Any) -> WorkMgr:
    controller.add_category(Category("worn", **limits))
    return WorkMgr(workers, category="worn", controller=controller)


def test_max_units_of_one_gives_each_unit_a_process_of_its_own() -> None:
    with Controller() as controller, queue_of(controller, 2, max_units=1) as wq:
        units = [wq.queue(crew.pid) for _ in range(12)]
        assert len({unit.result() for unit in units}) == 12
        wait_until(lambda: controller.metrics().workers_recycled == 12)
        assert controller.metrics().workers_halted == 0


@pytest.mark.parametrize("most", [7, 100])
def test_no_worker_runs_more_than_max_units_and_not_many_fewer(most: int) -> None:
    with Controller() as controller, queue_of(controller, 2, max_units=most) as wq:
        units = [wq.queue(crew.pid) for _ in range(10 * most)]
        ran = Counter(unit.result() for unit in units)
        assert max(ran.values()) <= most
        assert len(ran) <= 20


def test_every_unit_ends_well_while_workers_are_replaced_and_no_more_serve_the_queue_than_may() -> None:
    with Controller() as controller, queue_of(controller, 2, max_units=20, max_age_s=0.2) as wq:
        assert list(wq.map(abs, range(5_000))) == list(range(5_000))
        units = [wq.queue(crew.burn, 0.002) for _ in range(100)]
        most = 0
        for unit in units:
            unit.result()
            most = max(most, wq.num_active_workers)
        assert most <= 2
        assert controller.metrics().workers_recycled > 2
        assert controller.metrics().workers_halted == 0


def test_max_age_replaces_a_worker_between_two_units_and_its_successor_is_there_first() -> None:
    with Controller() as controller, queue_of(controller, max_age_s=0.1) as wq:
        pids: list[int] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(set(pids)) < 3 and time.monotonic() < deadline:
            pids.append(wq.queue(crew.pid).result())
        changes = sum(one != other for one, other in itertools.pairwise(pids))
        assert len(set(pids)) == changes + 1 == 3, "each leaves for good"
        assert len(pids) > 3, "each serves until its time has come"
        assert controller.metrics().workers_killed == 0


def test_an_age_that_is_shorter_than_what_a_worker_takes_to_begin_lets_each_run_a_unit() -> None:
    with Controller() as controller, queue_of(controller, 2, max_age_s=0.000001) as wq:
        assert {type(unit.result()) for unit in [wq.queue(crew.pid) for _ in range(20)]} == {int}


def test_where_no_more_processes_are_allowed_the_worn_worker_goes_first() -> None:
    with Controller() as controller, queue_of(controller, max_units=1, max_workers=1, max_active_workers=1, max_total_workers=1) as wq:
        assert len({unit.result() for unit in [wq.queue(crew.pid) for _ in range(5)]}) == 5


def test_max_memory_replaces_a_worker_that_has_grown_and_no_unit_is_lost() -> None:
    with Controller() as controller, queue_of(controller, max_memory_mb=150) as wq:
        first = wq.queue(crew.keep_memory, 60).result()
        assert wq.queue(crew.pid).result() == first
        assert wq.queue(crew.keep_memory, 120).result() == first
        wait_gone(first)
        assert wq.queue(crew.pid).result() != first
        assert controller.metrics().workers_recycled == 1
        assert wq.statistics().lost == wq.statistics().failed == 0


def test_a_category_that_rests_comes_to_rest_although_its_workers_grow_old() -> None:
    from workq.config import DEFAULTS

    with Controller(settings=DEFAULTS._replace(idle_timeout_s=0.3)) as controller, queue_of(controller, max_age_s=0.05) as wq:
        wq.queue(crew.pid).result()
        wait_until(lambda: len(controller.workers()) == 0)


def test_recycling_is_counted_as_such_and_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with Controller() as controller, queue_of(controller, max_units=1) as wq:
        halts: list[Any] = []
        controller.on_halt(halts.append)
        for _ in range(3):
            wq.queue(crew.pid).result()
        wait_until(lambda: controller.metrics().workers_recycled == 3)
        controller.delivery.drain(1.0)
        assert halts == []
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan")])
@pytest.mark.parametrize("argument", ["max_units", "max_age_s", "max_memory_mb"])
def test_limits_of_workers_that_are_not_allowed_are_refused(argument: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=argument):
        Category("worn", **{argument: value})  # type: ignore[arg-type]
