"""Where units belong that come back, while others append."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import workq
from tests.controller.test_turns import Stage
from workq.controller import retrying
from workq.controller.backlog import SWEPT_FROM, place_of, put_back, sweep, trim
from workq.outcome import PENDING
from workq.transport.board import LIMIT


class Numbered:
    """A unit, as far as a backlog looks at it. Where it is looked at somebody may come between."""

    def __init__(self, number: int, meanwhile: Iterator[object] | None = None, *, has_ended: bool = False) -> None:
        self.number = number
        self.meanwhile = meanwhile
        self.seen = None if has_ended else PENDING

    @property
    def value(self) -> object:
        if self.meanwhile is not None:
            next(self.meanwhile, None)
        return self.seen

    @property
    def id(self) -> int:
        if self.meanwhile is not None:
            next(self.meanwhile, None)
        return self.number


def numbers(backlog: deque[Numbered]) -> list[int]:
    return [unit.number for unit in backlog]


@pytest.mark.parametrize("length", range(18))
def test_the_place_of_a_unit_is_behind_all_that_were_queued_before_it(length: int) -> None:
    backlog = deque(Numbered(2 * index) for index in range(length))
    wanted = range(-1, 2 * length + 1)
    assert [place_of(backlog, number) for number in wanted] == [(number + 1) // 2 for number in wanted]


def test_what_is_appended_at_any_moment_is_kept_and_stays_behind() -> None:
    backlog: deque[Numbered] = deque()

    def appending() -> Iterator[object]:
        for number in range(1000, 1100):
            yield backlog.append(Numbered(number))

    meanwhile = appending()
    backlog.extend(Numbered(number, meanwhile) for number in range(1, 16, 2))
    for number in range(14, -1, -2):
        put_back(backlog, Numbered(number, meanwhile))
    appended = len(backlog) - 16
    assert appended > 16
    assert numbers(backlog) == [*range(16), *range(1000, 1000 + appended)]


def test_units_that_are_taken_off_meanwhile_cost_the_order_at_most() -> None:
    backlog: deque[Numbered] = deque()

    def taking() -> Iterator[object]:
        while True:
            yield backlog.popleft()

    backlog.extend(Numbered(number, taking()) for number in range(16))
    put_back(backlog, Numbered(20))
    assert 20 in numbers(backlog)


@pytest.mark.parametrize("first", [1, 2], ids=["the first gives back first", "the second gives back first"])
def test_what_two_workers_give_back_stands_in_the_order_of_submission(first: int) -> None:
    stage = Stage(2, linger_s=1e9, sample_s=1e9, silent_after_s=1e9, long_after_s=1e9, recall_after_s=1e9)
    try:
        stage.wq._row.estimate_s = 0.0001  # they are known to be short: several are sent at once
        units = [stage.wq.queue(abs, -number) for number in range(16)]
        stage.turn()
        for number in (1, 2):
            stage.worker(number).get_ready()
        stage.turn()
        loop = stage.controller.running()
        assert len(loop.dispatcher.workers) == 2
        held = {worker.number: [unit.id for batch in worker.batches for unit in batch.units] for worker in loop.dispatcher.workers}
        assert all(len(ids) > 2 for ids in held.values())
        assert stage.worker(1).begin()
        assert stage.worker(2).begin()
        for number in (first, 3 - first):
            loop.command(loop.recalls.take_back, loop.by_number[number])
            loop.turn([])
        running = [ids[0] for ids in held.values()]
        assert [unit.id for unit in stage.wq._row.pending] == [unit.id for unit in units if unit.id not in running]
    finally:
        stage.controller.close()


def test_what_is_tried_again_after_a_rest_stands_in_the_order_of_submission(stage: Stage) -> None:
    units = [stage.wq.queue(abs, -number) for number in range(4)]
    row, loop = stage.wq._row, stage.controller.running()
    row.pending.remove(units[2])  # those before it have come back while it rested
    row.resting[units[2]] = 0.0
    with loop.dispatcher.lock:
        retrying.wake(loop, units[2])
    assert list(row.pending) == units


def test_what_a_worker_skips_stands_in_the_order_of_submission_again() -> None:
    stage = Stage(1, linger_s=1e9, sample_s=1e9, silent_after_s=1e9, long_after_s=1e9)
    try:
        stage.wq._row.estimate_s = 0.0001
        units = [stage.wq.queue(abs, -number) for number in range(8)]
        worker = stage.ready()
        assert worker.begin()
        loop = stage.controller.running()
        (row,) = loop.dispatcher.workers
        row.quota = 0  # it takes nothing more
        row.words[LIMIT] = 1  # as one does that is unfit: it skips the rest
        worker.end()
        while worker.begin():
            worker.end()
        stage.turn()
        assert [unit.id for unit in stage.wq._row.pending] == [unit.id for unit in units[1:]]
    finally:
        stage.controller.close()


# ---------------------------------------------------------------- units that have ended while they waited


def endings(pattern: str, meanwhile: Iterator[object] | None = None) -> Iterator[Numbered]:
    """Units that are open (``o``) or have ended (``-``); where one of these is looked at somebody comes between."""
    return (Numbered(number, meanwhile, has_ended=True) if letter == "-" else Numbered(number) for number, letter in enumerate(pattern))


@pytest.mark.parametrize(
    ("pattern", "left", "swept"),
    [("", [], []), ("---", [], []), ("ooo", [0, 1, 2], [0, 1, 2]), ("--o-o-", [2, 3, 4], [2, 4]), ("o----o", [0, 1, 2, 3, 4, 5], [0, 5])],
)
def test_they_are_taken_off_both_ends_and_swept_out_from_between(pattern: str, left: list[int], swept: list[int]) -> None:
    backlog = deque(endings(pattern))
    assert trim(backlog) == len(pattern) - len(left)
    assert numbers(backlog) == left
    sweep(backlog)
    assert numbers(backlog) == swept


@pytest.mark.parametrize("pattern", ["-", "---", "o--", "--o--", "-o-o-"])
@pytest.mark.parametrize("take_off", [trim, sweep])
def test_what_is_appended_between_two_looks_at_them_stays(pattern: str, take_off: Callable[[deque[Any]], object]) -> None:
    backlog: deque[Numbered] = deque()

    def appending() -> Iterator[object]:
        for number in range(1000, 1003):
            yield backlog.append(Numbered(number))

    backlog.extend(endings(pattern, appending()))
    take_off(backlog)
    still_open = [number for number, letter in enumerate(pattern) if letter == "o"]
    appended = [number for number in numbers(backlog) if number >= 1000]
    assert [number for number in numbers(backlog) if number in still_open or number >= 1000] == still_open + appended
    assert appended == list(range(1000, 1000 + len(appended)))
    assert appended


def test_a_sweep_loses_nothing_where_a_unit_is_gone_meanwhile() -> None:
    backlog: deque[Numbered] = deque()
    backlog.extend(endings("-oo-o", (backlog.remove(backlog[0]) for _ in range(1))))
    sweep(backlog)
    assert numbers(backlog) == [1, 2, 4]


def test_many_cancelled_units_between_open_ones_are_swept_out_in_the_next_turn(stage: Stage) -> None:
    units = [stage.wq.queue(abs, -number) for number in range(1000)]
    stage.turn(1)
    for unit in units[1:-1]:
        assert unit.cancel()
    stage.turn(1)
    assert len(stage.wq._row.pending) <= SWEPT_FROM + 2
    assert (stage.wq.statistics().queued, stage.wq.statistics().cancelled) == (2, 998)
    worker, ran = stage.ready(), 0
    for _ in range(20):
        ran += worker.step()
        stage.turn(1)
    assert (ran, [unit.done() for unit in units]) == (2, [True] * 1000)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(linger_s=1e9, sample_s=1e9)
    yield made
    made.controller.close()


def test_a_cancelled_unit_between_others_makes_room_at_once(stage: Stage) -> None:
    wq = workq.WorkMgr(1, max_pending=3, when_full="raise", controller=stage.controller)
    units = [wq.queue(abs, -number) for number in range(3)]
    for _ in range(3):
        units.pop(1).cancel()
        units.append(wq.queue(abs, -7))
        with pytest.raises(workq.QueueFull):
            wq.queue(abs, -8)


def test_the_oldest_that_is_dropped_for_room_is_none_that_was_cancelled(stage: Stage) -> None:
    wq = workq.WorkMgr(1, max_pending=3, when_full="drop_oldest", controller=stage.controller)
    units = [wq.queue(abs, -number) for number in range(3)]
    units[1].cancel()
    units += [wq.queue(abs, -number) for number in (3, 4, 5)]
    assert [unit.cancelled() for unit in units] == [True, True, True, False, False, False]
    assert (wq.statistics().queued, wq.statistics().cancelled) == (3, 3)


@pytest.mark.parametrize("when_full", ["raise", "drop_oldest"])
def test_a_queue_without_workers_keeps_no_cancelled_units_and_gives_their_room(when_full: Any) -> None:
    with workq.WorkMgr(0, max_pending=300, when_full=when_full) as wq:
        units = [wq.queue(abs, -number) for number in range(300)]
        for unit in units[1:-1]:
            assert unit.cancel()
        assert len(wq._row.pending) <= SWEPT_FROM + 2
        units = [units[0], units[-1], *(wq.queue(abs, -number) for number in range(298))]
        assert not any(unit.done() for unit in units)
        assert [unit.result() for unit in units] == [0, 299, *range(298)]
