"""How much work a worker is sent at once."""

from __future__ import annotations

from workq.core.batches import MOST_DEEP_S, work_s


def test_a_batch_holds_no_more_than_its_part_of_what_waits() -> None:
    for waiting_ms in range(1, 10_000, 7):
        work = work_s(0.001, 0.0, waiting_ms / 1000)
        assert 0.001 <= work <= MOST_DEEP_S
        assert work == 0.001 or work <= waiting_ms / 1000 / 32


def test_a_worker_that_runs_dry_is_sent_more_however_little_waits() -> None:
    assert work_s(0.001, 0.01, 0.0) == 0.01
