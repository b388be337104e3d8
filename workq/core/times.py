"""Histograms of times in powers of two, and what is read from them: means, quantiles, and whether a unit is beyond the usual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BUCKETS = 64  # number k holds the times from 2**(k - 1) to 2**k - 1 nanoseconds: the bit length of a time is its bucket


class Times:
    """How long things took. One thread at a time may note; any may read.

    Attributes:
        buckets: How many there were in each bucket.
        total_ns: All of them together.
    """

    __slots__ = ("buckets", "total_ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.total_ns = 0

    def note(self, took_ns: int, number: int = 1) -> None:
        """Take in ``number`` things that took so long each."""
        took_ns = max(took_ns, 0)
        self.buckets[took_ns.bit_length()] += number
        self.total_ns += took_ns * number

    def plus(self, other: Times) -> Times:
        """Return both together."""
        both = Times()
        both.buckets = [mine + others for mine, others in zip(self.buckets, other.buckets, strict=True)]
        both.total_ns = self.total_ns + other.total_ns
        return both


def upper_s(bucket: int) -> float:
    """Return the upper bound of a bucket, seconds."""
    return (1 << bucket) / 1e9


def quantile_s(buckets: Sequence[int], share: float) -> float | None:
    """Return the time below which this share of them lies, seconds; None where there are none. Off by 40 % at most."""
    below, wanted = 0, share * sum(buckets)
    for bucket, number in enumerate(buckets):
        if number and below + number >= wanted:
            inside = (wanted - below) / number
            return upper_s(bucket) * float(2 ** (inside - 1))  # as if they lay evenly within it, on a logarithmic scale
        below += number
    return None


def cumulative(buckets: Sequence[int], first: int, last: int, step: int) -> Iterator[tuple[float, int]]:
    """Yield upper bounds, seconds, and how many took no longer."""
    for bucket in range(first, last + 1, step):
        yield upper_s(bucket), sum(buckets[: bucket + 1])


def slow_beyond_s(buckets: Sequence[int], factor: float, least_s: float, runs: int) -> float | None:
    """Return how long a unit of a function may take before it is remarkable, by how long others took; None while too few have ended.

    It is ``factor`` times what 99 of 100 needed at most, and no less than ``least_s``.
    """
    number = sum(buckets)
    if number < runs:
        return None
    over = 0
    for bucket in range(BUCKETS - 1, -1, -1):
        over += buckets[bucket]
        if over > number // 100:
            return max(least_s, factor * upper_s(bucket))
    raise AssertionError(buckets)  # pragma: no cover - as many lie in the buckets as are in them
