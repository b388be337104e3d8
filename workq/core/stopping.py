"""The ladder for a unit that has to stop: wait a moment, interrupt again and again, kill once."""

from __future__ import annotations

from enum import Enum

from workq.config import Settings
from workq.core.actions import Interrupt, KillUnit
from workq.core.events import StopReason, UnitId, WorkerId
from workq.core.fact import record


class Rung(Enum):
    """How far the stop of a unit has got."""

    GRACE = "grace"  # it may be about to end: then its result is kept
    INTERRUPTED = "interrupted"  # ExternalInterrupt was raised in it, and is raised again from time to time
    KILLED = "killed"  # its worker has been killed; only the exit is missing


@record
class StopRow:
    """One unit that has to stop.

    Attributes:
        kill_at: When to kill; known from the first interrupt on.
    """

    unit: UnitId
    worker: WorkerId
    reason: StopReason
    delete_timeout_s: float
    rung: Rung = Rung.GRACE
    kill_at: float = 0.0


def climb(stop: StopRow, settings: Settings, now: float) -> tuple[Interrupt | KillUnit, float | None]:
    """Take the next step against a unit whose time has come; return it, and when to climb again (None: never)."""
    if stop.rung is Rung.GRACE:
        stop.rung = Rung.INTERRUPTED
        stop.kill_at = now + stop.delete_timeout_s
    elif now >= stop.kill_at:
        stop.rung = Rung.KILLED
        return KillUnit(stop.worker, stop.unit), None
    return Interrupt(stop.worker, stop.unit), min(now + settings.interrupt_repeat_s, stop.kill_at)
