"""Where units belong that come back, while others append."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest

from tests.controller.test_turns import Stage
from workq.controller.backlog import place_of, put_back
from workq.transport.board import LIMIT


class Numbered:
    """A unit, as far as a backlog looks at it. Where it is looked at somebody may come between."""

    def __init__(self, number: int, meanwhile: Iterator[object] | None = None) -> None:
        self.number = number
        self.meanwhile = meanwhile

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
    stage = Stage(2, silent_after_s=1e9, long_after_s=1e9, recall_after_s=1e9)
    try:
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
            loop.command(loop.take_back, loop.by_number[number])
            loop.turn([])
        running = [ids[0] for ids in held.values()]
        assert [unit.id for unit in stage.wq._row.pending] == [unit.id for unit in units if unit.id not in running]
    finally:
        stage.controller.close()


def test_what_a_worker_skips_stands_in_the_order_of_submission_again() -> None:
    stage = Stage(1, silent_after_s=1e9, long_after_s=1e9)
    try:
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
