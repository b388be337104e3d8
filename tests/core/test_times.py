"""Histograms of times, what is read from them, and when a unit is beyond its function's usual time."""

from __future__ import annotations

import pytest

from workq.core.times import BUCKETS, Times, cumulative, quantile_s, slow_beyond_s, upper_s

MS = 1_000_000


def times_of(*took_ms: float) -> Times:
    times = Times()
    for each in took_ms:
        times.note(int(each * MS))
    return times


def test_number_and_sum_are_exact() -> None:
    times = times_of(1, 2, 3)
    times.note(10 * MS, 7)
    assert (sum(times.buckets), times.total_ns) == (10, 76 * MS)


def test_a_time_below_zero_counts_as_none_at_all() -> None:
    times = Times()
    times.note(-5)
    assert (times.buckets[0], times.total_ns) == (1, 0)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_off_by_less_than_forty_percent(share: float) -> None:
    times = times_of(*range(1, 1001))
    found = quantile_s(times.buckets, share)
    assert found is not None
    assert 1 / 1.42 < found / max(share, 0.001) < 1.42


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile_s(Times().buckets, 0.5) is None


def test_two_histograms_together_hold_both() -> None:
    both = times_of(1, 2).plus(times_of(3, 1000))
    assert (sum(both.buckets), both.total_ns) == (4, 1006 * MS)


def test_cumulative_numbers_never_fall_and_end_with_all() -> None:
    found = list(cumulative(times_of(1, 10, 100, 1000).buckets, 10, 40, 2))
    assert found == sorted(found)
    assert found[0] == (upper_s(10), 0)
    assert found[-1][1] == 4


def test_a_function_has_no_usual_time_before_twenty_units_have_ended() -> None:
    assert slow_beyond_s(times_of(*[1] * 19).buckets, 10, 1.0, 20) is None
    assert slow_beyond_s(times_of(*[1] * 20).buckets, 10, 1.0, 20) == 1.0


def test_a_unit_is_slow_beyond_ten_times_what_99_of_100_needed() -> None:
    beyond = slow_beyond_s(times_of(*[400] * 300).buckets, 10, 1.0, 20)
    assert beyond is not None
    assert 4.0 <= beyond <= 8.0  # ten times the upper bound of its bucket


def test_one_outlier_of_200_does_not_make_the_function_slow() -> None:
    assert slow_beyond_s(times_of(*[1] * 199, 60_000).buckets, 10, 1.0, 20) == 1.0
    beyond = slow_beyond_s(times_of(*[1] * 19, 60_000).buckets, 10, 1.0, 20)
    assert beyond is not None
    assert beyond > 600, "one of twenty is five percent"


def test_every_time_has_a_bucket() -> None:
    times = Times()
    times.note((1 << 63) - 1)
    assert times.buckets[BUCKETS - 1] == 1
