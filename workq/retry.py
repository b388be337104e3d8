"""Retry: how often a unit is tried again, when, and after what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workq.core.retrying import RetryPolicy
from workq.errors import ArgumentError
from workq.given.arguments import check_seconds, check_whole
from workq.transport.failures import full_name

OUTCOMES = {"failed": "failed", "timed_out": "timed out", "lost": "lost"}


@dataclass(frozen=True)
class Retry:
    """What ``options(retries=…)`` takes where a number is not enough. A unit that ends well is never tried again.

    Args:
        limit: How often the unit is tried again at most, 1 or more.
        delay: Seconds of rest before the second attempt. Default: none. Meanwhile the unit occupies no worker; its state is "resting".
        factor: By how much each further rest is longer, 1 or more.
        max_delay: The longest rest, seconds.
        jitter: The share, 0 to 1, by which each rest is made longer or shorter at random, so that units that failed together do not all
            come back together.
        on: After what it is tried again: exception types (their subclasses included) and ``"failed"`` (it raised), ``"timed_out"``,
            ``"lost"`` (its worker ended under it). Default: all of them. ``UnitTimeout`` and ``WorkerHalted``, or a base of theirs such as
            ``TimeoutError``, stand for a time-out and a loss as well.
        within: No attempt begins later than so many seconds after the unit was queued. Default: whenever.
        crashes: After so many attempts whose worker has ended under them the unit is poisoned, whatever is left of ``limit``. Default:
            ``Settings.poisoned_after``.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument.

    >>> import workq
    >>> wq.options(retries=workq.Retry(3, delay=0.5, on=(ConnectionError, "lost"))).queue(len, "four").result()
    4
    """

    limit: int
    delay: float = 0.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.1
    on: type[BaseException] | str | Sequence[type[BaseException] | str] | None = None
    within: float | None = None
    crashes: int | None = None

    def __post_init__(self) -> None:
        check_whole("limit", self.limit, least=1)
        check_seconds("delay", self.delay)
        check_seconds("max_delay", self.max_delay)
        check_seconds("factor", self.factor)
        check_seconds("jitter", self.jitter)
        if self.factor < 1:
            raise ArgumentError(f"factor must be 1 or more, not {self.factor!r}")
        if self.jitter > 1:
            raise ArgumentError(f"jitter must be a share from 0 to 1, not {self.jitter!r}")
        if self.within is not None:
            check_seconds("within", self.within, above=True, none="for no limit")
        if self.crashes is not None:
            check_whole("crashes", self.crashes, least=1)
        _names(self.on)


def policy_of(retries: object) -> RetryPolicy | None:
    """Return what ``options(retries=…)`` says, in plain values. Raises ArgumentError."""
    if isinstance(retries, Retry):
        return RetryPolicy(
            int(retries.limit),
            float(retries.delay),
            float(retries.factor),
            float(retries.max_delay),
            float(retries.jitter),
            _names(retries.on),
            None if retries.within is None else float(retries.within),
            None if retries.crashes is None else int(retries.crashes),
        )
    if not isinstance(retries, int) or isinstance(retries, bool):
        raise ArgumentError(f"retries must be a whole number or a workq.Retry, not {retries!r}")
    check_whole("retries", retries, least=0)
    return RetryPolicy(int(retries)) if retries else None


def _names(on: Any) -> tuple[str, ...] | None:
    """Return outcomes and types as names: units fail in other processes, where types are others of the same name."""
    if on is None:
        return None
    items = [on] if isinstance(on, str | type) else list(on) if isinstance(on, Sequence | set | frozenset) else [on]
    if not items:
        raise ArgumentError("on must not be empty: nothing would be tried again; None stands for everything")
    names = []
    for item in items:
        if isinstance(item, type) and issubclass(item, BaseException):
            names.append(full_name(item))
        elif isinstance(item, str) and item in OUTCOMES:
            names.append(OUTCOMES[item])
        else:
            raise ArgumentError(f"on must hold exception types, 'failed', 'timed_out' or 'lost', not {item!r}")
    return tuple(names)


__all__ = ["Retry", "policy_of"]
