"""What is counted, besides what each queue counts for itself: by category, and of queues that are gone. No counter ever falls.

A queue's times are noted when a batch of its units has been read, once for the batch: the hot path pays nothing for each unit.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import repeat, starmap
from operator import sub
from typing import TYPE_CHECKING, Any, TypeAlias

from workq.core.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workq.controller.records import Batch, Queue, Worker
    from workq.unit import Unit

EXACT_NS = 5_000_000  # a batch that took longer is noted unit by unit; in a shorter one each unit counts as the mean
RATE_SLOTS = 8
RATE_SLOT_BITS = 30  # a slot of the rate is 2**30 ns
MOST_LATER = 16  # lone units whose times were not yet taken in
MOST_ENDED = 256  # queues that are gone, and not yet added up
MOST_FUNCTIONS = 1000  # whose usual times are remembered


LoneTimes: TypeAlias = "tuple[QueueTimes, Times, int, int, int]"  # its queue's, its function's; when it was queued, began and ended


class QueueTimes:
    """The times of one queue's units, or of many queues together. Noted by whoever has the lead.

    Attributes:
        wait: From when each was queued until it began.
        run: From its begin to its end. Of a batch that took less than ``EXACT_NS`` both are means of the batch.
        busy_ns: How long workers were in its units.
        first_ns: When the first batch began; 0: none has.
        slot, counts: How many ended in each of the last slots of time, for the rate.
    """

    __slots__ = ("busy_ns", "counts", "first_ns", "run", "slot", "wait")

    def __init__(self) -> None:
        self.wait = Times()
        self.run = Times()
        self.busy_ns = 0
        self.first_ns = 0
        self.slot = 0
        self.counts = [0] * RATE_SLOTS

    def note_rate(self, number: int, ended_ns: int) -> None:
        """Take units into the rate of the last seconds."""
        slot, counts = ended_ns >> RATE_SLOT_BITS, self.counts
        if slot != self.slot:
            for over in range(max(self.slot + 1, slot - RATE_SLOTS + 1), slot + 1):
                counts[over % RATE_SLOTS] = 0
            self.slot = max(slot, self.slot)
        counts[slot % RATE_SLOTS] += number

    def per_second(self, now_ns: int) -> float:
        """Return how many units ended in each of the last seconds, up to eight, on average."""
        slot = now_ns >> RATE_SLOT_BITS
        first = slot - RATE_SLOTS + 1
        number = sum(self.counts[each % RATE_SLOTS] for each in range(max(first, self.slot - RATE_SLOTS + 1), self.slot + 1))
        since_ns = max(first << RATE_SLOT_BITS, self.first_ns)
        return number / ((now_ns - since_ns) / 1e9) if number and now_ns > since_ns else 0.0

    def plus(self, other: QueueTimes) -> QueueTimes:
        """Return both together."""
        both = QueueTimes()
        both.slot = max(self.slot, other.slot)
        for each in (self, other):
            for slot in range(max(each.slot, both.slot) - RATE_SLOTS + 1, each.slot + 1):
                both.counts[slot % RATE_SLOTS] += each.counts[slot % RATE_SLOTS]
        both.wait, both.run = self.wait.plus(other.wait), self.run.plus(other.run)
        both.busy_ns = self.busy_ns + other.busy_ns
        both.first_ns = min(self.first_ns or other.first_ns, other.first_ns or self.first_ns)
        return both


def note_batch(worker: Worker, batch: Batch, begun_ns: int, ended_ns: int) -> None:
    """Take the times of a batch that has ended into those of its queue, and of its function. Under the lead."""
    units, times, took_ns = batch.units, batch.queue.times, ended_ns - begun_ns
    ran = len(units) - batch.skipped
    first, last = units[0], units[-1]
    times.busy_ns += took_ns
    if not times.first_ns:
        times.first_ns = begun_ns
    if ran <= 0:
        return
    if first is None or last is None or took_ns > EXACT_NS or took_ns < 0:
        for unit in units:
            if unit is not None and unit.ended_ns and unit.worker_record is worker:
                _note_unit(times, unit)
    else:
        each_ns = took_ns // ran
        bucket, run = each_ns.bit_length(), times.run
        run.buckets[bucket] += ran
        run.total_ns += took_ns
        first.call.usual.buckets[bucket] += ran
        times.wait.note((begun_ns - first.queued_ns + ended_ns - each_ns - last.queued_ns) // 2, ran)
    if ended_ns >> RATE_SLOT_BITS == times.slot:
        times.counts[times.slot % RATE_SLOTS] += ran
    else:
        times.note_rate(ran, ended_ns)


def note_lone(later: deque[LoneTimes]) -> None:
    """Take in the times of units that were alone: they are on the way of lone round trips, and noted some at a time, by who waits anyhow.

    Any thread. What is one queue's and one function's is added up in C.
    """
    taken: list[LoneTimes] = []
    try:
        taken.extend(starmap(later.popleft, repeat((), len(later))))
    except IndexError:  # somebody else takes them as well
        pass
    while taken:
        times, usual = taken[0][:2]
        alike = [each for each in taken if each[0] is times and each[1] is usual]
        taken = [each for each in taken if each[0] is not times or each[1] is not usual] if len(alike) < len(taken) else []
        _note_alike(times, usual, alike)


def _note_alike(times: QueueTimes, usual: Times, alike: list[LoneTimes]) -> None:
    """Take in lone units of one function and one queue. No call returns within a line that changes a number: other threads do too."""
    _, _, queued, begun, ended = zip(*alike, strict=True)
    run, wait = times.run, times.wait
    ran, waited, used = run.buckets, wait.buckets, usual.buckets
    for bucket in map(_bits, map(sub, ended, begun)):
        ran[bucket] += 1
        used[bucket] += 1
    for bucket in map(_bits, map(sub, begun, queued)):
        waited[bucket] += 1
    begun_ns = sum(begun)
    took_ns, waited_ns, number = sum(ended) - begun_ns, begun_ns - sum(queued), len(alike)
    run.total_ns += took_ns
    wait.total_ns += waited_ns
    times.busy_ns += took_ns
    times.first_ns = min(times.first_ns or begun[0], begun[0])  # a batch that came after them may have been noted before
    if ended[0] >> RATE_SLOT_BITS == ended[-1] >> RATE_SLOT_BITS == times.slot:
        times.counts[times.slot % RATE_SLOTS] += number
    else:
        for ended_ns in ended:
            times.note_rate(1, ended_ns)


_bits = int.bit_length


def note_unit(unit: Unit[Any]) -> None:
    """Take in one unit that has ended otherwise: with its worker, or where there are no workers."""
    times = unit.call.queue.times
    times.busy_ns += max(0, unit.ended_ns - unit.started_ns)
    if not times.first_ns:
        times.first_ns = unit.started_ns
    _note_unit(times, unit)
    times.note_rate(1, unit.ended_ns)


def _note_unit(times: QueueTimes, unit: Unit[Any]) -> None:
    took_ns = unit.ended_ns - unit.started_ns
    times.run.note(took_ns)
    unit.call.usual.note(took_ns)
    times.wait.note(unit.started_ns - unit.queued_ns)


SUMS = ("done", "failed", "cancelled", "timed_out", "lost", "bytes_down", "bytes_up")


class Totals:
    """The counters of one queue, or of many together. No dataclass: those take longer to make than all else here."""

    __slots__ = (*SUMS, "peak_depth", "times")

    done: int
    failed: int
    cancelled: int
    timed_out: int
    lost: int
    bytes_down: int
    bytes_up: int

    def __init__(self, times: QueueTimes, peak_depth: int = 0) -> None:
        self.times = times
        self.peak_depth = peak_depth
        for name in SUMS:
            setattr(self, name, 0)

    @classmethod
    def of(cls, queue: Queue) -> Totals:
        """Return a queue's counters as they are now."""
        totals = cls(queue.times, max(queue.peak_depth, queue.depth()))
        for name in SUMS:
            setattr(totals, name, getattr(queue, name))
        return totals

    def plus(self, other: Totals) -> Totals:
        """Return both together: sums, and the higher of two peaks."""
        both = Totals(self.times.plus(other.times), max(self.peak_depth, other.peak_depth))
        for name in SUMS:
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both


class Tallies:
    """The counters of one controller."""

    def __init__(self) -> None:
        self.workers: dict[str, dict[str, int]] = {}  # by category: what has become of workers; the controller's thread writes
        self.halts: dict[str, dict[str, int]] = {}  # by category: how often they ended by themselves, by reason
        self.worker_ns: dict[str, int] = {}  # by category: how long workers that are gone were there
        self.usual: dict[tuple[str, int], Times] = {}  # by function: how long its units take; any thread adds
        self._ended: deque[tuple[str, Totals]] = deque()  # of queues that are gone, by category; any thread appends
        self._past: dict[str, Totals] = {}
        self._lock = threading.RLock()

    def count(self, category: str, what: str) -> None:
        """Count something that has happened to a worker. The controller's thread."""
        counts = self.workers.setdefault(category, {})
        counts[what] = counts.get(what, 0) + 1

    def count_halt(self, category: str, reason: str) -> None:
        """Count a worker that ended by itself. The controller's thread."""
        counts = self.halts.setdefault(category, {})
        counts[reason] = counts.get(reason, 0) + 1
        self.count(category, "halted")

    def usual_of(self, name: str, pickled: bytes) -> Times:
        """Return the times of a function, whichever queues its units are of."""
        usual = self.usual.setdefault((name, hash(pickled)), Times())
        if len(self.usual) > MOST_FUNCTIONS:
            self.usual.pop(next(iter(self.usual)), None)
        return usual

    # ------------------------------------------------------------ queues that are gone

    def hand_over(self, queue: Queue) -> None:
        """A queue is about to vanish: keep what it has counted. Any thread, also in the middle of anything."""
        if Totals is not None:  # else the interpreter ends, and our names are gone
            self._ended.append((queue.category, Totals.of(queue)))

    def add_up(self, later: deque[LoneTimes]) -> None:
        """Add what queues that are gone have counted to the sums of their categories, where there are many of them."""
        if len(self._ended) > MOST_ENDED:
            note_lone(later)  # first: what is added up is noted no more
            self._fold()

    def _fold(self) -> None:
        """Each in one breath: between the store and the removal no call returns, so that no exception strikes there."""
        with self._lock:
            self._fold_all()

    def _fold_all(self) -> None:
        while self._ended:
            category, totals = ended = self._ended[0]
            before = self._past.get(category)
            both = totals if before is None else before.plus(totals)
            if self._ended and self._ended[0] is ended:  # else a signal handler was here meanwhile
                self._past[category] = both
                self._ended.popleft()

    def by_category(self, queues: Iterable[Queue]) -> dict[str, Totals]:
        """Return the sums over these queues and those that are gone."""
        living = [(queue.category, Totals.of(queue)) for queue in queues if not queue.handed_over]
        with self._lock:
            self._fold()
            sums = dict(self._past)
        for category, totals in living:
            before = sums.get(category)
            sums[category] = totals if before is None else before.plus(totals)
        return sums
