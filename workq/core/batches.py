"""How much measured work a worker is sent at once."""

from __future__ import annotations

MOST_DEEP_S = 0.008  # where many units wait a batch holds work for so long, but
DEEP_PART = 1 / 32  # no more than this part of what waits: what is done is told at the end of a batch, and nobody is to be told much later


def work_s(target_s: float, lag_s: float, waiting_s: float) -> float:
    """Return for how long a batch should keep a worker busy.

    Each batch is a wake-up of whoever reads, on the cores that the workers run on: with units of a millisecond, one for each of them.

    Args:
        target_s: What a batch holds at least, seconds; one unit in any case.
        lag_s: By how much refills came too late of late, seconds.
        waiting_s: Work that waits in the queue's backlog, seconds; 0 where a unit may come that is to pass it.

    >>> work_s(0.001, 0.0, waiting_s=0.032), work_s(0.001, 0.0, waiting_s=0.064), work_s(0.001, 0.0, waiting_s=60.0)
    (0.001, 0.002, 0.008)
    """
    return max(target_s, lag_s, min(MOST_DEEP_S, waiting_s * DEEP_PART))
