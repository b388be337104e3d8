"""A backlog: a deque to which any thread appends at any time, without a lock, a finalizer in the middle of our own steps among them.

So whatever is done with the units that wait there is done by single calls of C: no unit is in no place between two steps of ours. Others
may take units off its front meanwhile; then what was looked up before is a little off, and nothing is lost by it.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, compress, repeat, starmap
from typing import Any

from workq.outcome import PENDING

SWEPT_FROM = 64  # ended units between open ones are not worth a sweep before there are so many, and more of them than open ones


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


def trim(backlog: deque[Any]) -> int:
    """Take units that have ended (they were cancelled) off both ends, and return how many; nobody takes off open ones meanwhile.

    It is the unit that is taken off, and not whatever stands at that end: somebody may have put another there since we looked.
    """
    number = 0
    try:
        while (unit := backlog[0]).value is not PENDING:
            backlog.remove(unit)  # the first one that it looks at
            number += 1
        while (unit := backlog[-1]).value is not PENDING:
            backlog.rotate(1)
            if backlog[0] is unit:
                backlog.remove(unit)
                number += 1
            else:
                backlog.rotate(-1)  # it was appended just now
    except (IndexError, ValueError):  # it is empty; another thread has taken it off
        pass
    return number


def sweep(backlog: deque[Any]) -> None:
    """Take out all units that have ended. Nobody takes off open ones, nor puts any in front, meanwhile.

    One call of C takes off whatever stood there, of which `compress` lets nothing through, and puts back in front what is open: whoever
    looks finds each unit, and what is appended meanwhile stays behind.
    """
    stood_there = backlog.copy()
    still_open = [unit for unit in stood_there if unit.value is PENDING]
    taken_off = compress(starmap(backlog.popleft, repeat((), len(stood_there))), repeat(False))
    try:
        backlog.extendleft(chain(taken_off, reversed(still_open)))
    except IndexError:  # fewer than there were: nothing was put back yet
        backlog.extendleft(reversed(still_open))


def is_worth_a_sweep(ended: int, depth: int) -> bool:
    """Return whether so many ended units between the open ones of a queue are to be swept out: then each costs as much as one look."""
    return ended > SWEPT_FROM and 2 * ended > depth


__all__ = ["is_worth_a_sweep", "place_of", "put_back", "sweep", "trim"]
