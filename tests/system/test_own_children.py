"""Under max_total_workers a unit that waits runs its own units itself: no dead-lock, and each of them a unit like any other."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_gone, wait_until
from tests.system.held import Held, deaf, hold
from workq.core.events import OwnerDone

pytestmark = pytest.mark.slow


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller() as made:
        made.categories.create("one", max_workers=4, max_active_workers=2, max_total_workers=1)
        made.categories.create("two", max_workers=4, max_active_workers=2, max_total_workers=2)
        yield made


@pytest.fixture
def wq(controller: workq.Controller) -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(2, category="one", name="outer", delete_timeout=60, controller=controller) as queue:
        yield queue


# ---------------------------------------------------------------- no dead-lock


def chain(depth: int) -> list[int]:
    if not depth:
        return [os.getpid()]
    with workq.WorkMgr(2) as wq:
        return [os.getpid(), *wq.queue(chain, depth - 1).result()]


def tree(depth: int, width: int) -> int:
    if not depth:
        return 1
    with workq.WorkMgr(2) as wq:
        units = [wq.queue(tree, depth - 1, width) for _ in range(width)]
        return sum(unit.result() for unit in units)


def tree_by_sync(depth: int, width: int) -> int:
    if not depth:
        return 1
    with workq.WorkMgr(1) as wq:
        units = [wq.queue(tree_by_sync, depth - 1, width) for _ in range(width)]
        wq.sync()
        return sum(unit.result() for unit in units)


def tree_by_map(depth: int, width: int) -> int:
    if not depth:
        return 1
    with workq.WorkMgr(2) as wq:
        return sum(wq.map(tree_by_map, [depth - 1] * width, [width] * width))


def tree_by_wait_one(depth: int, width: int) -> int:
    if not depth:
        return 1
    with workq.WorkMgr(2) as wq:
        for _ in range(width):
            wq.queue(tree_by_wait_one, depth - 1, width)
        return sum(unit.result() for unit in wq.as_completed())


def test_one_process_runs_six_levels_of_units_that_wait_for_each_other(wq: workq.WorkMgr) -> None:
    pids = wq.queue(chain, 6).result(DEADLINE_S)
    assert (len(pids), len(set(pids))) == (7, 1)
    assert wq.metrics().workers_started == 1


@pytest.mark.parametrize("branch", [tree, tree_by_sync, tree_by_map, tree_by_wait_one])
def test_one_process_runs_a_tree_whichever_way_its_units_wait(wq: workq.WorkMgr, branch: Callable[[int, int], int]) -> None:
    assert wq.queue(branch, 3, 3).result(DEADLINE_S) == 27
    assert (wq.metrics().workers_started, wq.metrics().workers_interrupted) == (1, 0)


@pytest.mark.parametrize("branch", [tree, tree_by_map])
def test_two_processes_run_binary_trees_side_by_side_and_there_is_no_third(
    controller: workq.Controller, branch: Callable[[int, int], int]
) -> None:
    with workq.WorkMgr(2, category="two", controller=controller) as wq:
        units = [wq.queue(branch, 4, 2) for _ in range(8)]
        assert [unit.result(2 * DEADLINE_S) for unit in units] == [16] * 8
        assert controller.metrics().workers_started <= 2
        assert (wq.metrics().workers_interrupted, wq.metrics().workers_killed, wq.metrics().workers_halted) == (0, 0, 0)


def test_a_hard_limit_that_is_set_while_a_unit_waits_has_it_run_its_own(controller: workq.Controller, tmp_path: Path) -> None:
    controller.categories.create("free", max_workers=1, max_active_workers=1)
    with workq.WorkMgr(1, category="free", controller=controller) as wq, Held(wq, tmp_path, hold_then_chain) as held:
        controller.categories.change("free", max_total_workers=1)
    assert len(set(held.unit.result(DEADLINE_S))) == 1


def hold_then_chain(fifo: str) -> list[int]:
    hold(fifo)
    return chain(3)


# ---------------------------------------------------------------- each is a unit like any other


def who() -> tuple[str, int, str | None, bool]:
    unit = workq.current_unit()
    assert unit is not None
    print(f"I am {unit.name}")
    logging.getLogger("child").warning("from %s", unit.name)
    return unit.name, unit.id, unit.worker, workq.is_worker_job()


def who_inside() -> list[Any]:
    print("before")
    with workq.WorkMgr(1, name="inner") as wq:
        unit = wq.options(name="the child").queue(who)
        seen = unit.result()
        mine = workq.current_unit()
        assert mine is not None
        print("after")
        times = (unit.wait_time_s or 0) >= 0 and (unit.run_time_s or 0) > 0
        return [seen, mine.name, unit.state.value, unit.output, unit.worker.name if unit.worker else None, times]


def test_it_knows_itself_and_its_output_and_log_records_are_its_own(
    wq: workq.WorkMgr, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    unit = wq.queue(who_inside)
    (name, number, worker, is_job), mine, state, output, ran_in, times = unit.result(DEADLINE_S)
    assert (name, number, is_job) == ("the child", 1, True)
    assert worker == ran_in == controller_worker(wq)
    assert (mine, state, output, times) == ("who_inside", "done", "I am the child\n", True)
    wq.sync(DEADLINE_S)
    assert unit.output.splitlines() == capsys.readouterr().out.splitlines() == ["before", "I am the child", "after"]
    assert [record.getMessage() for record in caplog.records if record.name == "child"] == ["from the child"]


def controller_worker(wq: workq.WorkMgr) -> str:
    return wq.workers()[0].name


def flush_and_hold(fifo: str) -> None:
    print("early")
    workq.flush()
    hold(fifo)


def run_inside(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with workq.WorkMgr(1, name="inner", delete_timeout=60) as wq:
        return wq.options(**options).queue(function, *args).result()


def hold_inside(fifo: str) -> int:
    return int(run_inside(hold, fifo))


def deaf_inside(fifo: str) -> int:
    return int(run_inside(deaf, fifo))


def test_the_table_shows_the_unit_that_runs_and_the_worker_as_active(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, hold_inside) as held:
        wait_until(lambda: [(row.unit, row.state) for row in wq.workers()] == [("inner:1 hold", "active")])
        assert wq.controller.metrics().units_queued >= 1
    assert held.unit.result(DEADLINE_S) == wq.workers()[0].pid


def raise_it() -> None:
    raise KeyError("inside")


def kinds_inside(function: Callable[..., Any]) -> list[str]:
    try:
        run_inside(function)
    except Exception as error:
        return [type(error).__name__, str(error), type(error.__cause__).__name__]
    return []


class Odd:
    def __reduce__(self) -> Any:
        raise ValueError("cannot be sent")


def test_its_exceptions_reach_the_unit_that_waits_as_from_another_worker(wq: workq.WorkMgr) -> None:
    assert wq.queue(kinds_inside, raise_it).result(DEADLINE_S) == ["KeyError", "'inside'", "RemoteTraceback"]
    kind, text, _ = wq.queue(kinds_inside, Odd).result(DEADLINE_S)
    assert (kind, "cannot be sent" in text) == ("ResultError", True)


def fail_at_first(path: str) -> tuple[int, int]:
    unit = workq.current_unit()
    assert unit is not None
    with open(path, "a") as file:
        file.write("x")
    if unit.attempt < 3:
        raise OSError("not yet")
    return unit.attempt, os.path.getsize(path)


def test_its_retries_are_run_as_well(wq: workq.WorkMgr, tmp_path: Path) -> None:
    assert wq.queue(run_inside, fail_at_first, str(tmp_path / "tries"), retries=5).result(DEADLINE_S) == (3, 3)


def keywords_inside() -> list[Any]:
    with workq.WorkMgr(1) as wq:
        units = [wq.queue(sorted, [2, 3, 1], reverse=True), wq.queue(lambda n: n + 1, 1), wq.queue(bytes, 3_000_000)]
        return [units[0].result(), units[1].result(), len(units[2].result())]


def test_keywords_lambdas_and_large_results_are_as_in_another_worker(wq: workq.WorkMgr) -> None:
    assert wq.queue(keywords_inside).result(DEADLINE_S) == [[3, 2, 1], 2, 3_000_000]


def move_away() -> str:
    os.chdir("/")
    os.environ["LEFT_BEHIND"] = "1"
    return os.getcwd()


def move_inside() -> tuple[str, bool, list[str]]:
    before = os.getcwd()
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(move_away)
        return unit.result(), os.getcwd() == before, unit.notes


def test_what_it_leaves_behind_is_put_back_before_the_unit_that_waits_goes_on(wq: workq.WorkMgr) -> None:
    folder, same, _ = wq.queue(move_inside).result(DEADLINE_S)
    assert (folder, same) == ("/", True)


def note(word: str) -> None:
    print(word)


def outfit_inside() -> list[int]:
    with workq.WorkMgr(1, name="fitted") as wq:
        wq.setup(note, "set up")
        wq.teardown(note, "tear down")
        return [wq.queue(abs, -number).result() for number in range(3)]


def bad_outfit_inside() -> list[str]:
    with workq.WorkMgr(1, name="unfit") as wq:
        wq.setup(raise_it)
        return [type(wq.queue(abs, -1).exception()).__name__]


def test_the_set_up_of_its_queue_is_done_once_before_it_and_the_teardown_at_the_end(wq: workq.WorkMgr) -> None:
    unit = wq.queue(outfit_inside)
    assert unit.result(DEADLINE_S) == [0, 1, 2]
    assert unit.output.split() == ["set", "up", "tear", "down"]
    assert wq.queue(bad_outfit_inside).result(DEADLINE_S) != ["NoneType"]


# ---------------------------------------------------------------- stopping


def time_out_inside(fifo: str) -> tuple[str, int]:
    try:
        run_inside(hold, fifo, timeout=0.1)
    except workq.UnitTimeout:
        return "timed out", int(run_inside(abs, -3))
    return "ended", 0


def test_its_time_out_interrupts_it_and_not_the_unit_that_waits(wq: workq.WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    assert wq.queue(time_out_inside, fifo).result(DEADLINE_S) == ("timed out", 3)
    metrics = wq.metrics()
    assert (metrics.workers_started, metrics.workers_interrupted, metrics.workers_killed) == (1, 1, 0)


def cancel_inside(fifo: str) -> tuple[bool, int]:
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(hold, fifo)
        threading.Thread(target=lambda: (wait_until(lambda: os.path.exists(fifo + ".go")), unit.cancel())).start()
        try:
            unit.result()
        except workq.UnitCancelled:
            return unit.cancelled(), wq.queue(abs, -4).result()
        return False, 0


def test_it_can_be_cancelled_alone(wq: workq.WorkMgr, tmp_path: Path) -> None:
    with Held(wq, tmp_path, cancel_inside) as held:
        Path(held.fifo + ".go").touch()
        assert held.unit.result(DEADLINE_S) == (True, 4)
    assert wq.metrics().workers_killed == 0


@pytest.mark.parametrize("level", [1, 3])
def test_an_interrupt_of_the_unit_that_waits_strikes_through_all_that_it_runs(wq: workq.WorkMgr, tmp_path: Path, level: int) -> None:
    with Held(wq, tmp_path, hold_inside if level == 1 else hold_deep_inside) as held:
        held.unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            held.unit.result(DEADLINE_S)
        assert wq.queue(abs, -1).result(DEADLINE_S) == 1
    metrics = wq.metrics()
    assert (metrics.workers_started, metrics.workers_killed) == (1, 0)


def hold_deep_inside(fifo: str) -> int:
    return int(run_inside(run_inside, hold_inside, fifo))


def time_out_the_middle(fifo: str) -> str:
    """The unit in the middle has a time-out, the innermost none: the interrupt strikes there, and ends at the middle."""
    try:
        run_inside(hold_inside, fifo, timeout=0.1)
    except workq.UnitTimeout:
        return "the middle"
    return "nobody"


def test_an_interrupt_of_a_unit_in_the_middle_ends_there(wq: workq.WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    assert wq.queue(time_out_the_middle, fifo).result(DEADLINE_S) == "the middle"
    assert wq.metrics().workers_killed == 0


def test_one_that_does_not_end_is_killed_with_the_unit_that_waits_for_it(wq: workq.WorkMgr, tmp_path: Path) -> None:
    wq.delete_timeout = 0.5
    with Held(wq, tmp_path, deaf_inside) as held:
        held.unit.cancel()
        with pytest.raises(workq.UnitCancelled):
            held.unit.result(DEADLINE_S)
        assert wq.metrics().workers_killed == 1
    assert wq.queue(abs, -1).result(DEADLINE_S) == 1


def test_the_time_out_of_a_unit_covers_the_units_that_it_runs(wq: workq.WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with pytest.raises(workq.UnitTimeout, match="hold_inside"):
        wq.options(timeout=0.2).queue(hold_inside, fifo).result(DEADLINE_S)
    assert wq.metrics().workers_killed == 0


def die_inside() -> None:
    run_inside(os._exit, 3)


def test_one_that_dies_takes_the_unit_that_waits_and_is_named(wq: workq.WorkMgr) -> None:
    unit = wq.queue(die_inside)
    after = wq.queue(abs, -5)
    error = unit.exception(DEADLINE_S)
    assert isinstance(error, workq.WorkerHalted)
    assert (error.exit_code, error.halt.unit) == (3, "inner:1 _exit")
    assert after.result(DEADLINE_S) == 5
    wait_until(lambda: len(wq.controller.queues) == 1)


def test_one_that_dies_before_its_beginning_was_heard_of_is_named_all_the_same(wq: workq.WorkMgr) -> None:
    loop = wq.controller.running()
    died = threading.Event()

    def keep_the_controller_until_it_has_died() -> None:
        """Between two of its turns: after it has given the unit, and before it reads that it was begun."""
        given = [worker for worker in loop.by_number.values() if worker.own]
        if given:
            wait_gone(given[0].pid)
            died.set()
        elif wq.controller.halts:  # on a busy machine it may all have happened before this could look
            died.set()
        else:
            loop.command(keep_the_controller_until_it_has_died)

    loop.command(keep_the_controller_until_it_has_died)
    unit = wq.queue(die_inside)
    assert died.wait(DEADLINE_S)
    wait_until(unit.done)  # `exception` would read what workers say
    error = unit.exception(DEADLINE_S)
    assert isinstance(error, workq.WorkerHalted)
    assert (error.exit_code, error.halt.unit) == (3, "inner:1 _exit")


# ---------------------------------------------------------------- at no moment in no place


class Watched(deque[Any]):
    """A backlog that notes whether its queue has work when a unit has just left it."""

    def watch(self, queue: Any, seen: list[bool]) -> Watched:
        self.queue, self.seen = queue, seen
        return self

    def popleft(self) -> Any:
        unit = super().popleft()
        self.seen.append(self.queue.busy())
        return unit


def queue_then_hold(fifo: str) -> int:
    with workq.WorkMgr(1, name="inner") as wq:
        unit = wq.queue(abs, -7)
        hold(fifo)
        return unit.result()


def test_a_queue_is_busy_at_each_moment_while_its_owner_runs_its_last_unit(wq: workq.WorkMgr, tmp_path: Path) -> None:
    controller, loop = wq.controller, wq.controller.running()
    taken: list[bool] = []
    told: list[bool] = []

    def watch() -> None:
        """Between two turns: look whenever the unit leaves a place, and the core is told that."""
        inner = next(queue for queue in controller.queues.values() if queue.owner is not None)
        inner.pending = Watched(inner.pending).watch(inner, taken)
        tell = loop.tell

        def look_and_tell(event: Any) -> None:
            if isinstance(event, OwnerDone):
                told.append(inner.busy())
            tell(event)

        loop.tell = look_and_tell  # type: ignore[method-assign]

    with Held(wq, tmp_path, queue_then_hold) as held:
        wait_until(lambda: any(queue.owner is not None and queue.pending for queue in list(controller.queues.values())))
        controller._perform(watch)
        held.let_go()
        assert held.unit.result(DEADLINE_S) == 7
    assert (taken, told) == ([True], [True])


# ---------------------------------------------------------------- offers that are not taken up


def wait_shortly(fifo: str) -> list[str]:
    """Another worker has the unit, so that the wait ends by its time-out, with its offer withdrawn."""
    seen = []
    with workq.WorkMgr(1) as wq:
        unit = wq.queue(hold, fifo)
        wait_until(lambda: os.path.exists(fifo + ".begun"))
        for _ in range(20):
            try:
                unit.result(timeout=0.01)
            except TimeoutError:
                seen.append("timed out")
        Path(fifo + ".waited").touch()
        unit.result()
    return seen


def test_a_wait_with_a_time_out_while_another_worker_has_the_unit_ends_in_time(controller: workq.Controller, tmp_path: Path) -> None:
    with workq.WorkMgr(1, category="two", controller=controller) as wq, Held(wq, tmp_path, wait_shortly) as held:
        Path(held.fifo + ".begun").touch()
        wait_until(lambda: os.path.exists(held.fifo + ".waited"))
        held.let_go()
        assert held.unit.result(DEADLINE_S) == ["timed out"] * 20


def impatient(rounds: int) -> int:
    """Waits that end at any moment: what was given and not begun has to come back, and each unit runs once."""
    total = 0
    with workq.WorkMgr(2) as wq:
        for round_ in range(rounds):
            units = [wq.queue(abs, -1) for _ in range(5)]
            for unit in units:
                try:
                    unit.result(timeout=0.0002 * (round_ % 5))
                except TimeoutError:
                    pass
            total += sum(unit.result() for unit in units)
        assert wq.statistics().done == 5 * rounds
    return total


def test_impatient_waits_lose_nothing_and_run_nothing_twice(controller: workq.Controller) -> None:
    with workq.WorkMgr(2, category="two", controller=controller) as wq:
        assert [unit.result(DEADLINE_S) for unit in [wq.queue(impatient, 40) for _ in range(3)]] == [200] * 3
