"""map: results in order, from an input that is read only as far ahead as the workers need.

An item that takes long is a unit. Short ones travel in groups, each group a unit of about `GROUP_S` of measured work: a unit costs some
microseconds, and an item may take less. Nobody has to choose a size. An exception is that of its item, and those before it are
yielded; but a worker that dies takes the group that it ran with it, and time-outs, retries and priorities are said of units: with them
each item is one.

The input is read ahead of the results, so what it raises, and an item that cannot be sent, are met too early: they wait in their places.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

from workq import errors
from workq.controller.gate import BoundedIntake
from workq.controller.intake import Intake
from workq.controller.records import Options, Queue
from workq.transport import codec, group
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.seeing.bar import Bar

T = TypeVar("T")

AHEAD_UNITS = 16  # for each worker at least, however long units take
AHEAD_S = 0.02  # of measured work for each worker, where units are short
MOST_AHEAD = 8192
FIRST_UNITS = 64  # by which the rest is judged; so few are under way at first
GROUP_S = 0.001  # of work in a group
SHORT_S = 50e-6  # an item that takes less than this travels in a group
MOST_ITEMS = 10_000  # in a group
SLICED = {range, list, tuple}  # inputs of which slices are taken, and no iterator is asked for each item
GROUPS_AHEAD = 4  # for each worker
MOST_GROWTH = 8  # of an item's time from one group to the next: a group of few that was held up says little of those to come


class Results(chain[T]):
    """The iterator that ``map`` returns: results in order, at the speed of C. It goes on after an item that failed."""

    _parts: Generator[Iterable[T], None, None]

    def close(self) -> None:
        """End it: what is not yet yielded is cancelled, as it is when the iterator is dropped."""
        self._parts.close()

    def __repr__(self) -> str:
        return "<results of a map, in order>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise errors.is_handle("the iterator of a map", "send a list of its results")


def results(
    owner: object,
    row: Queue,
    intake: Intake,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int | None,
    timeout: float | None,
    on_error: str,
    bar: Bar | None,
) -> Results[T]:
    """Return the results in order; closing the iterator cancels what is not yet yielded. The ``owner`` lives as long as the iterator."""
    parts = _parts(owner, Mapping(row, intake, fn, iterables, look_ahead, bar), timeout, on_error)
    found: Results[T] = Results.from_iterable(parts)  # type: ignore[assignment]
    found._parts = parts
    return found


def _parts(owner: object, mapping: Mapping, timeout: float | None, on_error: str) -> Generator[Iterable[Any], None, None]:
    """Yield the results in portions. An error is raised by a portion of its own, as an iterator that has raised by itself has ended."""
    try:
        yield from _portions_of(mapping, timeout, on_error)
        mapping.raise_end()
    finally:
        mapping.end = None
        if type(mapping.portion) is list:
            mapping.portion.clear()  # somebody may be in the middle of it
        for unit, _ in mapping.waiting:
            unit.cancel()
        if mapping.bar is not None:
            mapping.bar.close()


def _portions_of(mapping: Mapping, timeout: float | None, on_error: str) -> Iterator[Iterable[Any]]:
    """Yield the portions as they come; a function of its own, see ``Lead._read_until``."""
    waiting = mapping.waiting
    while mapping.fill():
        unit, items = waiting[0]
        try:
            value = mapping.result(unit, items, timeout)
        except BaseException as error:
            if error is unit._exception:  # else the time to wait is over, or a signal handler has raised: the unit goes on
                mapping.note(unit, items, items or 1)
                waiting.popleft()
                mapping.portion = _instead(error, on_error, items or 1)
            elif isinstance(error, Exception):
                mapping.portion = _Raising(error)
            else:
                raise
            yield mapping.portion
            continue
        waiting.popleft()
        values, failures = value if items else ([value], ())
        mapping.note(unit, items, len(failures))
        for portion in _portions(values, failures, on_error) if failures else (values,):
            mapping.portion = portion
            yield portion


def _portions(values: list[Any], failures: list[tuple[int, bytes]], on_error: str) -> Iterator[Iterable[Any]]:
    """Cut the results of a group where items have failed."""
    begin = 0
    for place, pickled in failures:
        yield values[begin:place]
        yield _instead(codec.load_error(pickled), on_error, 1)
        begin = place
    yield values[begin:]


def _instead(error: BaseException, on_error: str, items: int) -> Iterable[Any]:
    """Return what stands in the place of items that failed. A group that was lost as a whole raises once."""
    if on_error == "raise":
        return _Raising(error)
    return [error.with_traceback(None)] * items if on_error == "return" else ()


class _Raising:
    """An iterator that raises, once."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._errors:
            raise self._errors.pop().with_traceback(None)
        raise StopIteration


class Unsent:
    """Stands in the place of an item that cannot be sent, as a unit that has failed."""

    run_time_s = None

    def __init__(self, place: int, error: errors.PicklingError) -> None:
        self._exception = errors.PicklingError(f"item {place} of the map (counted from 0) cannot be sent: {error}")

    def result(self, timeout: float | None = None) -> Any:
        """Raise why it cannot be sent."""
        raise self._exception

    def cancel(self) -> None:
        """There is nothing to cancel."""


class Mapping:
    """The input of one ``map`` and what is under way of it. Owned by the thread that iterates."""

    def __init__(
        self,
        row: Queue,
        intake: Intake,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        look_ahead: int | None,
        bar: Bar | None,
    ) -> None:
        self.waiting: deque[tuple[Unit[Any] | Unsent, int]] = deque()  # in order, and how many items it has where it is a group, else 0
        self.portion: Iterable[Any] = ()  # that was yielded last
        self.bar = bar
        self.end: BaseException | None = None  # what the input has raised: the map ends with it, behind all results
        self._failed = 0  # items
        self._row = row
        self._intake = intake
        self._fn = fn
        self._look_ahead = look_ahead
        self._one = len(iterables) == 1
        self._sliced: Any = iterables[0] if self._one and type(iterables[0]) in SLICED else None
        self._begin = 0  # of what is sliced: how far it was read
        self._cut: deque[Sequence[Any]] = deque()  # pieces of groups in which an item cannot be sent; they come before what is read next
        self._placed = 0  # items that have their places in `waiting`, or were yielded
        self._items = iter(iterables[0]) if self._one else zip(*iterables)  # noqa: B905 - as the built-in map: the shortest decides
        self._may_group = look_ahead is None and intake.options == Options(name=intake.options.name)
        self._gate = row.gate
        if isinstance(intake, BoundedIntake):  # we come in by ourselves: an item that was read must not be lost at a full queue
            self._intake = intake = intake.inner
        self._groups = intake.sibling(Options(name=intake.options.name or codec.name_of(fn)))
        self._run = group.run if self._one else group.run_spread
        self._each_s: float | None = None  # the time of an item, measured
        self._measured = 0  # units
        self._yielded = 0  # items
        self._size = 1
        self._over = False

    def fill(self) -> bool:
        """Queue as much as is good; return whether anything is under way."""
        while not self._over and len(self.waiting) < self._most():
            if self._gate is not None:
                if self.waiting and not self._gate.has_room():
                    break  # the look-ahead stays inside the bound
                self._gate.enter()
                try:
                    self._fill_one()
                finally:
                    self._gate.leave()
            else:
                self._fill_one()
        return bool(self.waiting)

    def _fill_one(self) -> None:
        """Read what is to be one unit, and queue it."""
        part = self._cut.popleft() if self._cut else self._take(self._next_size())
        if not part:
            self._over = True
            return
        try:
            if len(part) > 1:
                entry = self._groups.queue(self._run, (self._fn, part), {}), len(part)
            else:
                entry = self._intake.queue(self._fn, (part[0],) if self._one else tuple(part[0]), {}), 0
        except errors.PicklingError as error:
            if not isinstance(error.__cause__, Exception):  # a signal handler's, in the middle of it
                raise
            self._cannot_send(part, error)
        else:
            self.waiting.append(entry)
            self._placed += len(part)

    def _next_size(self) -> int:
        """Return how many items the next unit has. A group grows step by step, as the first items may not be like the others."""
        if not self._may_group or self._each_s is None or self._each_s >= SHORT_S:
            return 1
        self._size = min(group_size(self._each_s), 8 * self._size)
        return self._size

    def _take(self, number: int) -> Sequence[Any]:
        """Read the next items. A slice is read in one piece, and one of a range is sent as one: neither is made of single numbers here."""
        part: Sequence[Any]
        if self._sliced is not None:
            part = self._sliced[self._begin : self._begin + number]
            self._begin += len(part)
            return part
        part = []
        try:
            part.extend(islice(self._items, number))  # where the input raises, what it gave before is kept
        except Exception as error:
            self.end, self._items = error, iter(())
        return part

    def _cannot_send(self, part: Sequence[Any], error: errors.PicklingError) -> None:
        """Halve a group until the item that cannot be sent is alone, and give that its place. Where it is the function, end the map."""
        if len(part) > 1:
            middle = len(part) // 2
            self._cut.extendleft((part[middle:], part[:middle]))
            return
        try:
            codec.dump_function(self._fn)
        except errors.PicklingError as whole:
            self.end, self._over = whole, True
            return
        self.waiting.append((Unsent(self._placed, error), 0))
        self._placed += 1

    def raise_end(self) -> None:
        """Raise what the input has raised, if it has. Nothing keeps it here: its traceback knows the frames that hold the WorkMgr."""
        error, self.end = self.end, None
        try:
            if error is not None:
                raise error
        finally:
            error = None

    def result(self, unit: Unit[Any] | Unsent, items: int, timeout: float | None) -> Any:
        """Wait for a unit; where it was a group, its worker's death says which items were in it."""
        try:
            if self.bar is None or isinstance(unit, Unsent):
                return unit.result(timeout)
            return self._result_drawing(unit, timeout, self.bar)
        except errors.WorkerHalted as error:
            if items:
                error.add_note(
                    f"the unit was a group of short items of a map, from item {self._yielded} on (counted from 0); "
                    "with look_ahead=, a timeout or retries each item is a unit of its own"
                )
            raise

    def _result_drawing(self, unit: Unit[Any], timeout: float | None, bar: Bar) -> Any:
        """Wait for a unit, and draw in the pauses."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            bar.show(self._yielded, self._failed)
            try:
                return unit.result(bar.pause_s(left))
            except TimeoutError:
                if unit.done():
                    raise
                if left == 0.0:
                    raise errors.not_in_time(f"unit {unit.label} has not ended", timeout) from None

    def note(self, unit: Unit[Any] | Unsent, items: int, failed: int) -> None:
        """A unit has ended: take its time into that of an item, and count the items that failed."""
        self._measured += 1
        self._yielded += items or 1
        self._failed += failed
        if failed and (items or type(unit) is Unsent):
            counted = items > 0 and unit._exception is not None  # the unit that was lost with its group counts for itself
            self._row.failed += failed - counted
        if unit.run_time_s is not None:
            took = unit.run_time_s / (items or 1)
            if self._each_s is None or (not items and took < self._each_s):  # the first few are slower than those that follow
                self._each_s = took
            else:
                self._each_s = (self._each_s + min(took, MOST_GROWTH * self._each_s)) / 2
        if self.bar is not None:
            self.bar.show(self._yielded, self._failed)

    def _most(self) -> int:
        """Return how many units to keep under way, by how long they take."""
        if self._look_ahead is not None:
            return self._look_ahead
        if self._may_group and (self._measured < FIRST_UNITS or self._each_s is None or self._each_s < SHORT_S):
            return GROUPS_AHEAD * self._row.max_workers
        each = int(AHEAD_S / self._row.estimate_s) if self._row.estimate_s else 0
        return min(MOST_AHEAD, self._row.max_workers * max(AHEAD_UNITS, each))


def group_size(each_s: float) -> int:
    """Return how many items to put into a group."""
    return MOST_ITEMS if each_s <= 0 else max(1, min(MOST_ITEMS, int(GROUP_S / each_s)))
