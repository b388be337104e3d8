"""How many threads one worker's numeric libraries may start."""

from __future__ import annotations


def count_threads(cpus: int, wanted: int, most: int) -> int:
    """Return one worker's share of the CPUs, at least 1.

    Args:
        cpus: The usable CPUs.
        wanted: How many workers all open queues of the category may have, each for itself.
        most: The category's ``max_active_workers``.

    >>> count_threads(16, wanted=4, most=32)
    4
    """
    return max(1, cpus // max(1, min(wanted, most)))
