"""A backlog: a deque to which any thread appends at any time, without a lock, a finalizer in the middle of our own steps among them.

So whatever is done with the units that wait there is done by single calls of C: no unit is in no place between two steps of ours. Others
may take units off its front meanwhile; then what was looked up before is a little off, and nothing is lost by it.
"""

from __future__ import annotations

from collections import deque
from typing import Any


def place_of(backlog: deque[Any], number: int) -> int:
    """Return where the unit of this number belongs: behind those at the front that were queued before it and have come back already.

    They are few, and stand in the order of their numbers: the search goes from the front in growing steps, and halves the last one.
    """
    low, high = 0, 0
    try:
        while backlog[high].id < number:
            low, high = high + 1, 2 * high + 1
    except IndexError:
        high = max(low, len(backlog))
    while low < high:
        middle = (low + high) // 2
        try:
            earlier = backlog[middle].id < number
        except IndexError:  # somebody takes units off it
            earlier = False
        low, high = (middle + 1, high) if earlier else (low, middle)
    return low


def put_back(backlog: deque[Any], unit: Any) -> None:
    """Put a unit where it belongs again."""
    backlog.insert(place_of(backlog, unit.id), unit)  # one call of C


__all__ = ["place_of", "put_back"]
