"""When a unit has taken too much, and when to look again."""

from __future__ import annotations

import pytest

from workq.core.limits import KILL_BYTES, SOONEST_S, Verdict, judge_cpu, judge_memory, next_look_s

MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    ("used_mb", "limit_mb", "verdict"),
    [
        (0, 64, Verdict.FINE),
        (64, 64, Verdict.FINE),
        (65, 64, Verdict.STOP),
        (128, 64, Verdict.STOP),  # half as much again, but not yet 64 MiB more
        (129, 64, Verdict.KILL),
        (1400, 1000, Verdict.STOP),
        (1501, 1000, Verdict.KILL),
        (-5, 1, Verdict.FINE),  # the worker gave back what it had held before
    ],
)
def test_a_unit_beyond_its_memory_is_stopped_and_killed_where_it_goes_on(used_mb: int, limit_mb: int, verdict: Verdict) -> None:
    assert judge_memory(used_mb * MEBIBYTE, limit_mb * MEBIBYTE) is verdict
    assert KILL_BYTES == 64 * MEBIBYTE


@pytest.mark.parametrize(("used_s", "verdict"), [(0.0, Verdict.FINE), (0.99, Verdict.FINE), (1.0, Verdict.STOP), (9.0, Verdict.STOP)])
def test_a_unit_that_has_used_up_its_cpu_time_is_stopped(used_s: float, verdict: Verdict) -> None:
    assert judge_cpu(used_s, 1.0) is verdict


def test_the_next_look_comes_before_all_cpus_together_could_use_up_what_is_left() -> None:
    assert next_look_s(4.0, cpus=2, memory_look_s=None) == 2.0
    assert next_look_s(4.0, cpus=8, memory_look_s=None) == 0.5
    assert next_look_s(0.001, cpus=8, memory_look_s=None) == next_look_s(-1.0, cpus=8, memory_look_s=None) == SOONEST_S


def test_memory_is_looked_at_at_its_own_pace() -> None:
    assert next_look_s(None, cpus=8, memory_look_s=0.02) == 0.02
    assert next_look_s(4.0, cpus=2, memory_look_s=0.02) == 0.02
    assert next_look_s(0.001, cpus=2, memory_look_s=0.02) == SOONEST_S
