"""map: results in order, from an input that is read only as far ahead as the workers need.

An item that takes long is a unit. Short ones travel in groups, each group a unit of about `GROUP_S` of measured work: a unit costs some
microseconds, and an item may take less. Nobody has to choose a size. An exception is that of its item, and those before it are
yielded; but a worker that dies takes the group that it ran with it, and time-outs, retries and priorities are said of units: with them
each item is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from workq import errors
from workq.controller.intake import Intake
from workq.controller.records import Options, Queue
from workq.transport import codec, group
from workq.unit import Unit

T = TypeVar("T")

AHEAD_UNITS = 16  # for each worker at least, however long units take
AHEAD_S = 0.02  # of measured work for each worker, where units are short
MOST_AHEAD = 8192
FIRST_UNITS = 64  # by which the rest is judged; so few are under way at first
GROUP_S = 0.001  # of work in a group
SHORT_S = 50e-6  # an item that takes less than this travels in a group
MOST_ITEMS = 5000  # in a group
GROUPS_AHEAD = 4  # for each worker


def results(
    owner: object,
    row: Queue,
    intake: Intake,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int | None,
    timeout: float | None,
) -> Iterator[T]:
    """Yield results in order; closing the iterator cancels what is not yet yielded. The queue's ``owner`` lives as long as the iterator."""
    mapping = Mapping(row, intake, fn, iterables, look_ahead)
    waiting = mapping.waiting
    try:
        while mapping.fill():
            unit, grouped = waiting[0]
            value = mapping.result(unit, grouped, timeout)
            waiting.popleft()
            if grouped:
                values, failure = value
                mapping.measure(unit, len(values))
                yield from values
                if failure is not None:
                    raise codec.load_error(failure)
            else:
                mapping.measure(unit, 1)
                yield value
    finally:
        for unit, _ in waiting:
            unit.cancel()


class Mapping:
    """The input of one ``map`` and what is under way of it. Owned by the thread that iterates."""

    def __init__(
        self, row: Queue, intake: Intake, fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...], look_ahead: int | None
    ) -> None:
        self.waiting: deque[tuple[Unit[Any], bool]] = deque()  # in order, and whether it is a group
        self._row = row
        self._intake = intake
        self._fn = fn
        self._look_ahead = look_ahead
        self._one = len(iterables) == 1
        self._items = iter(iterables[0]) if self._one else zip(*iterables)  # noqa: B905 - as the built-in map: the shortest decides
        self._may_group = look_ahead is None and intake.options == Options(name=intake.options.name)
        self._groups = Intake(row, Options(name=intake.options.name or codec.name_of(fn)))
        self._run = group.run if self._one else group.run_spread
        self._each_s: float | None = None  # the time of an item, measured
        self._measured = 0  # units
        self._yielded = 0  # items
        self._size = 1
        self._over = False

    def fill(self) -> bool:
        """Queue as much as is good; return whether anything is under way."""
        while not self._over and len(self.waiting) < self._most():
            if self._may_group and self._each_s is not None and self._each_s < SHORT_S:
                self._size = min(group_size(self._each_s), 8 * self._size)  # not at once: the first items may not be like the others
                part = list(islice(self._items, self._size))
                if part:
                    self.waiting.append((self._groups.queue(self._run, self._fn, part), True))
            else:
                part = list(islice(self._items, 1))
                if part:
                    unit = self._intake.queue(self._fn, part[0]) if self._one else self._intake.queue(self._fn, *part[0])
                    self.waiting.append((unit, False))
            self._over = not part
        return bool(self.waiting)

    def result(self, unit: Unit[Any], grouped: bool, timeout: float | None) -> Any:
        """Wait for a unit; where it was a group, its worker's death says which items were in it."""
        try:
            return unit.result(timeout)
        except errors.WorkerHalted as error:
            if grouped:
                error.add_note(
                    f"the unit was a group of short items of a map, from item {self._yielded} on (counted from 0); "
                    "with look_ahead=, a timeout or retries each item is a unit of its own"
                )
            raise

    def measure(self, unit: Unit[Any], items: int) -> None:
        """Take the time of a unit into that of an item."""
        self._measured += 1
        self._yielded += items
        if items and unit.run_time_s is not None:
            took = unit.run_time_s / items
            if self._each_s is None or (items == 1 and took < self._each_s):  # the first few are slower than those that follow
                self._each_s = took
            else:
                self._each_s = (self._each_s + took) / 2

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
