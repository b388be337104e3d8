"""Whether a unit that did not succeed is tried again, and when."""

from __future__ import annotations

from typing import NamedTuple

LOST = "lost"  # the outcome of an attempt whose worker has ended under it


class RetryPolicy(NamedTuple):
    """What was asked for: ``workq.Retry``, checked, in plain values that travel.

    Attributes:
        limit: How often it is tried again at most; 0: never.
        delay_s: How long it rests before the second attempt.
        factor: By how much each further rest is longer.
        max_delay_s: The longest rest.
        jitter: The share, 0 to 1, by which a rest is made longer or shorter at random.
        on: The kinds that are tried again: outcomes, and full names of exception types; None: all.
        within_s: No attempt is begun later than this after the unit was queued; None: whenever.
        crashes: After so many attempts whose worker has ended under them the unit is poisoned; None: as the settings say.
    """

    limit: int = 0
    delay_s: float = 0.0
    factor: float = 2.0
    max_delay_s: float = 60.0
    jitter: float = 0.0
    on: tuple[str, ...] | None = None
    within_s: float | None = None
    crashes: int | None = None


NO_RETRY = RetryPolicy()


class Tried(NamedTuple):
    """What is known when an attempt has ended without success.

    Attributes:
        attempt: Its number, from 1.
        outcome: How it ended: ``"failed"``, ``"timed out"`` or ``"lost"``.
        kinds: Full names of the exception's type and of its bases.
        crashes: How many attempts, with this one, were lost with their workers.
        age_s: How long ago the unit was queued.
    """

    attempt: int
    outcome: str
    kinds: tuple[str, ...]
    crashes: int
    age_s: float


class Verdict(NamedTuple):
    """What follows.

    Attributes:
        again: It is tried again.
        rest_s: After so long.
        poisoned: It has ended so many workers that it gets no more.
        why: Why it is not tried again, in a few words.
    """

    again: bool
    rest_s: float = 0.0
    poisoned: bool = False
    why: str = ""


def judge(policy: RetryPolicy, tried: Tried, most_crashes: int, random: float) -> Verdict:
    """Decide what becomes of a unit; ``random`` is a number from 0 to 1.

    >>> judge(RetryPolicy(limit=3, delay_s=1.0), Tried(2, "failed", ("builtins.OSError",), 0, 5.0), 3, 0.5)
    Verdict(again=True, rest_s=2.0, poisoned=False, why='')
    """
    if not policy.limit:
        return Verdict(False, why="no retries were asked for")
    most_crashes = most_crashes if policy.crashes is None else policy.crashes
    if tried.outcome == LOST and tried.crashes >= most_crashes:
        return Verdict(False, poisoned=True, why=f"{tried.crashes} workers have ended under it")
    if tried.attempt > policy.limit:
        return Verdict(False, why=f"it was tried {tried.attempt} times")
    if policy.on is not None and not {tried.outcome, *tried.kinds}.intersection(policy.on):
        return Verdict(False, why="it did not end in a way that is tried again")
    rest_s = rest_before(policy, tried.attempt, random)
    if policy.within_s is not None and tried.age_s + rest_s > policy.within_s:
        return Verdict(False, why=f"the next attempt would begin later than {policy.within_s:g} s after it was queued")
    return Verdict(True, rest_s)


def rest_before(policy: RetryPolicy, attempt: int, random: float) -> float:
    """Return how long to rest after this attempt: exponentially longer, bounded, and spread, so that not all come again at once."""
    if not policy.delay_s:
        return 0.0
    try:
        plain_s = min(policy.max_delay_s, policy.delay_s * policy.factor ** (attempt - 1))
    except OverflowError:
        plain_s = policy.max_delay_s
    return plain_s * (1 + policy.jitter * (2 * random - 1))
