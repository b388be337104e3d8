"""map: in order, lazily, in groups where items are short, and with each item's own error."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import workq
from tests.support import tries, wait_until
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
    assert any(len(set(wq.map(unit_of, range(20_000)))) < 10_000 for _ in tries())  # on a busy machine items seem to be long
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


# ---------------------------------------------------------------- what cannot be sent or read


def then_raises(numbers: range) -> Iterator[int]:
    yield from numbers
    raise RuntimeError("the input")


@pytest.fixture(params=[2, 0], ids=["workers", "inline"])
def either(request: pytest.FixtureRequest) -> Iterator[workq.WorkMgr]:
    with workq.WorkMgr(request.param) as wq:
        yield wq


def all_of(results: Iterator[object]) -> list[object]:
    """Ask for results until there is none, whatever is raised; exceptions stand among them as their types' names and texts."""
    found: list[object] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")


NOT_SENT = "PicklingError: item {} of the map (counted from 0) cannot be sent: argument 1 (obj) of type _thread.lock cannot be pickled: "


@pytest.mark.parametrize("how", [{}, {"look_ahead": 2}], ids=["measured", "one by one"])
def test_an_item_that_cannot_be_sent_fails_in_its_place(either: workq.WorkMgr, how: dict[str, int]) -> None:
    found = all_of(either.map(truth, [1, 0, 3, threading.Lock(), 5], **how))
    assert found.pop(3).startswith(NOT_SENT.format(3))  # type: ignore[attr-defined]
    assert found == [True, False, True, True]


def truth(obj: object) -> bool:
    return bool(obj)


def identity(obj: object) -> object:
    return obj


@pytest.mark.parametrize("bad", [[2500], [0, 2999], [2000, 2001, 2002, 2900]], ids=str)
def test_an_item_of_a_group_that_cannot_be_sent_fails_alone(wq: workq.WorkMgr, bad: list[int]) -> None:
    list(wq.map(abs, range(3000)))  # it is known how short they are: groups are large from the beginning
    items = [threading.Lock() if number in bad else number for number in range(3000)]
    found = all_of(wq.map(identity, items))
    for place in reversed(bad):
        assert found.pop(place).startswith(NOT_SENT.format(place))  # type: ignore[attr-defined]
    assert found == [number for number in range(3000) if number not in bad]
    assert wq.statistics().failed == len(bad)


def test_items_that_cannot_be_sent_are_returned_or_skipped_as_others_that_fail(either: workq.WorkMgr) -> None:
    items = [1, threading.Lock(), 2, threading.Lock()]
    returned = list(either.map(identity, items, errors="return"))
    assert [type(value) for value in returned] == [int, workq.errors.PicklingError, int, workq.errors.PicklingError]
    assert list(either.map(identity, items, errors="skip")) == [1, 2]
    assert list(either.map(divmod, [7, 8], [threading.Lock(), 3], errors="skip")) == [(2, 2)]
    assert either.sync().failed == 5


def test_a_function_that_cannot_be_sent_ends_the_map_whatever_is_done_about_errors(wq: workq.WorkMgr) -> None:
    lock = threading.Lock()
    for errors in ("raise", "return", "skip"):
        with pytest.raises(workq.errors.PicklingError, match="cannot send function"):
            list(wq.map(lambda number: (number, lock), count(), errors=errors))


@pytest.mark.parametrize("errors", ["raise", "return", "skip"])
def test_what_the_input_raises_comes_behind_the_results_and_ends_the_map(either: workq.WorkMgr, errors: str) -> None:
    assert all_of(either.map(abs, then_raises(range(2)), errors=errors)) == [0, 1, "RuntimeError: the input"]
    assert all_of(either.map(pow, range(9), then_raises(range(3)), errors=errors)) == [1, 1, 4, "RuntimeError: the input"]


def test_what_the_input_raises_in_the_middle_of_a_group_loses_no_item(wq: workq.WorkMgr) -> None:
    list(wq.map(abs, range(3000)))
    assert all_of(wq.map(abs, then_raises(range(2777)))) == [*range(2777), "RuntimeError: the input"]


def test_a_unit_maps_what_cannot_be_sent_or_read(wq: workq.WorkMgr) -> None:
    assert wq.queue(map_mistakes).result() == [1, 3, 0, 1, "RuntimeError: the input"]


def map_mistakes() -> list[object]:
    with workq.WorkMgr(1) as wq:
        return [*wq.map(identity, [1, threading.Lock(), 3], errors="skip"), *all_of(wq.map(abs, then_raises(range(2))))]


def test_a_map_that_met_a_mistake_does_not_keep_its_queue(wq: workq.WorkMgr) -> None:
    for items in ([1, threading.Lock(), 3], then_raises(range(9))):
        short = workq.WorkMgr(1)
        results = short.map(identity, items, errors="return")
        assert next(results) in (0, 1)
        gone, kept = weakref.ref(short), None
        del short, results
        assert gone() is None
        short = workq.WorkMgr(1)
        gone = weakref.ref(short)
        with contextlib.suppress(RuntimeError):
            kept = list(short.map(identity, items, errors="return"))
        del short
        assert gone() is None, "neither the exceptions that were returned nor the one that was raised hold it"
        assert kept is None or len(kept) == 3


def test_a_bound_holds_where_a_group_is_cut(wq: workq.WorkMgr) -> None:
    with workq.WorkMgr(1, max_pending=3, when_full="raise") as narrow:
        list(narrow.map(abs, range(2000)))
        items = [threading.Lock() if number % 100 == 50 else number for number in range(2000)]
        assert list(narrow.map(identity, items, errors="skip")) == [number for number in range(2000) if number % 100 != 50]


# ---------------------------------------------------------------- items that fail


def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number


def die_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def outcomes(results: Iterator[int], number: int) -> list[object]:
    """Ask for so many results, one by one, whatever is raised."""
    found: list[object] = []
    for _ in range(number):
        try:
            found.append(next(results))
        except ValueError as error:
            found.append(error.args)
    with pytest.raises(StopIteration):
        next(results)
    return found


HOW = [{}, {"look_ahead": 4}]


@pytest.mark.parametrize("how", HOW, ids=["in groups", "one by one"])
def test_after_an_error_the_next_one_is_asked_for_or_another_for_goes_on(wq: workq.WorkMgr, how: dict[str, int]) -> None:
    expected = [(number,) if number % 2 else number for number in range(300)]
    assert outcomes(wq.map(odd_fails, range(300), **how), 300) == expected
    results = wq.map(odd_after_thousand, range(3000), **how)
    first: list[int] = []
    with pytest.raises(ValueError, match="1000"):
        for number in results:
            first.append(number)  # noqa: PERF402  one by one, as it ends in an error
    assert first == list(range(1000))
    assert list(results) == list(range(1001, 3000)), "another `for` goes on where the first one ended"


@pytest.mark.parametrize("how", HOW, ids=["in groups", "one by one"])
def test_errors_return_puts_exceptions_in_their_places(wq: workq.WorkMgr, how: dict[str, int]) -> None:
    found = list(wq.map(odd_fails, range(500), errors="return", **how))
    assert [value.args if isinstance(value, ValueError) else value for value in found] == [(n,) if n % 2 else n for n in range(500)]
    assert isinstance(found[1].__cause__, workq.RemoteTraceback)


@pytest.mark.parametrize("how", HOW, ids=["in groups", "one by one"])
def test_errors_skip_leaves_them_out(wq: workq.WorkMgr, how: dict[str, int]) -> None:
    assert list(wq.map(odd_fails, range(2000), errors="skip", **how)) == list(range(0, 2000, 2))


def test_a_result_that_was_not_taken_is_there_for_the_next_for(wq: workq.WorkMgr) -> None:
    results = wq.map(abs, range(5000))
    for number in results:
        if number == 2500:
            break
    assert next(results) == 2501
    assert list(results) == list(range(2502, 5000))


def test_an_item_that_kills_its_worker_fails_alone_where_items_are_units(wq: workq.WorkMgr) -> None:
    found = list(wq.map(die_at_seven, range(20), look_ahead=2, errors="return"))
    assert [value for value in found if not isinstance(value, workq.WorkerHalted)] == [*range(7), *range(8, 20)]


def test_a_group_whose_worker_dies_fails_as_many_items_as_were_in_it(wq: workq.WorkMgr) -> None:
    found = list(wq.map(die_at, range(5000), [4000] * 5000, errors="return"))
    assert len(found) == 5000
    lost = [place for place, value in enumerate(found) if isinstance(value, workq.WorkerHalted)]
    assert 4000 in lost
    assert lost == list(range(lost[0], lost[-1] + 1))


@pytest.mark.parametrize("how", HOW, ids=["in groups", "one by one"])
def test_a_failed_map_leaves_the_statistics_right(wq: workq.WorkMgr, how: dict[str, int]) -> None:
    list(wq.map(abs, range(2000)))
    before = wq.sync()
    with pytest.raises(ValueError, match="1000"):
        list(wq.map(odd_after_thousand, range(100_000), **how))
    after = wq.sync()
    assert (after.queued, after.running, after.uncollected) == (0, 0, 0)
    assert after.failed == before.failed + 1
    assert after.done > before.done
    skipped = list(wq.map(odd_fails, range(100), errors="skip", **how))
    assert wq.sync().failed == after.failed + 100 - len(skipped) == after.failed + 50


def test_errors_work_without_workers_and_inside_a_unit(wq: workq.WorkMgr) -> None:
    with workq.WorkMgr(0) as inline:
        assert list(inline.map(odd_fails, range(10), errors="skip")) == [0, 2, 4, 6, 8]
    assert wq.queue(map_inside).result() == [0, 2, 4, 6, 8]


def map_inside() -> list[int]:
    with workq.WorkMgr(1) as wq:
        return list(wq.map(odd_fails, range(10), errors="skip"))


@pytest.mark.parametrize("arguments", [{"errors": "ignore"}, {"progress": "curses"}, {"progress": 1.5}])
def test_what_map_may_do_about_errors_and_progress_is_checked_at_the_call(wq: workq.WorkMgr, arguments: dict[str, object]) -> None:
    with pytest.raises(workq.ArgumentError, match=next(iter(arguments))):
        wq.map(abs, [1], **arguments)


def fail_first(number: int) -> int:
    if number == 0:
        raise LookupError(number)
    signal.pause()
    return number


def test_after_a_map_that_failed_nothing_counts_as_running_or_queued(wq: workq.WorkMgr) -> None:
    for _ in range(3):
        with pytest.raises(LookupError):
            list(wq.map(fail_first, range(50)))
        wait_until(lambda: (wq.statistics().running, wq.statistics().queued) == (0, 0))
    assert (wq.statistics().failed, wq.statistics().done) == (3, 0)
