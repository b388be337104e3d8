"""Waits in a circle raise at the moment when the last of them begins, and name units and locks in their order; no other wait does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    queue = workq.WorkMgr(4, name="circles", delete_timeout=5)
    yield queue
    queue.close()


def wait_for_waiters(name: str, number: int = 1) -> None:
    wait_until(lambda: [len(row.waiting) for row in workq.locks() if row.name == name] == [number], what=f"{number} wait for {name}")


def take(name: str, timeout: float | None = None) -> bool:
    lock = workq.Lock(name)
    if not lock.acquire(timeout=timeout):
        return False
    lock.release()
    return True


def take_both(first: str, second: str, timeout: float | None = None) -> bool:
    with workq.Lock(first):
        workq.Event(f"has {first}").set()
        workq.Event(f"has {second}").wait()
        taken = workq.Lock(second).acquire(timeout=timeout)
        if taken:
            workq.Lock(second).release()
        return taken


def test_two_units_that_wait_for_each_others_locks_are_told_so(wq: workq.WorkMgr) -> None:
    units = [wq.queue(take_both, "a", "b"), wq.queue(take_both, "b", "a")]
    errors = [unit.exception(DEADLINE_S) for unit in units]
    (error,) = [error for error in errors if error is not None]
    assert isinstance(error, workq.WaitError)
    one, other = units if errors[0] is not None else reversed(units)
    first, second = ("a", "b") if one is units[0] else ("b", "a")
    assert str(error) == (
        f"unit {one.label} waits for lock '{second}', held by unit {other.label}, "
        f"which waits for lock '{first}', held by unit {one.label}: this can never end"
    )
    assert other.result() is True


def test_a_wait_with_a_time_out_is_in_no_circle_as_it_ends_by_itself(wq: workq.WorkMgr) -> None:
    units = [wq.queue(take_both, "a", "b", 0.3), wq.queue(take_both, "b", "a")]
    assert [unit.result(DEADLINE_S) for unit in units] == [False, True]


def take_it_twice() -> None:
    with workq.Lock("own"), workq.Lock("own"):
        pass


def test_a_unit_that_waits_for_itself_is_told_so(wq: workq.WorkMgr) -> None:
    unit = wq.queue(take_it_twice)
    message = f"unit {unit.label} waits for lock 'own', held by unit {unit.label}: this can never end"
    with pytest.raises(workq.WaitError, match=f"^{re.escape(message)}"):
        unit.result(DEADLINE_S)
    assert not workq.Lock("own").locked()


# ---------------------------------------------------------------- units that wait for units


def hold_and_wait_for_a_child(wait_first: bool, by_sync: bool, timeout: float | None = None) -> Any:
    with workq.Lock("x"), workq.WorkMgr(1, name="inner") as inner:
        child = inner.queue(take, "x")
        if wait_first:
            workq.Event("the child waits").wait()
        try:
            return inner.sync() if by_sync else child.result(timeout)
        except workq.WaitError as error:
            if child.done():  # it was the child's
                return str(error).splitlines()[0], None
            workq.Lock("x").release()
            said = str(error), child.result(DEADLINE_S)
            workq.Lock("x").acquire()
            return said


@pytest.mark.parametrize("by_sync", [False, True])
def test_a_unit_that_begins_to_wait_for_one_that_waits_for_its_lock_is_told_so_and_all_goes_on(wq: workq.WorkMgr, by_sync: bool) -> None:
    unit = wq.queue(hold_and_wait_for_a_child, True, by_sync)
    wait_for_waiters("x")
    workq.Event("the child waits").set()
    said, taken = unit.result(DEADLINE_S)
    assert said == f"unit {unit.label} waits for unit inner:1 take, which waits for lock 'x', held by unit {unit.label}: this can never end"
    assert taken is True


def test_a_unit_that_asks_for_the_lock_of_the_unit_that_waits_for_it_is_told_so(wq: workq.WorkMgr) -> None:
    unit = wq.queue(hold_and_wait_for_a_child, False, False)
    said = unit.result(DEADLINE_S)[0]
    mine, child = f"unit {unit.label}", "unit inner:1 take"
    assert said in (
        f"{mine} waits for {child}, which waits for lock 'x', held by {mine}: this can never end",
        f"{child} waits for lock 'x', held by {mine}, which waits for {child}: this can never end",
    )


def test_a_wait_for_a_unit_with_a_time_out_is_in_no_circle(wq: workq.WorkMgr) -> None:
    unit = wq.queue(hold_and_wait_for_a_child, True, False, 0.3)
    wait_for_waiters("x")
    workq.Event("the child waits").set()
    assert type(unit.exception(DEADLINE_S)) is TimeoutError


def deep(depth: int) -> bool:
    with workq.WorkMgr(1, name=f"depth{depth}") as wq:
        if depth:
            return wq.queue(deep, depth - 1).result()
        workq.Event("deepest").set()
        workq.Event("go").wait()
        return take("x")


def hold_and_go_deep() -> bool:
    with workq.Lock("x"):
        return deep(2)


def test_a_circle_through_units_three_levels_deep_names_all_of_them_in_order(wq: workq.WorkMgr) -> None:
    unit = wq.queue(hold_and_go_deep)
    assert workq.Event("deepest").wait(DEADLINE_S)
    wait_until(lambda: sum(row.blocked == "declared" for row in workq.workers()) == 3)
    workq.Event("go").set()
    error = unit.exception(DEADLINE_S)
    assert isinstance(error, workq.WaitError)
    mine, first, second = f"unit {unit.label}", "unit depth2:1 deep", "unit depth1:1 deep"
    assert str(error).splitlines()[0] == (
        f"{second} waits for lock 'x', held by {mine}, which waits for {first}, which waits for {second}: this can never end"
    )


# ---------------------------------------------------------------- the application


@pytest.mark.parametrize("by_sync", [False, True])
def test_the_application_that_waits_for_a_unit_that_waits_for_its_lock_is_told_so(wq: workq.WorkMgr, by_sync: bool) -> None:
    with workq.Lock("x"):
        unit = wq.queue(take, "x")
        wait_for_waiters("x")
        message = (
            f"the application (MainThread) waits for unit {unit.label}, which waits for lock 'x', held by the application (MainThread): "
            "this can never end"
        )
        with pytest.raises(workq.WaitError, match=f"^{re.escape(message)}$"):
            wq.sync() if by_sync else unit.result()
        assert not unit.done()
        with pytest.raises(TimeoutError):
            unit.result(0.05)
    assert unit.result(DEADLINE_S) is True


def test_two_threads_of_the_application_and_a_unit_in_a_circle(wq: workq.WorkMgr) -> None:
    said: list[str] = []

    def thread() -> None:
        with workq.Lock("x"):
            try:
                take("y")
            except workq.WaitError as error:
                said.append(str(error))

    with workq.Lock("y"):
        unit = wq.queue(take, "x", DEADLINE_S)
        other = threading.Thread(target=thread, name="other")
        other.start()
        wait_for_waiters("y")
        with pytest.raises(workq.WaitError, match=r"the application \(MainThread\) waits for lock 'x', held by the application \(other\)"):
            workq.Lock("x").acquire()
    other.join(DEADLINE_S)
    assert not said
    assert unit.result(DEADLINE_S)


def orderly(number: int) -> int:
    """Take two of five locks in their order, and wait for a child under one of them that takes a later one."""
    low, high = sorted((number % 5, (number * 7 + 3) % 5))
    with workq.Lock(f"l{low}"):
        if low == high:
            return 1
        if number % 4 == 0:
            with workq.WorkMgr(1) as wq:
                return int(wq.queue(take, f"l{high}").result())
        with workq.Lock(f"l{high}"):
            return 1


def test_no_wait_is_refused_that_can_end(wq: workq.WorkMgr) -> None:
    assert sum(wq.map(orderly, range(60))) == 60
