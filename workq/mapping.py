"""map: results in order, from an input that is read only as far ahead as the workers need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from workq.controller.intake import Intake
from workq.controller.records import Queue
from workq.unit import Unit

T = TypeVar("T")

AHEAD_UNITS = 16  # for each worker at least, however long units take
AHEAD_S = 0.02  # of measured work for each worker, where units are short
MOST_AHEAD = 8192


def results(
    row: Queue, intake: Intake, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], look_ahead: int | None, timeout: float | None
) -> Iterator[T]:
    """Yield results in order; closing the iterator cancels what is not yet yielded."""
    items = zip(*iterables)  # noqa: B905 - as the built-in map: the shortest decides
    waiting: deque[Unit[T]] = deque()
    try:
        for arguments in items:
            waiting.append(intake.queue(fn, *arguments))
            while len(waiting) >= (look_ahead or ahead(row)):
                yield _take(waiting, timeout)
        while waiting:
            yield _take(waiting, timeout)
    finally:
        for unit in waiting:
            unit.cancel()


def _take(waiting: deque[Unit[T]], timeout: float | None) -> T:
    result = waiting[0].result(timeout)
    waiting.popleft()
    return result


def ahead(row: Queue) -> int:
    """Return how many units to keep under way, by how long they take."""
    each = int(AHEAD_S / row.estimate_s) if row.estimate_s else 0
    return min(MOST_AHEAD, row.max_workers * max(AHEAD_UNITS, each))
