"""When a worker counts as blocked although its unit did not say so: judged from a few looks at its main thread.

Whoever looks (only while units wait and all workers are busy) passes what it saw; nothing is read here. Two looks in which the main
thread sleeps and has used next to no CPU time in between make a candidate; a third, later one confirms it, provided the worker and
all its children have used no CPU time since either: a unit that waits for a busy child, or for its own busy threads, is active.

A wrong verdict costs one worker too many for a short time, or one too few. Correctness never rests on it.
"""

from __future__ import annotations

from workq.core.fact import fact, record

ASLEEP = "S"  # interruptible sleep; D (disk) is work, and ends by itself
RUNNING = "R"
BUSY_SHARE = 0.02  # of one CPU: a thread that uses less than this makes no progress


@fact
class Look:
    """One look at a worker.

    Attributes:
        when_ns: When it was taken, nanoseconds, as the CPU time is: no rounding decides.
        state: The kernel's letter for the state of the main thread.
        run_ns: The CPU time of the main thread, nanoseconds.
        tree_ticks: The CPU time of the worker and all its children, in whatever coarse unit the kernel counts.
    """

    when_ns: int
    state: str
    run_ns: int
    tree_ticks: int

    def is_idle_since(self, earlier: Look) -> bool:
        """Tell whether the main thread has used next to no CPU time since an `earlier` look."""
        return self.run_ns - earlier.run_ns < BUSY_SHARE * (self.when_ns - earlier.when_ns)


@record
class Judge:
    """Judges one worker, look by look. Make a new one whenever the worker begins another unit.

    Attributes:
        sample_ns: The least time between two looks; what comes sooner is not counted.
        blocked: The verdict so far.
    """

    sample_ns: int
    blocked: bool = False
    _last: Look | None = None
    _candidate: Look | None = None

    def see(self, look: Look) -> bool:
        """Take in one look and return whether the worker counts as blocked now."""
        last = self._last
        if last is not None and look.when_ns - last.when_ns < self.sample_ns:
            return self.blocked
        self._last = look
        quiet = last is not None and look.is_idle_since(last)
        if self.blocked:
            self.blocked = quiet and look.state != RUNNING
        elif not quiet or look.state != ASLEEP or last is None or last.state != ASLEEP:
            self._candidate = None
        else:
            self._weigh(look)
        return self.blocked

    def _weigh(self, look: Look) -> None:
        """Confirm a candidate with a look two samples later, or make one."""
        candidate = self._candidate
        if candidate is None or look.tree_ticks != candidate.tree_ticks:
            self._candidate = look
        elif look.when_ns - candidate.when_ns >= 2 * self.sample_ns:
            self.blocked = True
            self._candidate = None
