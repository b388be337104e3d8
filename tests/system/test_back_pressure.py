"""max_pending: a queue takes no more units than may wait; then it blocks, raises, or drops the oldest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workq
from tests.support import DEADLINE_S, start_application, wait_until
from tests.system.held import NEVER_JUDGED, Held
from workq.config import DEFAULTS

pytestmark = pytest.mark.slow


@pytest.fixture
def controller() -> Iterator[workq.Controller]:
    with workq.Controller(settings=NEVER_JUDGED) as made:
        yield made


class Full:
    """A queue whose one worker is busy and which is full; more fit in when the unit is let go."""

    def __init__(self, controller: workq.Controller, folder: Path, pending: int = 2, **options: Any) -> None:
        self.wq = workq.WorkMgr(1, name="narrow", max_pending=pending, controller=controller, **options)
        self.held = Held(self.wq, folder).wait_begun()
        self.units = [self.wq.queue(abs, -number) for number in range(pending)]

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *exc: object) -> None:
        self.held.let_go()
        self.wq.close()


class Caller:
    """A thread that makes a call which is to wait."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.outcome: Any = None
        self.begun = threading.Event()
        self.ended = threading.Event()
        self._call = call, args
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.begun.wait(DEADLINE_S)

    def _run(self) -> None:
        self.begun.set()
        try:
            self.outcome = self._call[0](*self._call[1])
        except BaseException as error:
            self.outcome = error
        self.ended.set()

    def waits(self, controller: Any, most: int = 1) -> None:
        """Wait until so many callers wait for room."""
        wait_until(lambda: len(controller.loop.crowded) == most)
        assert not self.ended.is_set()

    def result(self) -> Any:
        self._thread.join(DEADLINE_S)
        assert self.ended.is_set()
        return self.outcome


# ---------------------------------------------------------------- block


def test_a_full_queue_blocks_until_there_is_room(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path) as full:
        caller = Caller(full.wq.queue, abs, -7)
        caller.waits(controller)
        assert full.wq.statistics().queued == 2
        full.held.let_go()
        assert caller.result().result(DEADLINE_S) == 7
        assert full.wq.sync(DEADLINE_S).done == 4


def test_many_threads_share_the_bound_and_nothing_is_lost(controller: workq.Controller) -> None:
    deepest = 0
    with workq.WorkMgr(2, max_pending=3, controller=controller) as wq:

        def many(first: int) -> list[int]:
            nonlocal deepest
            units = []
            for number in range(first, first + 200):
                units.append(wq.queue(abs, -number))
                deepest = max(deepest, wq._row.depth())
            return [unit.result(DEADLINE_S) for unit in units]

        callers = [Caller(many, 1000 * number) for number in range(4)]
        for number, caller in enumerate(callers):
            assert caller.result() == list(range(1000 * number, 1000 * number + 200))
        assert wq.sync(DEADLINE_S).done == 800
    assert deepest <= 3


def test_a_blocked_call_ends_with_its_queue(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path, delete_timeout=60.0) as full:
        caller = Caller(full.wq.queue, abs, -7)
        caller.waits(controller)
        full.wq.close()
        assert isinstance(caller.result(), workq.QueueClosed)


def test_a_blocked_call_ends_after_full_timeout_and_has_queued_nothing(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path, full_timeout=0.05) as full:
        with pytest.raises(workq.QueueFull, match=r"narrow is full: 2 units wait \(max_pending\), and there was no room within 0.05 s"):
            full.wq.queue(abs, -7)
        assert full.wq.statistics().queued == 2


def test_room_that_a_cancelled_unit_leaves_is_used(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path) as full:
        caller = Caller(full.wq.queue, abs, -7)
        caller.waits(controller)
        full.units[0].cancel()
        caller.result()
        assert not full.held.unit.done()


def test_a_call_that_fails_leaves_its_place_to_who_waits(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path, pending=1) as full:
        caller = Caller(full.wq.queue, lambda: None, threading.Lock())
        caller.waits(controller)
        second = Caller(full.wq.queue, abs, -8)
        caller.waits(controller, 2)
        full.held.let_go()
        assert isinstance(caller.result(), workq.PicklingError)
        assert second.result().result(DEADLINE_S) == 8


APPLICATION = """
import os, time, workq
from workq.config import DEFAULTS

if __name__ == "__main__":
    never_judged = DEFAULTS._replace(sample_s=3600.0)  # nobody stands in for the worker whose unit sleeps
    wq = workq.WorkMgr(1, max_pending=1, controller=workq.Controller(settings=never_judged))
    held = wq.queue(time.sleep, 60)
    while held.state.value != "running":
        pass
    waiting = wq.queue(abs, -1)
    try:
        print("full", flush=True)
        wq.queue(abs, -2)
    except KeyboardInterrupt:
        print("interrupted", wq.statistics().queued, held.done(), flush=True)
    wq.close()
"""


def test_ctrl_c_breaks_off_a_blocked_call_and_the_queue_lives_on() -> None:
    with start_application(APPLICATION) as app:
        assert app.line() == "full"
        wait_until(lambda: Path(f"/proc/{app.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
        os.kill(app.pid, signal.SIGINT)
        assert app.line() == "interrupted 1 False"
        assert app.finish().returncode == 0


def test_a_callback_may_queue_on_the_full_queue_whose_units_it_is_called_for(controller: workq.Controller) -> None:
    """Whoever waits for room reads results: a callback runs in the thread that waits, and nobody else would."""
    made = []
    with workq.WorkMgr(1, max_pending=1, controller=controller) as wq:

        def again(unit: workq.Unit[int], number: int) -> None:
            made.append(unit.result())
            if number:
                for _ in range(3):
                    wq.queue(abs, -number)
                wq.queue_callback(abs, again, number - 1)

        wq.queue_callback(abs, again, 3)
        assert wq.sync(DEADLINE_S).done == 4 + 9
    assert made == [3, 2, 1, 0]


def test_a_done_callback_may_queue_on_the_full_queue(controller: workq.Controller) -> None:
    ended = threading.Event()
    with workq.WorkMgr(1, max_pending=1, controller=controller) as wq:

        def more(unit: Any) -> None:
            for number in range(5):
                wq.queue(abs, -number)
            ended.set()

        wq.queue(abs, -1).add_done_callback(more)
        assert ended.wait(DEADLINE_S)
        assert wq.sync(DEADLINE_S).done == 6


# ---------------------------------------------------------------- raise, drop_oldest


def test_a_full_queue_raises_and_has_queued_nothing(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path, when_full="raise") as full:
        for call in (full.wq.queue, full.wq.options(priority=3).queue):
            with pytest.raises(workq.QueueFull, match=r"narrow is full: 2 units wait \(max_pending\)"):
                call(abs, -7)
        assert full.wq.statistics().queued == 2
        full.held.let_go()
        assert full.wq.sync(DEADLINE_S).done == 3
        assert full.wq.queue(abs, -7).result(DEADLINE_S) == 7


def test_a_full_queue_drops_the_unit_that_has_waited_longest_and_says_so(controller: workq.Controller, tmp_path: Path) -> None:
    with Full(controller, tmp_path, when_full="drop_oldest") as full:
        newest = [full.wq.queue(abs, -number) for number in (8, 9)]
        for unit in full.units:
            assert unit.cancelled()
            with pytest.raises(workq.UnitCancelled, match=r"queue narrow was full \(max_pending=2, when_full='drop_oldest'\)"):
                unit.result(0)
        full.held.let_go()
        assert [unit.result(DEADLINE_S) for unit in newest] == [8, 9]
        statistics = full.wq.sync(DEADLINE_S)
        assert (statistics.done, statistics.cancelled) == (3, 2)


def test_what_is_dropped_has_the_lowest_priority(controller: workq.Controller, tmp_path: Path) -> None:
    with workq.WorkMgr(1, max_pending=2, when_full="drop_oldest", controller=controller) as wq, Held(wq, tmp_path):
        high, low = wq.options(priority=5).queue(abs, -1), wq.queue(abs, -2)
        wq.options(priority=1).queue(abs, -3)
        assert (high.cancelled(), low.cancelled()) == (False, True)


# ---------------------------------------------------------------- map


@pytest.mark.parametrize("when_full", ["block", "raise", "drop_oldest"])
def test_map_stays_inside_the_bound(when_full: str) -> None:
    never = DEFAULTS._replace(recall_after_s=1e9, long_after_s=1e9, silent_after_s=1e9)  # what a starved worker gives back comes on top
    with workq.Controller(settings=never) as controller, workq.WorkMgr(2, max_pending=3, when_full=when_full, controller=controller) as wq:
        assert list(wq.map(abs, range(-3000, 0))) == list(range(3000, 0, -1))
        assert list(wq.options(timeout=5).map(abs, range(-50, 0), look_ahead=20)) == list(range(50, 0, -1))
        statistics = wq.statistics()
        assert (statistics.cancelled, statistics.peak_depth <= 3) == (0, True)


def test_a_map_that_is_refused_has_lost_no_item(controller: workq.Controller, tmp_path: Path) -> None:
    items = iter(range(5))
    with Full(controller, tmp_path, when_full="raise") as full:
        with pytest.raises(workq.QueueFull):
            list(full.wq.map(abs, items))
        assert list(items) == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- without workers, and in units


def test_without_workers_a_full_queue_runs_units_until_there_is_room() -> None:
    with workq.WorkMgr(0, max_pending=2) as wq:
        units = [wq.queue(abs, -number) for number in range(6)]
        assert [unit.done() for unit in units] == [True] * 4 + [False] * 2
        assert [unit.result() for unit in units] == list(range(6))


@pytest.mark.parametrize("when_full", ["raise", "drop_oldest"])
def test_without_workers_a_full_queue_raises_or_drops(when_full: str) -> None:
    with workq.WorkMgr(0, max_pending=2, when_full=when_full) as wq:
        units = [wq.queue(abs, -number) for number in range(2)]
        if when_full == "raise":
            with pytest.raises(workq.QueueFull):
                wq.queue(abs, -2)
            assert wq.sync().done == 2
        else:
            units += [wq.queue(abs, -2)]
            assert [unit.cancelled() for unit in units] == [True, False, False]
            assert wq.sync().done == 2


def narrow_inside(when_full: str, number: int) -> tuple[int, int]:
    refused = 0
    with workq.WorkMgr(1, max_pending=2, when_full=when_full) as wq:
        units = []
        for value in range(number):
            try:
                units.append(wq.queue(abs, -value))
            except workq.QueueFull:
                refused += 1
                units[-1].result()
        wq.sync()
        return refused, sum(unit.result() for unit in units if not unit.cancelled())


@pytest.mark.parametrize("when_full", ["block", "raise", "drop_oldest"])
def test_the_bound_holds_in_a_unit(controller: workq.Controller, when_full: str) -> None:
    with workq.WorkMgr(1, controller=controller) as wq:
        refused, total = wq.queue(narrow_inside, when_full, 30).result(DEADLINE_S)
    if when_full == "block":
        assert (refused, total) == (0, sum(range(30)))
    elif when_full == "raise":
        assert 0 < refused < 30
    else:
        assert refused == 0
        assert 0 < total <= sum(range(30))


def test_under_a_hard_limit_a_unit_that_waits_for_room_runs_its_own(controller: workq.Controller) -> None:
    controller.categories.create("alone", max_total_workers=1)
    with workq.WorkMgr(1, category="alone", controller=controller) as wq:
        assert wq.queue(narrow_inside, "block", 10).result(DEADLINE_S) == (0, 45)


# ---------------------------------------------------------------- what may be said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_pending": 0}, "max_pending"),
        ({"max_pending": 1.5}, "max_pending"),
        ({"max_pending": True}, "max_pending"),
        ({"max_pending": 1, "when_full": "wait"}, "'block', 'raise' or 'drop_oldest'"),
        ({"max_pending": 1, "full_timeout": -1}, "full_timeout"),
        ({"when_full": "raise"}, "max_pending"),
        ({"full_timeout": 1.0}, "max_pending"),
    ],
)
def test_a_bound_that_cannot_be_names_the_argument(options: dict[str, Any], words: str) -> None:
    with pytest.raises(workq.ArgumentError, match=words):
        workq.WorkMgr(1, **options)


def test_the_bound_can_be_read() -> None:
    assert (workq.WorkMgr(1, max_pending=5).max_pending, workq.WorkMgr(1).max_pending) == (5, None)
    assert workq.WorkMgr(1, max_pending=5).limits.max_pending == 5
