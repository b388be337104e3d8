"""When a worker is worn, and whether another can be started before it goes.

A worn worker serves on until its successor is ready, so that no unit waits for the change; where there is no room for both it goes
first. Each limit is drawn a little lower for each worker, so that those that were started together do not go together.
"""

from __future__ import annotations

from workq.core.events import Limits
from workq.core.fact import fact

JITTER = 0.1  # a limit is lowered by up to this share
AHEAD = 0.1  # the successor is started so much before the last unit


@fact
class Wear:
    """How much one worker may go through; None: any amount.

    Attributes:
        units: It takes no unit beyond so many.
        early_units: Its successor is started after so many.
        age_s: It is replaced when it is so old.
        memory_bytes: It is replaced when it holds so much.
    """

    units: int | None = None
    early_units: int | None = None
    age_s: float | None = None
    memory_bytes: int | None = None

    @property
    def endless(self) -> bool:
        """It is never worn."""
        return self.units is None and self.age_s is None and self.memory_bytes is None

    def is_worn(self, *, units: int, age_s: float, memory_bytes: int) -> bool:
        """Tell whether a worker that was given so many units, is so old and holds so much memory is to be replaced."""
        many = self.early_units is not None and units >= self.early_units
        old = self.age_s is not None and age_s >= self.age_s
        large = self.memory_bytes is not None and memory_bytes >= self.memory_bytes
        return many or old or large


def draw(max_units: int | None, max_age_s: float | None, max_memory_bytes: int | None, luck: float) -> Wear:
    """Return the limits of one worker. ``luck`` is a random number from 0 up to 1.

    The number of units is lowered by a tenth at most, and not at all below ten; memory is a property of the work, and is not drawn.

    >>> draw(100, 60.0, None, luck=0.5)
    Wear(units=95, early_units=86, age_s=57.0, memory_bytes=None)
    """
    share = 1 - JITTER * luck
    units = None if max_units is None else max_units - int(max_units * JITTER * luck)
    early = None if units is None else max(1, units - int(units * AHEAD))
    return Wear(units, early, None if max_age_s is None else max_age_s * share, max_memory_bytes)


def room_for_successor(limits: Limits, *, living: int, removed: bool) -> bool:
    """Tell whether a worker can be started before the one that it succeeds has gone."""
    return not removed and (limits.max_total_workers is None or living < limits.max_total_workers)
