"""When a unit that runs has taken too much memory or CPU time, and when to look again."""

from __future__ import annotations

from enum import Enum

KILL_FACTOR = 1.5  # a unit that was asked to end for its memory and holds so much more than it may is killed at once
KILL_BYTES = 64 << 20  # and at least so much more
SOONEST_S = 0.01  # between two looks


class Verdict(Enum):
    """What is to be done about a unit."""

    FINE = "fine"
    STOP = "stop"  # interrupted, then killed
    KILL = "kill"  # it was asked to end, and goes on taking


def judge_memory(used_bytes: int, limit_bytes: int) -> Verdict:
    """Judge what a unit holds beyond what its worker held when it began.

    >>> judge_memory(900, 1000).value, judge_memory(1001, 1000).value, judge_memory(10**9, 1000).value
    ('fine', 'stop', 'kill')
    """
    if used_bytes <= limit_bytes:
        return Verdict.FINE
    return Verdict.KILL if used_bytes > max(limit_bytes * KILL_FACTOR, limit_bytes + KILL_BYTES) else Verdict.STOP


def judge_cpu(used_s: float, limit_s: float) -> Verdict:
    """Judge the CPU seconds that a unit has taken, in all its threads and child processes.

    >>> judge_cpu(0.9, 1.0).value, judge_cpu(1.0, 1.0).value
    ('fine', 'stop')
    """
    return Verdict.STOP if used_s >= limit_s else Verdict.FINE


def next_look_s(cpu_left_s: float | None, cpus: int, memory_look_s: float | None) -> float:
    """Return after how many seconds to look again: a unit cannot take CPU time faster than all CPUs give it.

    >>> next_look_s(4.0, cpus=2, memory_look_s=None), next_look_s(4.0, cpus=2, memory_look_s=0.02)
    (2.0, 0.02)
    """
    by_cpu = None if cpu_left_s is None else max(SOONEST_S, cpu_left_s / cpus)
    looks = [look for look in (by_cpu, memory_look_s) if look is not None]
    return min(looks)
