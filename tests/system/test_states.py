"""Workers, states, scaling, on real processes: one by one, fair, with stand-ins for the blocked, and no more than needed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, is_gone, wait_gone, wait_until
from tests.system.held import NEVER_JUDGED, Held, declare, hold, sleep, spin, wait_for_busy_child, wait_for_file_lock, wait_for_lock
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow


def states(controller: workq.Controller) -> list[str]:
    return sorted(row.state for row in controller.workers())


def pids(controller: workq.Controller) -> set[int]:
    return {row.pid for row in controller.workers()}


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Iterator[workq.Controller]:
    with workq.Controller(settings=getattr(request, "param", NEVER_JUDGED)) as made:
        made.add_category(workq.Category("two", default_workers=2, max_workers=4, max_active_workers=2))
        made.add_category(workq.Category("turns", default_workers=1, max_workers=1, max_active_workers=1, always_queue=True))
        yield made


judging = pytest.mark.parametrize("controller", [DEFAULTS], indirect=True)


# ---------------------------------------------------------------- starting


def test_workers_start_one_by_one_as_units_are_queued_up_to_the_queues_maximum(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(2, controller=controller)
    assert len(controller.workers()) == 0
    with ExitStack() as stack:
        for number in (1, 2):
            stack.enter_context(Held(wq, tmp_path))
            assert len(controller.workers()) == number
        third = Held(wq, tmp_path)
        wait_until(lambda: wq.statistics().queued == 1)
        assert len(controller.workers()) == 2
        assert not third.begun
    third.wait_begun().let_go()
    assert wq.sync(DEADLINE_S).done == 3
    assert controller.metrics().workers_started == 2


def test_a_number_beyond_the_categorys_maximum_is_clamped_and_can_be_read(controller: workq.Controller) -> None:
    assert workq.WorkMgr(99, category="two", controller=controller).num_workers == 4
    assert workq.WorkMgr(category="two", controller=controller).num_workers == 2


def test_a_category_has_no_more_active_workers_than_its_maximum_but_one_for_a_new_queue(
    controller: workq.Controller, tmp_path: Path
) -> None:
    first, second, third = (workq.WorkMgr(4, category="two", controller=controller) for _ in range(3))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Held(first, tmp_path))
        behind = Held(first, tmp_path)
        stack.enter_context(Held(second, tmp_path))  # never waits for others to end
        last = Held(third, tmp_path)
        wait_until(lambda: third.statistics().queued == 1)
        assert not behind.begun
        assert not last.begun
        assert len(controller.workers()) == 3
    for held in (behind, last):
        held.wait_begun().let_go()
    for wq in (first, second, third):
        wq.sync(DEADLINE_S)


def test_a_category_that_always_queues_has_a_new_queue_wait_its_turn(controller: workq.Controller, tmp_path: Path) -> None:
    first, second = (workq.WorkMgr(category="turns", controller=controller) for _ in range(2))
    with Held(first, tmp_path) as held:
        waiting = Held(second, tmp_path)
        wait_until(lambda: second.statistics().queued == 1)
        assert len(controller.workers()) == 1
        assert not waiting.begun
        pid = controller.workers()[0].pid
    with waiting:
        pass
    assert held.unit.result(DEADLINE_S) == waiting.unit.result(DEADLINE_S) == pid


# ---------------------------------------------------------------- fair, and by priority


def test_a_small_queue_does_not_wait_for_a_large_one(controller: workq.Controller, tmp_path: Path) -> None:
    large, small = (workq.WorkMgr(category="turns", controller=controller) for _ in range(2))
    with Held(large, tmp_path):
        many = [large.queue(sum, range(20_000)) for _ in range(3000)]
        few = [small.queue(sum, range(20_000)) for _ in range(20)]
    for unit in few:
        unit.result(DEADLINE_S)
    last = max(unit.ended_ns for unit in few)
    large.sync(DEADLINE_S)
    assert sum(unit.ended_ns < last for unit in many) < 1000


def test_higher_priorities_go_first_within_a_queue(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    with Held(wq, tmp_path):
        units = [wq.options(priority=priority).queue(abs, priority) for priority in (0, -1, 5, 3, 5, -7, 0)]
    wq.sync(DEADLINE_S)
    order = sorted(units, key=lambda unit: unit.started_ns)
    assert [unit.call.options.priority for unit in order] == [5, 5, 3, 0, 0, -1, -7]
    assert [unit.id for unit in order][:2] == [4, 6]  # of equals the first comes first


# ---------------------------------------------------------------- blocked


@judging
@pytest.mark.parametrize("wait", [hold, sleep, wait_for_lock, wait_for_file_lock])
def test_a_unit_that_waits_is_judged_blocked_and_another_worker_stands_in(
    wait: Callable[[str], Any], controller: workq.Controller, tmp_path: Path
) -> None:
    wq = workq.WorkMgr(1, delete_timeout=0.2, controller=controller)
    with Held(wq, tmp_path, wait) as held:
        other = wq.queue(os.getpid)
        assert other.result(DEADLINE_S) in pids(controller)
        row = next(row for row in controller.workers() if row.unit == held.unit.label)
        assert other.result() != row.pid
        held.unit.cancel()
    wq.close()


@judging
def test_units_that_only_sleep_have_as_many_stand_ins_as_the_queue_has_workers_and_no_more(controller: workq.Controller) -> None:
    with workq.WorkMgr(2, controller=controller) as wq:
        for _ in range(24):
            wq.queue(time.sleep, 0.05)
        wq.sync(DEADLINE_S)
    assert controller.metrics().workers_started <= 4


@judging
def test_a_unit_that_was_sent_behind_one_that_waits_gets_a_stand_in_though_nobody_asks_for_it(
    controller: workq.Controller, tmp_path: Path
) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    for _ in range(20):
        wq.queue(abs, -1).result()  # known to be short: the next ones are sent ahead
    called = threading.Event()
    with Held(wq, tmp_path):
        wq.queue(abs, -2).add_done_callback(lambda unit: called.set())
        assert called.wait(DEADLINE_S)
    wq.close()


@pytest.mark.parametrize("controller", [DEFAULTS._replace(sample_s=0.3)], indirect=True)  # so long that a busy machine runs the child
@pytest.mark.parametrize("work", [spin, wait_for_busy_child])
def test_a_unit_that_computes_or_whose_child_does_is_not_judged_blocked(
    work: Callable[[str], Any], controller: workq.Controller, tmp_path: Path
) -> None:
    """Units of the same queue wait meanwhile, so that it is looked at; a sleeper in another category shows that looking goes on."""
    wq = workq.WorkMgr(1, delete_timeout=0.2, controller=controller)
    watched = workq.WorkMgr(1, category="two", delete_timeout=0.2, controller=controller)
    with Held(wq, tmp_path, work) as held:
        behind = wq.queue(os.getpid)
        for _ in range(3):
            with Held(watched, tmp_path):
                watched.queue(os.getpid).result(DEADLINE_S)
            watched.sync(DEADLINE_S)
        assert not behind.done()
        assert [row.state for row in controller.workers() if row.unit == held.unit.label] == ["active"]
        held.unit.cancel()
        behind.result(DEADLINE_S)
    wq.close()
    watched.close()


def test_a_blocked_unit_has_a_stand_in_and_the_worker_too_many_is_retired_afterwards(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    with Held(wq, tmp_path, declare) as first:
        wait_until(lambda: states(controller) == ["blocked"])
        with Held(wq, tmp_path) as second:  # begins: a new worker stands in
            assert states(controller) == ["active", "blocked"]
            third = Held(wq, tmp_path)
            first.let_go()
            blocker = first.unit.result(DEADLINE_S)
            wait_until(lambda: "retired" in states(controller))  # it has completed a unit, and there is one too many
            assert next(row.pid for row in controller.workers() if row.state == "retired") == blocker
            assert not third.begun
        stand_in = second.unit.result(DEADLINE_S)
    with third:
        pass
    assert third.unit.result(DEADLINE_S) == stand_in != blocker
    wq.sync(DEADLINE_S)


def test_a_stand_in_is_rather_a_retired_worker_than_a_new_one(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(1, controller=controller)
    for _ in range(5):
        with Held(wq, tmp_path, declare), Held(wq, tmp_path):
            pass
        wq.sync(DEADLINE_S)
    assert controller.metrics().workers_started == 2
    assert controller.metrics().workers_halted == 0


def test_the_maximum_may_be_exceeded_for_a_short_time_when_a_unit_unblocks(controller: workq.Controller, tmp_path: Path) -> None:
    """Nothing is interrupted for it: whichever completes a unit next is retired."""
    wq = workq.WorkMgr(1, controller=controller)
    go_on = str(tmp_path / "go_on")
    os.mkfifo(go_on)
    unit = wq.queue(block_and_go_on, str(tmp_path / "blocks"), go_on)
    with Held(wq, tmp_path) as held:
        with open(tmp_path / "blocks", "wb"):
            pass  # it unblocks
        with open(go_on, "wb"):
            wait_until(lambda: states(controller) == ["active", "active"])
        going = unit.result(DEADLINE_S)
        wait_until(lambda: states(controller) == ["active", "retired"])
        assert going == next(row.pid for row in controller.workers() if row.state == "retired")
    assert held.unit.result(DEADLINE_S) != going
    assert wq.sync(DEADLINE_S).done == 2


def block_and_go_on(blocks: str, go_on: str) -> int:
    os.mkfifo(blocks)
    with workq.blocking():
        hold(blocks)
    return hold(go_on)


# ---------------------------------------------------------------- serving others, and ending


def test_an_idle_worker_serves_another_queue_with_the_same_pid(controller: workq.Controller) -> None:
    seen = set()
    for _ in range(20):
        with workq.WorkMgr(1, controller=controller) as wq:
            seen.add(wq.queue(os.getpid).result(DEADLINE_S))
    assert len(seen) == 1
    assert controller.metrics().workers_started == 1


def test_a_retired_worker_serves_another_queue_with_the_same_pid(controller: workq.Controller, tmp_path: Path) -> None:
    wq, other = (workq.WorkMgr(1, controller=controller) for _ in range(2))
    with Held(wq, tmp_path, declare) as first, Held(wq, tmp_path):
        first.let_go()
        retired = first.unit.result(DEADLINE_S)
        wait_until(lambda: states(controller) == ["active", "retired"])
        assert other.queue(os.getpid).result(DEADLINE_S) == retired


def test_workers_of_one_category_never_serve_another(controller: workq.Controller) -> None:
    queues = [workq.WorkMgr(1, category=category, controller=controller) for category in ("two", "turns", "SQL")]
    seen = {wq.category: wq.queue(os.getpid).result(DEADLINE_S) for wq in queues}
    assert len(set(seen.values())) == 3
    assert {row.category: row.pid for row in controller.workers()} == seen


@pytest.mark.parametrize("controller", [DEFAULTS._replace(idle_timeout_s=0.1)], indirect=True)
def test_unused_workers_end_after_the_idle_time_and_new_ones_start_when_needed(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(2, controller=controller)
    with Held(wq, tmp_path), Held(wq, tmp_path):
        before = pids(controller)
    for pid in before:
        wait_gone(pid)
    wait_until(lambda: len(controller.workers()) == 0)
    assert wq.queue(os.getpid).result(DEADLINE_S) not in before
    assert controller.metrics().workers_halted == 0  # they were asked to leave


# ---------------------------------------------------------------- workers that cannot start


def refuse() -> None:
    raise RuntimeError("the licence has run out")


@pytest.mark.parametrize(
    ("category", "words"),
    [
        (workq.Category("broken", preload=["no_such_module_anywhere"]), "no_such_module_anywhere"),
        (workq.Category("broken", initializer=refuse), "the licence has run out"),
        (workq.Category("broken", initializer=os._exit, initializer_args=(7,)), "code 7"),
    ],
    ids=["preload", "initializer", "exit"],
)
def test_workers_that_cannot_start_are_tried_a_few_times_and_then_the_units_say_why(
    category: workq.Category, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with workq.Controller(settings=DEFAULTS._replace(start_backoff_s=0.001)) as controller:
        controller.add_category(category)
        wq = workq.WorkMgr(2, category="broken", controller=controller)
        fine = workq.WorkMgr(1, controller=controller)
        wq.pause()  # until all are queued
        units = [wq.queue(abs, -n) for n in range(20)]
        wq.resume()
        for unit in units:
            error = unit.exception(DEADLINE_S)
            assert isinstance(error, workq.LaunchError)
            assert words in str(error)
        assert fine.queue(abs, -1).result(DEADLINE_S) == 1
        assert len(controller.halts) <= 2 * DEFAULTS.start_tries
        assert all(is_gone(halt.pid) for halt in controller.halts)
        assert isinstance(wq.queue(abs, 1).exception(DEADLINE_S), workq.LaunchError)  # tried again, failed again
        wq.close()
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    told, summed_up = [line for line in said if line.startswith("worker_")], [line for line in said if line.startswith("workers of")]
    assert len(summed_up) >= DEFAULTS.start_tries
    assert set(summed_up) <= {f"workers of category broken: {line.splitlines()[0]}" for line in told}  # what it wrote is there once a try


def test_each_unit_is_counted_for_the_worker_that_ended_it(controller: workq.Controller, tmp_path: Path) -> None:
    wq = workq.WorkMgr(2, controller=controller)
    with Held(wq, tmp_path):
        for unit in [wq.queue(abs, -n) for n in range(500)]:
            unit.result(DEADLINE_S)
    wq.sync(DEADLINE_S)
    assert sum(row.units_done for row in controller.workers()) == 501
