"""map: in order, lazily, in groups where items are short, and with each item's own error."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import workq
from tests.system import held


def even(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number


def odd_after_thousand(number: int) -> int:
    if number == 1000:
        raise ValueError(number)
    return number


def die_at(number: int, when: int) -> int:
    if number == when:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def unit_of(number: int) -> int:
    unit = workq.current_unit()
    assert unit is not None
    return unit.id


@pytest.fixture
def wq() -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(2) as wq:
        yield wq


def test_results_come_in_order_however_many(wq: workq.WorkMgr) -> None:
    assert list(wq.map(abs, range(0, -50_000, -1))) == list(range(50_000))
    assert list(wq.map(pow, range(3000), [2] * 2999)) == [n * n for n in range(2999)]
    assert list(wq.map(abs, [])) == []


def test_short_items_travel_in_groups_and_others_do_not(wq: workq.WorkMgr) -> None:
    assert len(set(wq.map(unit_of, range(20_000)))) < 10_000
    assert len(set(wq.options(retries=1).map(unit_of, range(500)))) == 500
    assert len(set(wq.map(unit_of, range(500), look_ahead=8))) == 500


def test_an_error_is_that_of_its_item_and_those_before_it_are_yielded(wq: workq.WorkMgr) -> None:
    list(wq.map(abs, range(2000)))
    got = []
    with pytest.raises(ValueError, match="1000") as caught:
        for number in wq.map(odd_after_thousand, range(100_000)):
            got.append(number)  # noqa: PERF402  one by one, as it ends in an error
    assert got == list(range(1000))
    assert isinstance(caught.value.__cause__, workq.RemoteTraceback)


def test_the_iterator_goes_on_after_an_error(wq: workq.WorkMgr) -> None:
    list(wq.map(abs, range(2000)))
    results = wq.map(even, range(3000))
    got: list[int | str] = []
    while len(got) < 3000:
        try:
            got.append(next(results))
        except ValueError as error:
            got.append(str(error))
    assert got == [str(number) if number % 2 else number for number in range(3000)]
    assert list(results) == []


def test_errors_of_several_arguments_are_those_of_their_items(wq: workq.WorkMgr) -> None:
    list(wq.map(pow, range(2000), [1] * 2000))
    results = wq.map(divmod, range(1000), [*range(500), 0, *range(501, 1000)])
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert [next(results) for _ in range(499)] == [(1, 0)] * 499
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [(1, 0)] * 499


def test_close_ends_the_iterator_in_the_middle_of_a_group(wq: workq.WorkMgr) -> None:
    list(wq.map(abs, range(2000)))
    results = wq.map(abs, range(100_000))
    for _ in range(5000):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []
    del results
    wq.sync()


def test_a_time_out_of_map_loses_nothing(wq: workq.WorkMgr, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    results = wq.map(held.hold, [fifo], timeout=0.01)
    with pytest.raises(TimeoutError):
        next(results)
    with open(fifo, "wb"):
        pass
    while True:
        try:
            assert next(results) > 0
            break
        except TimeoutError:
            pass
    assert list(results) == []


@pytest.mark.parametrize("kind", [list, tuple, iter, range])
def test_any_kind_of_input_gives_the_same_results(wq: workq.WorkMgr, kind: type) -> None:
    numbers = range(3, 30_000, 2)
    given = numbers if kind is range else kind(numbers)
    assert list(wq.map(abs, given)) == list(numbers)


def test_the_input_is_read_only_a_little_ahead(wq: workq.WorkMgr) -> None:
    source = count()
    results = wq.map(abs, source)
    for _ in range(10):
        next(results)
    assert next(source) < 500_000
    results.close()
    wq.sync()


def test_a_look_ahead_bounds_what_is_read(wq: workq.WorkMgr) -> None:
    source = count()
    results = wq.map(abs, source, look_ahead=5)
    for _ in range(100):
        next(results)
    assert next(source) <= 106
    results.close()


def test_a_generator_that_raises_ends_the_map_with_its_error(wq: workq.WorkMgr) -> None:
    def broken() -> Iterator[int]:
        yield from range(100)
        raise RuntimeError("the input")

    with pytest.raises(RuntimeError, match="the input"):
        list(wq.map(abs, broken()))
    assert list(wq.map(abs, [-1])) == [1]


def test_a_worker_that_dies_in_a_map_is_named_and_the_queue_lives_on(wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.WorkerHalted, match="SIGKILL"):
        list(wq.map(die_at, range(5000), [4000] * 5000))
    assert list(wq.map(abs, range(-10, 0))) == list(range(10, 0, -1))


@pytest.mark.parametrize("arguments", [{"look_ahead": 0}, {"look_ahead": "many"}, {"look_ahead": True}])
def test_bad_input_is_refused_at_the_call(wq: workq.WorkMgr, arguments: dict[str, object]) -> None:
    with pytest.raises(workq.ArgumentError, match="look_ahead"):
        wq.map(abs, [1], **arguments)  # type: ignore[arg-type]


def test_map_without_an_input_is_refused(wq: workq.WorkMgr) -> None:
    with pytest.raises(workq.ArgumentError, match="iterable"):
        wq.map(abs)
