"""The ranks of a category's workers: 0, 1, 2, … and the lowest free one for each new worker."""

from __future__ import annotations

from collections.abc import Container


def lowest_free(taken: Container[int]) -> int:
    """Return the lowest rank that is not taken.

    >>> lowest_free({0, 1, 3})
    2
    """
    rank = 0
    while rank in taken:
        rank += 1
    return rank
