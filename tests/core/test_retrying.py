"""Whether a unit is tried again, and when: decided without a clock and without chance."""

from __future__ import annotations

import pytest

from workq.core.retrying import NO_RETRY, RetryPolicy, Tried, Verdict, judge, rest_before

ERROR = ("builtins.ConnectionResetError", "builtins.ConnectionError", "builtins.OSError", "builtins.Exception")


def tried(attempt: int = 1, outcome: str = "failed", kinds: tuple[str, ...] = ERROR, crashes: int = 0, age_s: float = 1.0) -> Tried:
    return Tried(attempt, outcome, kinds, crashes, age_s)


def test_nothing_is_tried_again_where_nobody_asked() -> None:
    assert not judge(NO_RETRY, tried(), 3, 0.5).again
    assert not judge(NO_RETRY, tried(outcome="lost", crashes=9), 3, 0.5).poisoned


def test_a_limit_of_two_makes_three_attempts() -> None:
    verdicts = [judge(RetryPolicy(2), tried(attempt), 3, 0.5) for attempt in (1, 2, 3)]
    assert [verdict.again for verdict in verdicts] == [True, True, False]
    assert verdicts[-1].why == "it was tried 3 times"


@pytest.mark.parametrize(
    ("on", "outcome", "kinds", "again"),
    [
        (None, "failed", ERROR, True),
        (("builtins.ConnectionError",), "failed", ERROR, True),
        (("builtins.OSError", "lost"), "failed", ERROR, True),
        (("builtins.KeyError",), "failed", ERROR, False),
        (("failed",), "failed", ERROR, True),
        (("lost",), "failed", ERROR, False),
        (("lost",), "lost", (), True),
        (("timed out",), "lost", (), False),
        (("timed out",), "timed out", (), True),
        (("builtins.TimeoutError",), "timed out", ("workq.errors.UnitTimeout", "builtins.TimeoutError"), True),
    ],
)
def test_what_to_retry_on(on: tuple[str, ...] | None, outcome: str, kinds: tuple[str, ...], again: bool) -> None:
    assert judge(RetryPolicy(1, on=on), tried(outcome=outcome, kinds=kinds), 3, 0.5).again is again


def test_rests_grow_exponentially_to_the_longest() -> None:
    policy = RetryPolicy(9, delay_s=0.5, factor=3.0, max_delay_s=10.0)
    assert [rest_before(policy, attempt, 0.5) for attempt in (1, 2, 3, 4, 2000)] == [0.5, 1.5, 4.5, 10.0, 10.0]
    assert rest_before(RetryPolicy(9), 5, 0.5) == 0.0


def test_jitter_makes_rests_longer_and_shorter_by_its_share() -> None:
    policy = RetryPolicy(9, delay_s=1.0, jitter=0.25)
    assert [rest_before(policy, 1, random) for random in (0.0, 0.5, 1.0)] == [0.75, 1.0, 1.25]


def test_no_attempt_begins_after_the_total_limit() -> None:
    policy = RetryPolicy(9, delay_s=2.0, within_s=10.0)
    assert judge(policy, tried(age_s=8.0), 3, 0.5) == Verdict(True, 2.0)
    late = judge(policy, tried(age_s=8.1), 3, 0.5)
    assert not late.again
    assert "later than 10 s" in late.why


def test_crashes_are_counted_apart_from_errors_and_poison_the_unit() -> None:
    policy = RetryPolicy(100)
    assert judge(policy, tried(50, crashes=2), 3, 0.5).again
    assert judge(policy, tried(3, "lost", crashes=2), 3, 0.5).again
    poisoned = judge(policy, tried(4, "lost", crashes=3), 3, 0.5)
    assert (poisoned.again, poisoned.poisoned) == (False, True)
    assert judge(policy, tried(50, "failed", crashes=3), 3, 0.5).again, "it did not end its worker this time"
    assert judge(policy._replace(crashes=1), tried(1, "lost", crashes=1), 3, 0.5).poisoned, "its own limit"
