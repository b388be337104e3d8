"""A clock that stands still until somebody moves it, with alarms that ring in order as it passes them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class ManualClock:
    """Time as a test decides.

    Example:
        >>> clock = ManualClock()
        >>> clock.call_at(2.0, lambda: print("two"))
        >>> clock.call_at(1.0, lambda: print("one"))
        >>> clock.advance(1.5)
        one
        >>> clock.now, clock.next_alarm()
        (1.5, 2.0)
    """

    def __init__(self, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self.now = now
        self.wall_ahead = wall - now  # what the clock on the wall shows more; set it, and that clock jumps
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()  # alarms of the same time ring in the order in which they were set

    def monotonic(self) -> float:
        """Return the time, as `time.monotonic` does."""
        return self.now

    def time(self) -> float:
        """Return the time on the wall, as `time.time` does."""
        return self.now + self.wall_ahead

    def call_at(self, when: float, alarm: Callable[[], None]) -> None:
        """Call `alarm` when the time reaches `when`; at the next move of the clock if that is over."""
        heapq.heappush(self._alarms, (when, next(self._order), alarm))

    def call_after(self, seconds: float, alarm: Callable[[], None]) -> None:
        """Call `alarm` so many seconds from now."""
        self.call_at(self.now + seconds, alarm)

    def next_alarm(self) -> float | None:
        """Return the time of the earliest alarm, or None."""
        return self._alarms[0][0] if self._alarms else None

    def advance(self, seconds: float) -> None:
        """Let time pass, and ring what lies in it."""
        self.move_to(self.now + seconds)

    def move_to(self, when: float) -> None:
        """Let time pass until `when`, and ring what lies before it or at it."""
        while self._alarms and self._alarms[0][0] <= when:
            self.ring()
        self.now = max(self.now, when)

    def ring(self) -> None:
        """Move to the earliest alarm and ring it alone, even if others are due at the same time."""
        at, _, alarm = heapq.heappop(self._alarms)
        self.now = max(self.now, at)
        alarm()
