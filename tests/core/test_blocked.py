"""When a worker counts as blocked."""

from __future__ import annotations

from workq.core.blocked import Judge, Look

MS = 1_000_000


def verdicts(*looks: tuple[int, str, float, int]) -> list[bool]:
    """Return the verdict after each look (ms, state, CPU ms of the main thread, ticks of the tree)."""
    judge = Judge(sample_ns=10 * MS)
    return [judge.see(Look(when * MS, state, int(run * MS), ticks)) for when, state, run, ticks in looks]


def test_three_looks_at_a_sleeping_worker_make_it_blocked() -> None:
    assert verdicts((0, "S", 5, 1), (10, "S", 5, 1), (30, "S", 5, 1)) == [False, False, True]


def test_a_third_look_that_comes_too_soon_does_not_confirm() -> None:
    assert verdicts((0, "S", 5, 1), (10, "S", 5, 1), (20, "S", 5, 1), (30, "S", 5, 1)) == [False, False, False, True]


def test_looks_closer_than_a_sample_do_not_count() -> None:
    assert verdicts((0, "S", 5, 1), (10, "S", 5, 1), (30, "S", 5, 1), (31, "R", 9, 1)) == [False, False, True, True]


def test_a_worker_that_computes_is_active() -> None:
    assert verdicts((0, "R", 0, 1), (10, "R", 10, 2), (20, "S", 20, 3), (40, "S", 40, 5)) == [False] * 4


def test_a_worker_that_writes_to_disk_is_active() -> None:
    assert verdicts((0, "D", 0, 1), (10, "D", 0, 1), (30, "D", 0, 1), (50, "S", 0, 1), (60, "D", 0, 1), (80, "S", 0, 1)) == [False] * 6


def test_a_worker_that_waits_for_a_busy_child_is_active() -> None:
    assert verdicts((0, "S", 5, 1), (10, "S", 5, 2), (30, "S", 5, 4), (50, "S", 5, 6)) == [False] * 4


def test_it_is_blocked_once_its_child_is_idle_too() -> None:
    assert verdicts((0, "S", 5, 1), (10, "S", 5, 2), (30, "S", 5, 4), (50, "S", 5, 4)) == [False, False, False, True]


def test_a_thread_that_uses_two_percent_is_active() -> None:
    assert verdicts((0, "S", 5.0, 1), (10, "S", 5.2, 1), (30, "S", 5.6, 1)) == [False] * 3
    assert verdicts((0, "S", 5.0, 1), (10, "S", 5.1, 1), (30, "S", 5.4, 1)) == [False, False, True]


def test_work_between_the_looks_begins_the_judgement_anew() -> None:
    looks = (0, "S", 5, 1), (10, "S", 5, 1), (20, "S", 9, 1), (40, "S", 9, 1), (60, "S", 9, 1)
    assert verdicts(*looks) == [False, False, False, False, True]


def test_one_running_look_unblocks() -> None:
    blocked = (0, "S", 5, 1), (10, "S", 5, 1), (30, "S", 5, 1)
    assert verdicts(*blocked, (40, "R", 5, 1))[-1] is False
    assert verdicts(*blocked, (40, "S", 6, 1))[-1] is False, "2 % of a CPU"
    assert verdicts(*blocked, (40, "S", 5, 1), (50, "S", 5.1, 1))[-2:] == [True, True]
    assert verdicts(*blocked, (40, "R", 5, 1), (50, "S", 5, 1), (60, "S", 5, 1), (80, "S", 5, 1))[-4:] == [False, False, False, True]


def test_a_disk_wait_between_two_sleeps_begins_the_judgement_anew() -> None:
    assert verdicts((0, "S", 5, 1), (10, "D", 5, 1), (20, "S", 5, 1), (40, "S", 5, 1), (60, "S", 5, 1)) == [False] * 4 + [True]
