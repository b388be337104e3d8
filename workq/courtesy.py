"""How many ended units a coroutine is given before its loop serves others: to await such a unit does not wait, so nothing else would."""

from __future__ import annotations

import threading

AT_ONCE = 100  # ends of units that a loop is given in one turn


class _Given(threading.local):
    """How many a thread's coroutines were given since they last gave way. A loop is its thread's."""

    count = 0


_given = _Given()


def is_due() -> bool:
    """Count one that is given; return whether the loop should serve others first."""
    count = _given.count + 1
    _given.count = count % AT_ONCE
    return count == AT_ONCE
