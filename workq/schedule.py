"""Cron: times of a calendar, by a cron expression in a time zone. The one place of cronsim."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from workq.errors import ArgumentError, WorkqError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCALTIME = "/etc/localtime"
MOST_COUNTED = 1000  # times that were missed


@dataclass(frozen=True)
class Cron:
    """When to run, as cron has it: ``minute hour day month weekday``.

    Where the clock of the time zone jumps, it is done as Debian's cron does: a run at a fixed time that does not exist takes place right
    after the jump, one whose time exists twice takes place once, and those of each hour or minute go on as if nothing were.

    Args:
        expression: Such as ``"*/5 * * * *"`` or ``"0 9 * * MON-FRI"``; ``L``, ``#`` and six fields (seconds first) are understood.
        tz: The name of a time zone, or a ``tzinfo``. Default: that of this machine.

    Raises:
        ArgumentError: The expression or the time zone makes no sense.
        WorkqError: cronsim is not installed; it comes with ``workq-manager[cron]``.

    >>> from datetime import datetime
    >>> print(Cron("0 9 * * MON-FRI", tz="Europe/Berlin").after(datetime.fromisoformat("2024-03-29T12:00:00+01:00")))
    2024-04-01 09:00:00+02:00
    """

    expression: str
    tz: str | tzinfo | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise ArgumentError(f"expression must be a str, not {self.expression!r}")
        if self.tz is not None and not isinstance(self.tz, str | tzinfo):
            raise ArgumentError(f"tz must be the name of a time zone, a tzinfo or None, not {self.tz!r}")
        self.after(datetime.now(self.zone))

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        if isinstance(self.tz, tzinfo):
            return self.tz
        if self.tz is None:
            return local_zone()
        try:
            return ZoneInfo(self.tz)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ArgumentError(f"tz must be the name of a time zone, not {self.tz!r}: {error}") from None
        except KeyError:
            raise ArgumentError(f"tz must be the name of a time zone that this machine knows, not {self.tz!r}") from None

    def after(self, moment: datetime) -> datetime:
        """Return the first time after a moment."""
        return next(self._times(moment))

    def between(self, first: datetime, last: datetime) -> int:
        """Return how many times lie after the first moment, and not after the last; no more than are worth counting."""
        number = 0
        for time in self._times(first):
            if time > last or number >= MOST_COUNTED:
                break
            number += 1
        return number

    def _times(self, moment: datetime) -> Iterator[datetime]:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise WorkqError("cron needs cronsim: install workq-manager[cron]") from None
        try:
            return iter(CronSim(self.expression, moment.astimezone(self.zone)))
        except CronSimError as error:
            raise ArgumentError(f"expression must be a cron expression, such as '30 2 * * *', not {self.expression!r}: {error}") from None

    def __str__(self) -> str:
        return f"{self.expression} ({self.tz})" if self.tz is not None else self.expression


def local_zone() -> tzinfo:
    """Return the time zone of this machine, with its rules, as far as it can be known; else its present distance from UTC."""
    name = os.environ.get("TZ", "").lstrip(":")
    try:
        if name:
            return ZoneInfo(name)
        target = os.path.realpath(LOCALTIME)
        if "zoneinfo/" in target:
            return ZoneInfo(target.partition("zoneinfo/")[2])
        with open(LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):
        return datetime.now().astimezone().tzinfo or ZoneInfo("UTC")


__all__ = ["Cron", "local_zone"]
