"""Units that queue units and wait for them: never a dead-lock, few processes, and nothing left when the one who waits is stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.stepping import at_each_step
from tests.support import DEADLINE_S, wait_until
from tests.system.held import Held, deaf, hold
from workq import context

pytestmark = pytest.mark.slow

SMALL = workq.Category("small", default_workers=2, max_workers=2, max_active_workers=2)


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.Controller() as controller:
        controller.add_category(SMALL)
        queue = workq.WorkMgr(2, category="small", name="outer", delete_timeout=60, controller=controller)
        yield queue
        queue.close()


def chain(depth: int) -> int:
    if not depth:
        return 0
    with workq.WorkMgr(2) as wq:
        return 1 + wq.queue(chain, depth - 1).result()


def tree(depth: int, width: int) -> int:
    if not depth:
        return 1
    wq = workq.WorkMgr(2)
    units = [wq.queue(tree, depth - 1, width) for _ in range(width)]
    leaves = sum(unit.result() for unit in units)
    wq.close()
    return leaves


def tree_by_sync(depth: int, width: int) -> int:
    if not depth:
        return 1
    with workq.WorkMgr(2) as wq:
        units = [wq.queue(tree_by_sync, depth - 1, width) for _ in range(width)]
        wq.sync()
        return sum(unit.result() for unit in units)


def many_queues(number: int) -> int:
    total = 0
    for _ in range(number):
        with workq.WorkMgr(1) as wq:
            total += sum(unit.result() for unit in [wq.queue(abs, -1), wq.queue(abs, -1)])
    return total


def test_six_levels_deep_with_two_workers(wq: workq.WorkMgr) -> None:
    assert wq.queue(chain, 6).result(DEADLINE_S) == 6
    assert wq.metrics().workers_started <= 8  # each level's waiter is a process


def test_a_binary_tree_of_six_levels_needs_few_processes(wq: workq.WorkMgr) -> None:
    assert wq.queue(tree, 6, 2).result(3 * DEADLINE_S) == 64
    assert wq.metrics().workers_started <= 40  # of 127 units


def test_many_trees_side_by_side_do_not_mix_and_strike_nobody(wq: workq.WorkMgr) -> None:
    """Each tree deletes its queues while others run. A worker that was moved to a queue with another's unit in hand would be struck."""
    units = [wq.queue(tree if number % 2 else tree_by_sync, 3, 2) for number in range(40)]
    assert [unit.result(3 * DEADLINE_S) for unit in units] == [8] * 40
    assert (wq.metrics().workers_interrupted, wq.metrics().workers_killed, wq.metrics().workers_halted) == (0, 0, 0)


def test_a_wide_tree_by_sync(wq: workq.WorkMgr) -> None:
    assert wq.queue(tree_by_sync, 3, 5).result(3 * DEADLINE_S) == 125


def test_queues_made_one_after_the_other_are_forgotten(wq: workq.WorkMgr) -> None:
    assert [unit.result(DEADLINE_S) for unit in [wq.queue(many_queues, 50) for _ in range(2)]] == [100, 100]
    wait_until(lambda: len(wq.controller.queues) <= 2)


def fail_inside() -> None:
    with workq.WorkMgr(1) as wq:
        wq.queue(int, "no number").result()


def die_inside() -> str:
    with workq.WorkMgr(1) as wq:
        error = wq.queue(os._exit, 3).exception()
        return f"{type(error).__name__} {getattr(error, 'exit_code', None)}"


def output_inside() -> None:
    print("before")
    with workq.WorkMgr(1) as wq:
        wq.queue(print, "inside")
    print("after")


def test_outcomes_and_output_reach_the_unit_that_waits(wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(wq.queue(fail_inside).exception(DEADLINE_S), ValueError)
    assert wq.queue(die_inside).result(DEADLINE_S) == "WorkerHalted 3"
    unit = wq.queue(output_inside)
    unit.result(DEADLINE_S)
    assert unit.output.split() == ["before", "inside", "after"]
    assert capsys.readouterr().out.split() == ["before", "inside", "after"]


def hold_inside(fifo: str) -> int:
    with workq.WorkMgr(1) as wq:
        return wq.queue(hold, fifo).result()


def die_while_it_waits(fifo: str) -> None:
    import threading

    wq = workq.WorkMgr(1)
    unit = wq.queue(hold, fifo)
    threading.Thread(target=lambda: (wait_until(lambda: os.path.exists(fifo + ".die")), os._exit(7))).start()
    unit.result()


def close_while_one_runs(fifo: str) -> bool:
    """Close a queue whose unit is deaf; say whether it still ran afterwards."""
    wq = workq.WorkMgr(1, delete_timeout=0.05)
    unit = wq.queue(deaf, fifo)
    wait_until(lambda: os.path.exists(fifo + ".begun"))
    wq.close()
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # fails where nobody reads it any more
    except OSError:
        return unit.cancelled()
    return False


def test_close_in_a_unit_returns_when_no_unit_of_the_queue_runs_any_more(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, close_while_one_runs) as held:
        Path(held.fifo + ".begun").touch()
        assert held.unit.result(DEADLINE_S) is True


def test_a_unit_that_waits_for_its_own_is_shown_as_blocked_and_can_be_cancelled_with_them(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, hold_inside) as held:
        wait_until(lambda: [row.blocked for row in wq.workers() if row.unit == held.unit.label and row.state == "blocked"] == ["declared"])
        held.unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            held.unit.result(DEADLINE_S)
        wait_until(lambda: not [row for row in wq.workers() if row.unit])  # its own unit was interrupted too
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1


def test_what_a_dead_unit_had_queued_is_stopped(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, die_while_it_waits) as held:
        Path(held.fifo + ".die").touch()
        assert isinstance(held.unit.exception(DEADLINE_S), workq.WorkerHalted)
        wait_until(lambda: not [row for row in wq.workers() if row.unit])
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1


def called_back_while_nobody_waits_for_the_unit() -> int:
    import threading

    called = threading.Event()
    values: list[int] = []

    def take(unit: workq.Unit[int]) -> None:
        values.append(unit.result())
        called.set()

    with workq.WorkMgr(1) as wq, workq.blocking():
        wq.queue(abs, -7).add_done_callback(take)
        assert called.wait(DEADLINE_S)
    return values[0]


def test_a_callback_in_a_unit_is_called_though_nobody_waits_for_what_it_belongs_to(wq: workq.WorkMgr) -> None:
    assert wq.queue(called_back_while_nobody_waits_for_the_unit).result() == 7


def read_by_another_thread_in_each_step_of_a_wait() -> tuple[list[str], int]:
    """Wait for a unit, and before each bytecode of that have another thread wait for a later one: it reads the outcome of the first."""
    side: Any = context.side()
    wrong: list[str] = []
    with workq.WorkMgr(1) as wq:

        def wait(unit: workq.Unit[int]) -> None:
            try:
                unit.result(timeout=DEADLINE_S / 4)
            except TimeoutError as error:
                wrong.append(str(error))

        steps = at_each_step(
            ("hosts/reading.py", "worker/replies.py"),
            lambda: wq.queue(abs, -1),
            wait,
            lambda: wait(wq.queue(abs, -2)),
            may=lambda: not wrong and not side.inbox.lock.locked() and not side.replies._changed._is_owned(),  # else it would wait for us
        )
    return wrong, steps


def test_another_thread_may_read_the_outcome_that_is_waited_for_in_each_step_of_the_wait(wq: workq.WorkMgr) -> None:
    wrong, steps = wq.queue(read_by_another_thread_in_each_step_of_a_wait).result(DEADLINE_S)
    assert wrong == []
    assert steps > 100
