"""Attempt: one time that a unit was begun, as its unit and its errors show it."""

from __future__ import annotations

from typing import NamedTuple

REASON_CHARACTERS = 200


class Attempt(NamedTuple):
    """One attempt of a unit. The last of ``unit.attempts`` is the one that counts: it ran, runs, or is to come.

    Attributes:
        number: From 1.
        outcome: ``"failed"``, ``"timed out"`` or ``"lost"``; of the last one the state of the unit, which may still be open.
        worker: The name of the worker, or None where none has begun it.
        pid: Its process number, or None.
        started_at: When it began, ``time.monotonic()`` seconds, or None.
        run_time_s: How long it ran, seconds, or None.
        reason: What went wrong, in a line: the exception, or how the worker ended; else an empty text.
    """

    number: int
    outcome: str
    worker: str | None = None
    pid: int | None = None
    started_at: float | None = None
    run_time_s: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        where = f" in {self.worker} (pid {self.pid})" if self.worker and self.pid else f" in {self.worker}" if self.worker else ""
        after = f" after {self.run_time_s:.3f} s" if self.run_time_s is not None else ""
        return f"attempt {self.number}: {self.outcome}{where}{after}{f': {self.reason}' if self.reason else ''}"


def listed(attempts: tuple[Attempt, ...]) -> str:
    """Return attempts as lines of a message; of very many the first and the last ones."""
    lines = [f"  {attempt}" for attempt in attempts]
    return "\n".join(lines if len(lines) <= 12 else [*lines[:4], f"  ... {len(lines) - 8} more ...", *lines[-4:]])


def bounded(reason: str) -> str:
    """Return the first line of a reason, cut where it is long."""
    lines = reason.splitlines()
    return lines[0][:REASON_CHARACTERS] if lines else ""
