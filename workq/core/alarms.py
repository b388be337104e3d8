"""Moments that something waits for: the next attempt of a unit, the end of its time in the queue, the next run of a recurring one.

What is to be done then is not known here. A set, a drop and a ring cost the logarithm of how many alarms there are.
"""

from __future__ import annotations

import heapq

from workq.core.ids import AlarmId

SPARE = 64  # dropped alarms that may stay in the heap, beyond as many as there are others


class Alarms:
    """The alarms of one scheduler.

    >>> alarms = Alarms()
    >>> alarms.set(AlarmId(1), 2.0)
    >>> alarms.set(AlarmId(2), 1.0)
    >>> alarms.next_at(), alarms.take_due(1.5), alarms.next_at()
    (1.0, [2], 2.0)
    """

    def __init__(self) -> None:
        self._at: dict[AlarmId, float] = {}
        self._heap: list[tuple[float, AlarmId]] = []  # dropped ones too, until they come to the top or are too many

    def __len__(self) -> int:
        return len(self._at)

    def set(self, alarm: AlarmId, at: float) -> None:
        """Have an alarm ring at this time; it is set once."""
        assert alarm not in self._at, f"alarm {alarm} is set already"
        self._at[alarm] = at
        heapq.heappush(self._heap, (at, alarm))

    def drop(self, alarm: AlarmId) -> None:
        """Forget an alarm. One that has rung meanwhile is no harm."""
        if self._at.pop(alarm, None) is not None and len(self._heap) > 2 * len(self._at) + SPARE:
            self._heap = [(at, other) for other, at in self._at.items()]
            heapq.heapify(self._heap)

    def next_at(self) -> float | None:
        """Return when the next one is due, or None."""
        while self._heap and self._heap[0][1] not in self._at:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[AlarmId]:
        """Return those that are due, in the order of their times, and forget them."""
        due: list[AlarmId] = []
        while (at := self.next_at()) is not None and at <= now:
            _, alarm = heapq.heappop(self._heap)
            del self._at[alarm]
            due.append(alarm)
        return due
