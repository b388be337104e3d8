"""What is counted of a queue's units."""

from __future__ import annotations

from collections import deque

import pytest

from workq.controller.tallies import QueueTimes, Times, note_lone

SECOND_NS = 10**9


def test_a_unit_that_was_alone_counts_from_its_beginning_also_where_it_is_taken_in_after_others() -> None:
    times = QueueTimes()
    times.first_ns = SECOND_NS + 50_000_000  # a batch that began when the lone one had ended
    times.note_rate(99, SECOND_NS + 51_000_000)
    note_lone(deque([(times, Times(), SECOND_NS - 1, SECOND_NS, SECOND_NS + 50_000_000)]))
    assert times.first_ns == SECOND_NS
    assert times.per_second(SECOND_NS + 100_000_000) == pytest.approx(1000)
