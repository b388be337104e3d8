"""Limits of single units: memory and CPU time, looked at from outside while they run. Belongs to the controller's thread, with the lead.

From outside, because code that keeps the interpreter's lock would keep a thread inside from looking. What the worker held and had used
when the unit began stands on its board (`worker/fitting.py`), so that the unit is charged for what it takes itself, from its first
instant. What is counted: resident memory and CPU time of the worker and of all processes below it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from workq.core import limits
from workq.core.events import StopReason
from workq.core.limits import Verdict
from workq.errors import UnitCpuExceeded, UnitMemoryExceeded
from workq.outcome import PENDING
from workq.process import probe
from workq.transport.board import MEASURED, STARTED, UNIT_CPU, UNIT_RSS

if TYPE_CHECKING:
    from workq.controller.loop import Loop
    from workq.controller.records import Options, Worker
    from workq.unit import Unit

MEBIBYTE = 1 << 20


class UnitLimits:
    """The clock of units with limits."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.next_look: float | None = None

    def due(self, now: float) -> bool:
        """Return whether units should be looked at."""
        return self.next_look is not None and self.next_look <= now

    def watch(self) -> None:
        """A unit with limits was sent: look soon. Under the dispatch lock, any thread."""
        due = time.monotonic() + self._loop.settings.limits_look_s
        if self.next_look is None or due < self.next_look:
            self.next_look = due
            self._loop.ring()

    def check(self, now: float) -> None:
        """Stop the units that have taken too much. With the lead."""
        if not self.due(now):
            return
        self.next_look = None
        for worker in self._loop.dispatcher.workers:
            if any(unit is not None and unit.call.limited for batch in tuple(worker.batches) for unit in batch.units[batch.at :]):
                due = now + self._check_worker(worker)
                self.next_look = due if self.next_look is None else min(due, self.next_look)

    def _check_worker(self, worker: Worker) -> float:
        """Look at a worker that has units with limits; return after how many seconds to look again."""
        soon = self._loop.settings.limits_look_s
        running = self._loop.dispatcher.running(worker)
        unit = running[0] if running is not None else None
        if unit is None or unit.value is not PENDING or not unit.call.limited or worker.words[MEASURED] != worker.words[STARTED]:
            return soon  # it has not begun, or has ended just now
        options: Options = unit.call.options
        left_s = None
        if options.memory_bytes is not None:
            self._check_memory(worker, unit, probe.tree_rss_bytes(worker.pid) - worker.words[UNIT_RSS], options.memory_bytes)
        if options.cpu_s is not None:
            used_s = (probe.tree_cpu_ns(worker.pid) - worker.words[UNIT_CPU]) / 1e9
            left_s = options.cpu_s - used_s
            if limits.judge_cpu(used_s, options.cpu_s) is Verdict.STOP:
                error = UnitCpuExceeded(f"unit {unit.label}", options.cpu_s, used_s)
                self._loop.stops.stop(unit, "it took too much CPU time", StopReason.CPU, error)
        return limits.next_look_s(left_s, os.cpu_count() or 1, None if options.memory_bytes is None else soon)

    def _check_memory(self, worker: Worker, unit: Unit[Any], used: int, most: int) -> None:
        verdict = limits.judge_memory(used, most)
        if verdict is Verdict.FINE or worker.words[MEASURED] != worker.words[STARTED]:  # looked at again: it may have ended meanwhile
            return
        error = UnitMemoryExceeded(f"unit {unit.label}", most, used)
        self._loop.stops.stop(unit, "it took too much memory", StopReason.MEMORY, error)
        extra = unit.need_extra()
        if isinstance(extra.exceeded, UnitMemoryExceeded) and used > extra.exceeded.used_bytes:
            extra.exceeded = error  # it goes on taking: the most that was seen tells more than what it was asked to end for
        if verdict is Verdict.KILL:
            why = f"holds {used / MEBIBYTE:.0f} MiB of memory, far more than its limit of {most / MEBIBYTE:g} MiB"
            self._loop.command(self._loop.stops.kill_now, unit, why)  # when the core knows of it
