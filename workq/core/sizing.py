"""How many workers a category should have now, and when to give up starting them."""

from __future__ import annotations

from workq.core.events import Limits
from workq.core.fact import record


def count_starts(limits: Limits, *, wishes: int, fresh: int, active: int, coming: int, dying: int, living: int) -> int:
    """Return how many workers to start.

    Args:
        limits: What the category may have.
        wishes: How many workers its queues want, and have no free worker for.
        fresh: How many queues wait that have no worker at all.
        active: How many workers count as active.
        coming: How many are being started.
        dying: How many have been killed and are not gone; each is replaced once it is.
        living: How many processes there are, whatever they do.
    """
    room = limits.max_active_workers - active - coming - dying
    starts = max(0, min(wishes - coming, room))
    if starts == room and fresh > coming + starts:
        starts += extra_workers(limits)  # everybody is busy, and a queue has nobody
    if limits.max_total_workers is not None:
        starts = min(starts, limits.max_total_workers - living)
    return max(0, starts)


def extra_workers(limits: Limits) -> int:
    """Return how many workers beyond the active maximum may serve queues that have no worker at all."""
    return 0 if limits.always_queue else 1


@record
class RestartBudget:
    """Failed starts in a row, and what follows from them.

    Workers that were started together and fail together are one failure. That is what `wave` is for: it is written into each
    worker when it is started, and only the first failure of a wave counts.

    Attributes:
        tries: How many failures in a row there may be.
        backoff_s: How long to wait before the second try; doubled at each further one.
        failures: Failures in a row so far.
        wave: The number of failures ever counted.
        retry_at: No worker is started before this time; None when there is nothing to wait for.
    """

    tries: int
    backoff_s: float
    failures: int = 0
    wave: int = 0
    retry_at: float | None = None

    @property
    def exhausted(self) -> bool:
        """So many starts in a row have failed that another try is worth while only for who can wait."""
        return self.failures >= self.tries

    def begin_anew(self) -> None:
        """Forget the failures: a worker has become ready, or there is a new demand after the category had failed."""
        self.failures = 0
        self.retry_at = None

    def fail(self, wave: int, now: float) -> bool:
        """Note that a worker of this `wave` did not become ready; return True when that was the last try."""
        if wave != self.wave:
            return False  # it was on its way already when the last one failed
        self.wave += 1
        self.failures += 1
        self.retry_at = now + self.backoff_s * 2 ** (self.failures - 1)
        return self.exhausted

    def allow(self, starts: int, coming: int) -> int:
        """Return how many of so many `starts` may be made now: all, one to see whether it works, or none."""
        if self.retry_at is not None:
            return 0
        return starts if not self.failures else min(starts, max(0, 1 - coming))
