"""Judges whether workers are blocked, from outside: only while units wait and every worker is busy. The verdict is the core's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workq.core.blocked import Judge, Look
from workq.process import probe

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Worker


class BlockedJudge:
    """Looks at the busy workers of the categories that the core names. Belongs to the controller's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._categories: set[str] = set()
        self._judges: dict[int, tuple[int, Judge, probe.Probe]] = {}  # by worker: the unit's number, its judge, our eyes
        self.next_look: float | None = None

    def sample(self, category: str, on: bool) -> None:
        """Begin or cease to look at a category."""
        if on:
            self._categories.add(category)
            self.next_look = time.monotonic() + self._loop.settings.sample_s
        else:
            self._categories.discard(category)
            if not self._categories:
                self._stop()

    def _stop(self) -> None:
        self.next_look = None
        for _, _, eyes in self._judges.values():
            eyes.close()
        self._judges.clear()

    def look(self, now: float) -> None:
        """Look, if it is time. The verdicts are kept with the workers; facts.py tells the core."""
        if self.next_look is None or now < self.next_look:
            return
        self.next_look = now + self._loop.settings.sample_s
        waiting = self._where_units_wait()
        for number in [number for number in self._judges if number not in self._loop.by_number]:
            self._judges.pop(number)[2].close()  # its worker has ended
        for worker in self._loop.dispatcher.workers:
            if worker.category in waiting and worker.ready and not worker.exited:
                worker.judged_blocked = self._see(worker)

    def _where_units_wait(self) -> set[str]:
        """Return the categories that are to be looked at, and of which units still wait: whoever reads sends units too.

        Of queues of which nothing waits any more the core is told, and has us look no more.
        """
        taken = [queue for queue in self._loop.believed_waiting if not queue.depth()]
        self._loop.attention.update(taken)
        return {queue.category for queue in self._loop.believed_waiting.difference(taken)} & self._categories

    def _see(self, worker: Worker) -> bool:
        running = self._loop.dispatcher.running(worker)
        if running is None:
            return False
        if time.monotonic() - running[1] < self._loop.settings.sample_s:  # its units are short: it gets on, and to look takes time
            return False
        number = running[0].id
        known = self._judges.get(int(worker.number))
        if known is None or known[0] != number:
            try:
                eyes = known[2] if known is not None else probe.open_probe(worker.pid)
            except OSError:  # it has just ended
                return False
            known = self._judges[int(worker.number)] = (number, Judge(int(self._loop.settings.sample_s * 1e9)), eyes)
        seen = known[2].read()
        if seen is None:
            return False
        return known[1].see(Look(time.monotonic_ns(), seen.state, seen.run_ns, seen.tree_ticks))
