"""An exception of a signal handler strikes between two lines of a dispatch: the next one who comes finds what it left half done."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import workq
from tests.controller.test_turns import Stage
from workq.controller import dispatch, loop

ran: list[int] = []


class Strike(Exception):
    """What the handler raises."""


def note(number: int) -> None:
    """A unit: it runs in this very process (workq.testing.engine)."""
    ran.append(number)


def struck_before_line(number: int, call: Callable[[], object], file: str = dispatch.__file__) -> bool:
    """Make a call, in which an exception strikes before its line in a file of this number; return whether it came so far."""
    left = iter(range(number, -1, -1))

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != file:
            return trace if event == "call" else None
        if event == "line" and next(left) == 0:
            raise Strike
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Strike:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("busy", [False, True], ids=["to an idle worker", "behind another unit"])
def test_wherever_a_dispatch_is_struck_each_unit_runs_once(busy: bool) -> None:
    ran.clear()
    stage = Stage(1, linger_s=1e9, sample_s=1e9, silent_after_s=1e9, long_after_s=1e9, recall_after_s=1e9)  # no clock has a say
    numbers, line, came_so_far = iter(range(1_000_000)), 0, True
    units: dict[int, workq.Unit[None]] = {}

    def queue() -> None:
        number = next(numbers)
        units[number] = stage.wq.queue(note, number)

    try:
        queue()
        worker = stage.ready()
        while came_so_far:
            while worker.step():
                stage.turn(1)
            stage.wq._row.estimate_s = 1e-4  # short units: a worker that runs one is sent more
            if busy:
                queue()
                assert worker.begin()
            came_so_far = struck_before_line(line, queue)
            for _ in range(3):
                queue()
            for _ in range(8):
                worker.step()
                stage.turn(1)
            line += 1
        assert line > 20
        assert all(unit.done() for unit in units.values())
        times = Counter(ran)
        assert [number for number in units if times[number] != 1] == []
        assert set(times.values()) == {1}  # those whose call was struck before it returned as well
        assert stage.wq.statistics().queued == 0
    finally:
        stage.controller.close()


def test_wherever_the_wish_for_a_sweep_is_struck_the_next_one_is_heard() -> None:
    stage = Stage(1)
    try:
        units = [stage.wq.queue(note, number) for number in range(3)]
        row, line, came_so_far = stage.wq._row, 0, True
        assert units[1].cancel()
        while came_so_far:
            row.pending.insert(1, units[1])
            came_so_far = struck_before_line(line, lambda: stage.controller.running().sweep_soon(row), loop.__file__)
            stage.controller.running().sweep_soon(row)
            stage.turn(1)
            assert list(row.pending) == [units[0], units[2]]
            line += 1
        assert line > 2
    finally:
        stage.controller.close()
