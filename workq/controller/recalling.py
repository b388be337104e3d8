"""Units that wait behind a long one in a worker are taken back: soon where another worker could run them, else later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workq.controller import facts
from workq.controller.records import Queue, Worker

if TYPE_CHECKING:
    from workq.controller.loop import Loop


class Recalls:
    """When the controller looks at what workers hold. Belongs to its thread.

    Attributes:
        due: When it looks again, seconds; None: not before somebody asks.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._dispatcher = loop.dispatcher
        self.due: float | None = None

    def is_due(self, now: float) -> bool:
        """Return whether it is time, or something has changed."""
        return (self.due is not None and self.due <= now) or self._possible()

    def look_later(self, now: float) -> None:
        """Somebody else has the lead: whoever leads is left alone until it may be time."""
        if self._dispatcher.watched and self.due is None:
            self.due = now + min(self._loop.settings.long_after_s, self._loop.settings.silent_after_s)

    def look(self, now: float) -> None:
        """Take back units that were sent behind one that turns out long: soon where another worker could run them, else later.

        Later, as nobody can run them yet; but the core has to know that they wait, or it would not look whether the long one is blocked,
        and units of a higher priority come before them.
        """
        due = []
        for worker in self._holders():
            queue = worker.queue
            moment = self._moment(worker, now)
            if moment > now:
                due.append(moment)
                continue
            with self._dispatcher.lock:
                if not queue.estimate_s and (running := self._dispatcher.running(worker)) is not None:
                    queue.estimate_s = now - running[1]  # at least; else the next worker would be sent as many again
                self._dispatcher.recall(worker)
                self._dispatcher.dispatch(queue)
            self._loop.attention.add(queue)
        if not due and self._dispatcher.watched:  # one more look before we say that we do not look: to be asked again costs a wake-up
            last = now + self._loop.settings.long_after_s if self.due is None else self.due
            due = [last] if last > now else []
        self.due = min(due, default=None)
        self._dispatcher.watched = bool(due)

    def _possible(self) -> bool:
        """Return whether another worker could run what one holds behind a unit, and has nothing else: then it is taken back soon."""
        return any(not worker.queue.depth() and facts.could_run_elsewhere(self._loop, worker.queue, worker) for worker in self._holders())

    def _holders(self) -> list[Any]:
        """Return the workers that hold units which they have not begun; the oldest units first."""
        holders = [
            worker
            for worker in self._dispatcher.workers
            if (queue := worker.queue) is not None and not (worker.limited or queue.paused) and facts.holds_more_than_one(worker)
        ]
        return sorted(holders, key=facts.oldest_held) if len(holders) > 1 else holders

    def _moment(self, worker: Any, now: float) -> float:
        running, settings = self._dispatcher.running(worker), self._loop.settings
        if worker.queue.depth():  # whoever comes free has something to do: it is about the order alone
            if running is None:
                return now + settings.long_after_s
            return float(running[1] + (settings.long_after_s if worker.queue.estimate_s else settings.recall_after_s))
        if running is None:  # it has begun nothing of what it was sent: about to wake, or stopped by a signal
            reading_s = sum(batch.size_bytes for batch in tuple(worker.batches)) / settings.slowest_bytes_per_s
            return float(worker.silent_since(now) + settings.silent_after_s + reading_s)
        if facts.could_run_elsewhere(self._loop, worker.queue, worker):
            return float(running[1] + settings.recall_after_s)
        return float(running[1] + settings.long_after_s)

    def take_back(self, worker: Worker) -> None:
        """Take back what a worker has not begun: it is blocked, or is to come free. With the lead."""
        with self._dispatcher.lock:
            if worker.batches and not worker.limited:
                self._dispatcher.recall(worker)
            if worker.queue is not None:
                worker.queue.told = 0
                self._dispatcher.dispatch(worker.queue)
                self._loop.attention.add(worker.queue)

    def hold_back(self, queue: Queue) -> None:
        """A queue was paused: take back what its workers have not begun. With the lead."""
        with self._dispatcher.lock:
            for worker in queue.workers:
                if worker.batches and not worker.limited:
                    self._dispatcher.recall(worker)


__all__ = ["Recalls"]
