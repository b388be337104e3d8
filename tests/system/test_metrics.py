"""Metrics, of all, of each category and of each queue, on real processes: each figure of the spec means what it says."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import workq
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held, between_turns, declare, spin
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow

QUIET = DEFAULTS._replace(sample_s=3600.0)


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller(settings=QUIET) as made:
        yield made


@pytest.fixture
def category(controller: workq.Controller, request: pytest.FixtureRequest) -> str:
    """A category of the test's own, so that its counters begin at nothing."""
    name = request.node.name[-60:].replace("[", ".").replace("]", "")
    controller.add_category(workq.Category(name, default_workers=2, max_workers=2, max_active_workers=2))
    return name


def raises() -> None:
    raise ValueError("on purpose")


def spins(duration_s: float) -> None:
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        pass


def forget_nothing(size: int) -> bytes:
    return b"x" * size


def test_units_are_counted_by_their_ends(controller: workq.Controller, category: str, tmp_path: Path) -> None:
    with workq.WorkMgr(1, category=category, delete_timeout=60, controller=controller) as wq:
        wq.queue(abs, 1).result(DEADLINE_S)
        wq.queue(raises).exception(DEADLINE_S)
        wq.queue(os._exit, 3).exception(DEADLINE_S)
        assert isinstance(wq.options(timeout=0.05).queue(spins, 60).exception(DEADLINE_S), workq.UnitTimeout)
        with Held(wq, tmp_path):
            waits = wq.queue(abs, 1)
            wait_until(lambda: wq.statistics().queued == 1)
            mine = controller.metrics().categories[category]
            assert (mine.units_running, mine.units_queued, mine.active_workers) == (1, 1, 1)
            assert waits.cancel()
        wait_until(lambda: controller.metrics().categories[category].units_done == 2)
        mine = controller.metrics().categories[category]
    ends = mine.units_done, mine.units_failed, mine.units_lost, mine.units_timed_out, mine.units_cancelled
    assert ends == (2, 1, 1, 1, 1)
    assert (mine.workers_started, mine.workers_halted, mine.workers_interrupted, mine.workers_killed) == (2, 1, 1, 0)
    assert dict(mine.worker_halts) == {"exit code 3": 1}


def test_workers_are_counted_by_state_and_the_peak_stays(controller: workq.Controller, category: str, tmp_path: Path) -> None:
    with workq.WorkMgr(2, category=category, controller=controller) as wq:
        with Held(wq, tmp_path, declare):
            wait_until(lambda: controller.metrics().categories[category].blocked_workers == 1)
            with Held(wq, tmp_path):
                mine = controller.metrics().categories[category]
                assert (mine.active_workers, mine.blocked_workers, mine.waiting_workers, mine.retired_workers) == (1, 1, 0, 0)
                here = wq.statistics()
                assert (here.active_workers, here.blocked_workers, here.workers, here.running) == (1, 1, 2, 2)
        wait_until(lambda: controller.metrics().categories[category].waiting_workers == 2)
    with workq.WorkMgr(2, category=category, controller=controller) as wq, Held(wq, tmp_path), Held(wq, tmp_path):
        assert controller.metrics().categories[category].peak_active_workers == 2
    assert controller.metrics().categories[category].peak_active_workers == 2


def test_a_worker_whose_blocked_unit_has_ended_is_not_blocked_though_the_controller_has_yet_to_hear_of_it(tmp_path: Path) -> None:
    with workq.Controller() as controller, workq.WorkMgr(1, controller=controller) as wq, Held(wq, tmp_path, declare) as held:
        wait_until(lambda: wq.statistics().blocked_workers == 1)
        with between_turns(controller):
            held.let_go()
            held.unit.result(DEADLINE_S)
            statistics, metrics, (row,) = wq.statistics(), wq.metrics(), wq.workers()
        assert (statistics.running, statistics.active_workers, statistics.blocked_workers, statistics.judged_workers) == (0, 0, 0, 0)
        assert (metrics.units_running, metrics.active_workers, metrics.blocked_workers, metrics.waiting_workers) == (0, 0, 0, 1)
        assert (row.state, row.blocked, row.unit) == ("waiting for units", None, None)


def test_a_worker_beyond_the_maximum_is_counted_as_retired(controller: workq.Controller, category: str, tmp_path: Path) -> None:
    controller.add_category(workq.Category(category, default_workers=2, max_workers=2, max_active_workers=1))
    with workq.WorkMgr(2, category=category, controller=controller) as wq:
        first = Held(wq, tmp_path, declare).wait_begun()
        wait_until(lambda: controller.metrics().categories[category].blocked_workers == 1)
        with Held(wq, tmp_path, spin):
            first.let_go()
            first.unit.result(DEADLINE_S)
        wait_until(lambda: controller.metrics().categories[category].workers_retired >= 1)


def test_the_peak_of_the_depth_is_exact(controller: workq.Controller, category: str, tmp_path: Path) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        with Held(wq, tmp_path):
            units = [wq.queue(abs, -number) for number in range(5000)]
        assert [unit.result(DEADLINE_S) for unit in units] == list(range(5000))
        assert wq.statistics().peak_depth == 5000
    assert controller.metrics().categories[category].peak_depth == 5000


def test_each_unit_is_in_both_histograms_and_the_sum_of_run_times_is_exact(controller: workq.Controller, category: str) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        units = [wq.queue(abs, -number) for number in range(3000)]
        units += [wq.queue(spins, 0.01) for _ in range(10)]
        found = wq.sync(DEADLINE_S)
    assert found.run_time.count == found.wait_time.count == 3010
    ran_s = sum(unit.run_time_s or 0.0 for unit in units)
    assert found.run_time.total_s == pytest.approx(ran_s, rel=0.05)
    assert found.busy_s == pytest.approx(ran_s, rel=0.05)
    assert found.run_time.quantile_s(0.999) == pytest.approx(sorted(unit.run_time_s or 0.0 for unit in units)[-4], rel=0.5)
    assert (found.run_time.quantile_s(0.5) or 1.0) < 0.001
    assert found.wait_time.total_s == pytest.approx(sum(unit.wait_time_s or 0.0 for unit in units), rel=0.25)


def test_a_units_run_time_is_never_below_zero_nor_more_than_it_was(controller: workq.Controller, category: str) -> None:
    with workq.WorkMgr(2, category=category, controller=controller) as wq:
        begun = time.monotonic()
        units = [wq.queue(abs, -number) for number in range(5000)]
        wq.sync(DEADLINE_S)
        most_s = time.monotonic() - begun
    runs = [unit.run_time_s or 0.0 for unit in units]
    assert min(runs) >= 0.0
    assert sum(runs) <= 2 * most_s


def test_busy_is_the_share_of_the_time_that_workers_were_in_units(controller: workq.Controller, category: str, tmp_path: Path) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        with Held(wq, tmp_path):
            begun = time.monotonic()
            wait_until(lambda: (controller.metrics().categories[category].busy or 0.0) > 0.5, what="what runs counts already")
            assert (wq.statistics().busy or 0.0) > 0.3
            held_s = time.monotonic() - begun
        wait_until(lambda: wq.statistics().done == 1)
        mine = controller.metrics().categories[category]
        assert mine.busy is not None
        assert 0.9 * held_s < mine.busy_s <= mine.worker_s
        wait_until(lambda: (controller.metrics().categories[category].busy or 0.0) < 0.5, what="it has been idle for as long")


def test_units_per_second_is_that_of_the_last_seconds(controller: workq.Controller, category: str) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        assert wq.statistics().units_per_second == 0.0
        begun = time.monotonic()
        wq.queue(spins, 0.05)
        for _ in range(99):
            wq.queue(abs, 1)
        found = wq.sync(DEADLINE_S)
        assert 100 / (time.monotonic() - begun + 0.5) < found.units_per_second <= 100 / 0.05


def test_bytes_are_counted_both_ways_whatever_way_they_go(controller: workq.Controller, category: str) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        for size in (1_000, 40_000, 300_000, 300_000):  # in the ring, in it alone, by the socket, in a segment
            before = wq.statistics()
            wq.queue(forget_nothing, size).result(DEADLINE_S)
            after = wq.statistics()
            assert size <= after.bytes_from_workers - before.bytes_from_workers < size + 200
            assert 0 < after.bytes_to_workers - before.bytes_to_workers < 500
        for size in (1_000, 300_000, 300_000):
            before = wq.statistics()
            wq.queue(len, b"x" * size).result(DEADLINE_S)
            assert size <= wq.statistics().bytes_to_workers - before.bytes_to_workers < size + 500


def test_counters_never_fall_while_queues_come_and_go(controller: workq.Controller, category: str) -> None:
    before = controller.metrics().categories[category]
    for number in range(1, 40):
        with workq.WorkMgr(1, category=category, controller=controller) as wq:
            wq.queue(abs, 1).result(DEADLINE_S)
            wq.queue(abs, 2)
            wq.sync(DEADLINE_S)
        if number % 3 == 0:
            del wq
            gc.collect()
        now = controller.metrics().categories[category]
        assert now.units_done == 2 * number
        assert now.run_time.count == now.wait_time.count == 2 * number
        assert now.bytes_to_workers > before.bytes_to_workers
        assert now.busy_s >= before.busy_s
        before = now


def test_many_queues_that_are_gone_are_added_up_without_anybody_looking(controller: workq.Controller, category: str) -> None:
    for number in range(300):
        wq = workq.WorkMgr(number % 2, category=category, controller=controller)
        wq.queue(abs, 1).result(DEADLINE_S)
        wq.close()
    del wq
    gc.collect()
    found = controller.metrics().categories[category]
    assert (found.units_done, found.run_time.count, found.wait_time.count) == (300, 300, 300)


def test_metrics_of_all_are_the_sum_of_the_categories_and_readable(controller: workq.Controller, category: str) -> None:
    with workq.WorkMgr(1, category=category, controller=controller) as wq:
        wq.queue(abs, 1).result(DEADLINE_S)
        found = wq.metrics()
    assert found.units_done == sum(one.units_done for one in found.categories.values())
    assert found.run_time.count == sum(one.run_time.count for one in found.categories.values())
    data = found.as_dict()
    assert data["categories"][category]["units_done"] == 1
    assert set(data["run_time"]) == {"count", "total_s", "mean_s", "p50_s", "p90_s", "p99_s"}
    assert f" {category}" in repr(found).splitlines()[0] or len(found.categories) == 4
    with pytest.raises(AttributeError):
        found.units_done = 0  # type: ignore[misc]
    assert 0.0 < found.collecting_s < DEADLINE_S


def test_a_queue_without_workers_has_its_histograms_too() -> None:
    with workq.WorkMgr(0) as wq:
        wq.queue(spins, 0.01).result()
        assert wq.statistics().run_time.count == 1
        assert wq.statistics().run_time.total_s >= 0.01


def test_no_worker_is_in_its_state_since_a_time_to_come() -> None:
    """Units begin while the table is made; their times were counted from when its first row was looked at."""
    with workq.Controller() as controller, workq.WorkMgr(2, controller=controller) as wq:
        results = wq.map(abs, range(20_000))
        for number, _ in enumerate(results):
            if number % 500 == 0:
                assert all(row.since_s >= 0 for row in wq.workers())
