"""Ranks, and the threads of numeric libraries."""

from __future__ import annotations

import pytest

from workq.core.ranks import lowest_free
from workq.core.threads import count_threads


def test_ranks_are_counted_from_0_and_the_lowest_free_one_is_used_again() -> None:
    assert lowest_free(set()) == 0
    assert lowest_free({0, 1, 2}) == 3
    assert lowest_free({1, 2}) == 0
    assert lowest_free({0, 2}) == 1


@pytest.mark.parametrize(
    ("cpus", "wanted", "most", "threads"),
    [(16, 4, 32, 4), (16, 1, 32, 16), (16, 5, 32, 3), (2, 8, 4, 1), (8, 100, 4, 2), (4, 0, 8, 4)],
)
def test_numeric_libraries_may_start_as_many_threads_as_cpus_for_each_worker_and_at_least_one(
    cpus: int, wanted: int, most: int, threads: int
) -> None:
    assert count_threads(cpus, wanted, most) == threads
