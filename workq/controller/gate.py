"""Back-pressure: how many units of a queue may wait (``max_pending``), and what becomes of one that is too many.

The gate stands before the intake, so that a queue without a bound pays nothing for it. Any thread. It counts what waits in the queue,
and who is just coming in (``_entering``, under ``_lock``); whoever has to wait for room waits as for a unit, and reads results meanwhile:
so it may be the very thread that callbacks run in.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from workq.controller.intake import Intake
from workq.controller.records import Options, Queue
from workq.errors import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.unit import Unit

WHEN_FULL = ("block", "raise", "drop_oldest")


class Gate:
    """Lets units into one queue."""

    def __init__(self, queue: Queue, max_pending: int, when_full: str, timeout_s: float | None) -> None:
        self._queue = queue
        self.max_pending = max_pending
        self.when_full = when_full
        self._timeout_s = timeout_s
        self._entering = 0
        self._waiting = 0
        self._lock = threading.RLock()  # a signal handler may queue while its own thread comes in; held for no wait

    def has_room(self) -> bool:
        """Return whether one more may come in; also where the queue is closed, which refuses it."""
        queue, most = self._queue, self.max_pending - self._entering
        if queue.closed or queue.controller.pending_of(queue) < most:
            return True
        return bool(queue.ended_inside) and queue.controller.waiting_of(queue) < most

    def enter(self) -> None:
        """Come in: now, once there is room, or not at all. Who has come in has to leave, when the unit is in the queue."""
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not self._come_in():
            if self.when_full == "raise":
                raise QueueFull(f"queue {self._queue.name} is full: {self._shown()} (max_pending)")
            if self.when_full == "drop_oldest" and self._queue.controller.drop_oldest(self._queue, self._why()):
                continue
            self._wait(deadline)

    def leave(self) -> None:
        """The unit is in the queue, or will not be."""
        with self._lock:
            self._entering -= 1
        if self._waiting:  # where nothing was queued after all there is room, and nothing else tells of it
            self._queue.controller.wake_waiters()

    def _come_in(self) -> bool:
        with self._lock:
            if not self.has_room():
                return False
            self._entering += 1
            return True

    def _shown(self) -> str:
        return "1 unit waits" if self.max_pending == 1 else f"{self.max_pending} units wait"

    def _why(self) -> str:
        return f"queue {self._queue.name} was full (max_pending={self.max_pending}, when_full='drop_oldest'), and it had waited longest"

    def _wait(self, deadline: float | None) -> None:
        """Wait for room. Ctrl-C breaks it off, and nothing is queued then."""
        controller = self._queue.controller
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        crowded: list[Any] = controller.crowded()
        crowded.append(self)  # an item for each who waits
        self._waiting += 1
        try:
            controller.wait(self.has_room, left, "no room", None, self._queue)
        except TimeoutError:
            waited = f"{self._shown()} (max_pending), and there was no room within {self._timeout_s:g} s"
            raise QueueFull(f"queue {self._queue.name} is full: {waited}") from None
        finally:
            self._waiting -= 1
            crowded.remove(self)


class BoundedIntake(Intake):
    """The intake of a queue that has a gate: another one, behind the gate."""

    def __init__(self, inner: Intake, gate: Gate) -> None:
        self.inner = inner
        self.gate = gate
        self.options = inner.options

    def queue(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Unit[Any]:
        """Let a unit in, and queue it."""
        self.gate.enter()
        try:
            return self.inner.queue(function, args, kwargs)
        finally:
            self.gate.leave()

    def detach(self, stand_in: Any) -> None:
        """Refuse from now on: the queue was given away."""
        self.inner.detach(stand_in)

    def sibling(self, options: Options) -> Intake:
        """Return an intake of the same kind with other options."""
        return BoundedIntake(self.inner.sibling(options), self.gate)


__all__ = ["WHEN_FULL", "BoundedIntake", "Gate"]
