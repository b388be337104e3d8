"""The table of locks and events: who holds, who waits, since when, and who has left a lock held. Prints, and is data."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, overload

from workq.core import locks
from workq.core.locks import Claim
from workq.seeing.tables import html_table, seconds, table

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.locking import LockLeak


@dataclass(frozen=True, slots=True)
class LockParty:
    """Who holds or waits.

    Attributes:
        who: The unit (and the thread, if it is not its main one), or the thread of the application.
        worker: The name of the worker; None: the application itself.
        pid: The process; None where it has just ended.
        for_s: For how long it has held or waited, seconds.
    """

    who: str
    worker: str | None
    pid: int | None
    for_s: float


@dataclass(frozen=True, slots=True)
class LockRow:
    """One lock that is held, or one event that is set or waited for.

    Attributes:
        kind: ``"lock"`` or ``"event"``.
        name: Its name.
        state: ``"held"``, ``"set"`` or ``"waited for"``.
        holder: Who holds the lock; None for an event.
        set_by: Who has set the event; None for a lock, and where it is not set.
        waiting: Who waits, in the order of their turns.
    """

    kind: str
    name: str
    state: str
    holder: LockParty | None
    set_by: str | None
    waiting: tuple[LockParty, ...]


class LockTable(Sequence[LockRow]):
    """Rows of locks and events; prints as a table.

    Attributes:
        leaks: The last units that ended, or died, and still held a lock, the latest last; see :class:`workq.LockLeak`.
    """

    HEAD = ("kind", "name", "state", "by", "for", "waiting", "next")

    def __init__(self, rows: Sequence[LockRow], leaks: Sequence[LockLeak] = ()) -> None:
        self._rows = tuple(rows)
        self.leaks = tuple(leaks)

    @overload
    def __getitem__(self, index: int) -> LockRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LockRow]: ...
    def __getitem__(self, index: int | slice) -> LockRow | Sequence[LockRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain dicts."""
        return [asdict(row) for row in self._rows]

    def __repr__(self) -> str:
        text = table([self.HEAD], self._cells()) if self._rows else "no locks"
        for leak in self.leaks:
            text += f"\nleft locked: {leak.lock} by {leak.holder} in {leak.worker} (pid {leak.pid}){', which died' if leak.died else ''}"
        return text

    def _repr_html_(self) -> str:
        return html_table("", [self.HEAD], self._cells()) if self._rows else "no locks"

    def _cells(self) -> list[list[str]]:
        return [[row.kind, row.name, row.state, _by(row), _for(row), str(len(row.waiting)), _first(row)] for row in self._rows]


def _by(row: LockRow) -> str:
    return row.holder.who if row.holder is not None else row.set_by or "-"


def _for(row: LockRow) -> str:
    return seconds(row.holder.for_s) if row.holder is not None else "-"


def _first(row: LockRow) -> str:
    return f"{row.waiting[0].who}, {seconds(row.waiting[0].for_s)}" if row.waiting else "-"


def lock_table(controller: Controller) -> LockTable:
    """Return all locks and events of a controller that anybody holds, has set or waits for."""
    loop = controller.loop
    if loop is None or controller.forked:
        return LockTable(())
    controller.claims.settle()
    now = time.monotonic()
    places: dict[int, tuple[str | None, int | None]] = {
        int(worker.number): (worker.name, worker.pid) for worker in list(loop.dispatcher.workers)
    }
    places[0] = None, os.getpid()

    def party(claim: Claim) -> LockParty:
        name, pid = places.get(claim.party[0], (None, None))
        return LockParty(claim.who, name, pid, max(0.0, now - claim.since))

    def waiting(row: locks.LockRow | locks.EventRow) -> tuple[LockParty, ...]:
        return tuple(map(party, list(row.waiting.values())))

    rows = [LockRow("lock", row.name, "held", party(row.holder), None, waiting(row)) for row in loop.locks.held()]
    rows += [
        LockRow("event", event.name, "set" if event.is_set else "waited for", None, event.set_by or None, waiting(event))
        for event in list(loop.locks.table.events.values())
    ]
    return LockTable(rows, tuple(loop.locks.leaks))
