"""When a recurring unit runs next: by a period on the clock that never jumps, or by a calendar on the wall's clock, which may."""

from __future__ import annotations

from typing import NamedTuple

LOOK_S = 60.0  # a calendar's next time is looked at again after so long, as the clock on the wall may have been set
SET_BACK_S = 3 * 3600.0  # a clock that was set back by less repeats no run; by more, it is taken for a new time


class Beat(NamedTuple):
    """The next time of a period.

    Attributes:
        at: When it is.
        missed: How many times have passed since the last one that was due, for which nothing was done.
    """

    at: float
    missed: int


def next_beat(due: float, period_s: float, now: float) -> Beat:
    """Return the first time after now on the grid on which ``due`` lies: late runs do not shift those that follow.

    >>> next_beat(due=10.0, period_s=2.0, now=10.1), next_beat(due=10.0, period_s=2.0, now=15.0)
    (Beat(at=12.0, missed=0), Beat(at=16.0, missed=2))
    """
    missed = max(0, int((now - due) // period_s))
    return Beat(due + (missed + 1) * period_s, missed)


def due_by_calendar(due: float, now: float, fresh: float) -> float:
    """Return when to run next after a look at the wall's clock; now or before: run.

    Args:
        due: When it was to run.
        now: What the clock shows.
        fresh: What the calendar says if it is asked anew.
    """
    return fresh if due - now > SET_BACK_S and fresh < due else due


def look_at(due: float, wall_now: float, now: float) -> float:
    """Return when, on the clock that never jumps, to look at the calendar: at the time, or in a while."""
    return now + min(LOOK_S, max(0.0, due - wall_now))
