"""What a unit does to its worker: its own end is told, nobody else is harmed, and what can be put back is put back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, is_gone, wait_gone, wait_readable
from tests.system import deeds
from tests.system.held import NEVER_JUDGED
from workq import Controller, WorkMgr

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[WorkMgr]:
    """A queue with one worker, so that what one unit leaves behind is what the next one finds: nobody ever stands in for it."""
    with Controller(settings=NEVER_JUDGED) as controller, WorkMgr(1, delete_timeout=0.1, controller=controller) as queue:
        yield queue


# ---------------------------------------------------------------- descriptors


@pytest.mark.parametrize("first", [0, 1, 3, 500])
def test_a_unit_that_closes_descriptors_keeps_its_result_and_the_next_one_runs(wq: WorkMgr, first: int) -> None:
    unit = wq.queue(deeds.close_all, first)
    after = [wq.queue(deeds.pid) for _ in range(20)]
    assert unit.result(DEADLINE_S) == f"closed from {first}"
    assert [each.result(DEADLINE_S) > 0 for each in after] == [True] * 20
    assert unit.worker.pid not in {each.result() for each in after}
    assert "closed descriptors" in " ".join(unit.notes)


@pytest.mark.parametrize("deed", [deeds.close_all_and_open, deeds.close_all_and_talk])
def test_nothing_of_ours_is_written_to_the_files_that_a_unit_opens_in_place_of_ours(
    wq: WorkMgr, tmp_path: Path, deed: Callable[..., int]
) -> None:
    unit = wq.queue(deed, str(tmp_path), 1100)
    assert unit.result(DEADLINE_S) == 1100
    assert wq.queue(deeds.pid).result(DEADLINE_S) != unit.worker.pid
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {deeds.PATTERN}


def test_sockets_in_the_place_of_ours_end_that_unit_alone_and_once(wq: WorkMgr, tmp_path: Path) -> None:
    unit = wq.queue(deeds.close_all_and_connect, str(tmp_path))
    with pytest.raises(workq.ResultError, match="closed the descriptors"):
        unit.result(DEADLINE_S)
    assert wq.queue(deeds.pid).result(DEADLINE_S)
    assert unit.attempt == 1


def test_a_large_result_of_a_unit_that_closed_everything_is_a_clear_error(wq: WorkMgr) -> None:
    with pytest.raises(workq.ResultError, match="closed the descriptors"):
        wq.queue(deeds.close_all_large, 1 << 20).result(DEADLINE_S)
    assert wq.queue(deeds.pid).result(DEADLINE_S)


def test_a_lowered_descriptor_limit_stops_nobody(wq: WorkMgr) -> None:
    assert wq.queue(deeds.lower_descriptor_limit).result(DEADLINE_S)
    assert wq.queue(bytes, 1 << 20).result(DEADLINE_S) == bytes(1 << 20)


# ---------------------------------------------------------------- processes and threads


@pytest.mark.parametrize("deed", [deeds.fork_and_return, deeds.fork_and_raise])
def test_the_child_that_a_unit_forks_answers_for_nobody(wq: WorkMgr, deed: Callable[[], int]) -> None:
    units = [wq.queue(deed) for _ in range(10)]
    assert [unit.result(DEADLINE_S) for unit in units] == [2] * 10
    assert len({wq.queue(deeds.pid).result(DEADLINE_S) for _ in range(3)}) == 1


def test_a_child_that_exits_gives_its_code_to_the_unit(wq: WorkMgr) -> None:
    assert [wq.queue(deeds.fork_and_exit, code).result(DEADLINE_S) for code in (0, 5)] == [0, 5]


def test_multiprocessing_works_inside_a_unit(wq: WorkMgr) -> None:
    assert wq.queue(deeds.use_multiprocessing, [1, -2, 3]).result(DEADLINE_S) == [1, 2, 3]


def test_a_child_that_lives_on_is_named_once_and_ends_with_its_worker(wq: WorkMgr) -> None:
    unit = wq.queue(deeds.fork_and_stay)
    child = unit.result(DEADLINE_S)
    assert f"(pid {child})" in " ".join(unit.notes)
    after = wq.queue(deeds.pid)
    after.result(DEADLINE_S)
    assert after.notes == []
    assert not is_gone(child)
    os.kill(after.result(), signal.SIGKILL)
    wait_gone(child)


def test_threads_that_never_end_are_named_once_and_hold_nobody_up(wq: WorkMgr) -> None:
    unit = wq.queue(deeds.start_threads, 3)
    worker = unit.result(DEADLINE_S)
    after = wq.queue(deeds.pid)
    assert after.result(DEADLINE_S) == worker
    assert "endless-0, endless-1, endless-2" in " ".join(unit.notes)
    assert after.notes == []


def test_a_unit_that_ignores_every_interrupt_is_killed(wq: WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    unit = wq.queue(deeds.ignore_interrupts, fifo)
    wait_readable(pipe)
    os.close(pipe)
    assert unit.cancel()
    assert wq.queue(deeds.pid).result(DEADLINE_S)
    with pytest.raises(workq.UnitCancelled):
        unit.result(DEADLINE_S)


# ---------------------------------------------------------------- what belongs to the process


@pytest.mark.parametrize(
    ("deed", "arguments", "said"),
    [
        (deeds.change_folder, ("/",), "directory to '/'"),
        (deeds.change_handlers, (), "SIGTERM"),
        (deeds.block_signals, (), "blocked"),
        (deeds.meddle, (), "disabled logging"),
    ],
)
def test_what_a_unit_changes_is_put_back_and_told_of_that_unit(
    wq: WorkMgr, deed: Callable[..., int], arguments: tuple[Any, ...], said: str
) -> None:
    before = wq.queue(deeds.state)
    unit = wq.queue(deed, *arguments)
    after = wq.queue(deeds.state)
    assert after.result(DEADLINE_S) == before.result(DEADLINE_S)
    assert said in " ".join(unit.notes)
    assert before.notes == after.notes == []


def test_a_changed_environment_is_counted_and_left_as_it_is(wq: WorkMgr) -> None:
    unit = wq.queue(deeds.change_environment, "DEED_ONE")
    after = wq.queue(deeds.state)
    assert after.result(DEADLINE_S)["environment"] == {"DEED_ONE"}
    assert "changed the environment (changes: 1)" in " ".join(unit.notes)
    assert after.notes == []


@pytest.mark.parametrize("deed", [deeds.change_handlers, deeds.block_signals, deeds.meddle])
def test_the_next_unit_can_be_interrupted_whatever_one_did_to_signals(wq: WorkMgr, tmp_path: Path, deed: Callable[[], int]) -> None:
    wq.delete_timeout = 60.0  # a kill would be too late for this test
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    worker = wq.queue(deed).result(DEADLINE_S)
    unit = wq.queue(deeds.wait_in_vain, fifo)
    wait_readable(pipe)
    os.close(pipe)
    assert unit.cancel()
    assert wq.queue(deeds.pid).result(DEADLINE_S) == worker
    with pytest.raises(workq.UnitCancelled):
        unit.result(DEADLINE_S)


def test_a_worker_whose_builtins_were_replaced_runs_on_or_is_replaced(wq: WorkMgr) -> None:
    unit = wq.queue(deeds.replace_builtins)
    after = [wq.queue(deeds.pid) for _ in range(5)]
    error = unit.exception(DEADLINE_S)
    assert error is None or isinstance(error, workq.WorkerHalted)
    results = [each.exception(DEADLINE_S) for each in after]
    assert all(result is None or isinstance(result, workq.WorkerHalted | RuntimeError) for result in results)
    assert wq.queue(deeds.pid).exception(DEADLINE_S) is None or wq.queue(deeds.pid).result(DEADLINE_S)


def test_the_initializers_folder_and_handlers_are_home(tmp_path: Path) -> None:
    """What a category sets up in its workers is no change of a unit's."""
    with workq.Controller() as controller:
        controller.add_category(workq.Category("homes", initializer=deeds.settle_in, initializer_args=(str(tmp_path),)))
        with WorkMgr(1, category="homes", controller=controller) as wq:
            first, change, after = wq.queue(deeds.state), wq.queue(deeds.change_folder, "/"), wq.queue(deeds.state)
            assert first.result(DEADLINE_S)["folder"] == str(tmp_path)
            assert first.result() == after.result(DEADLINE_S)
            assert len(change.notes) == 1
            assert first.notes == after.notes == []


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("deed", [deeds.take_memory, deeds.take_all_memory])
def test_a_unit_that_asks_for_too_much_memory_fails_alone(wq: WorkMgr, deed: Callable[[int], object]) -> None:
    unit = wq.queue(deed, 1 << 30)
    after = [wq.queue(deeds.pid) for _ in range(5)]
    assert isinstance(unit.exception(DEADLINE_S), MemoryError | workq.WorkerHalted)
    assert all(each.result(DEADLINE_S) for each in after)


def test_memory_error_of_one_allocation_keeps_the_worker(wq: WorkMgr) -> None:
    worker = wq.queue(deeds.pid).result(DEADLINE_S)
    assert isinstance(wq.queue(deeds.take_memory, 1 << 30).exception(DEADLINE_S), MemoryError)
    assert wq.queue(deeds.pid).result(DEADLINE_S) == worker
