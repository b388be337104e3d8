"""What is to be done at some time. The core knows the times; here is what is done when it says that one has come."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from workq.core.events import AlarmDropped, AlarmId, AlarmSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.loop import Loop


class Alarms:
    """``_what`` may be added to and taken from by any thread; what it holds is done in the controller's, with lead and lock."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._what: dict[AlarmId, Callable[[], object]] = {}
        self._ids = count(1)

    def set(self, at: float, what: Callable[[], object]) -> AlarmId:
        """Have something short done at this time, ``time.monotonic()`` seconds. Any thread."""
        alarm = AlarmId(next(self._ids))
        self._what[alarm] = what
        self._loop.tell(AlarmSet(alarm, at))
        return alarm

    def drop(self, alarm: AlarmId) -> None:
        """It need not be done any more. Any thread."""
        if self._what.pop(alarm, None) is not None:
            self._loop.tell(AlarmDropped(alarm))

    def ring(self, alarm: AlarmId) -> None:
        """The time has come."""
        what = self._what.pop(alarm, None)
        if what is not None:
            what()
