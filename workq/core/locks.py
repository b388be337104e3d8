"""Named locks and events: who holds, who waits, and who is next. First come, first served.

Pure: told the time, and of every request; it answers with the claims that came true. A name that nobody holds, waits for or has set
takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from typing import NamedTuple

from workq.core.fact import record


class Party(NamedTuple):
    """Who can hold and wait: a thread of a worker (by its number; its main thread is 0), or of the application (worker 0)."""

    worker: int
    thread: int


Ticket = tuple[int, int]  # the number of a request: the worker's, and its own


@record
class Claim:
    """One request for a lock or an event: it waits, and then, if it was for a lock, it holds.

    Attributes:
        ticket: Its number: what it is granted, withdrawn and given back by.
        party: Who has asked: one thread of one process.
        who: How messages speak of it.
        since: When it began to wait, and later when it began to hold, seconds.
        certain: It waits without a time-out, so that nothing but a grant ends its wait.
    """

    ticket: Ticket
    party: Party
    who: str
    since: float
    certain: bool = True


@record
class LockRow:
    """One lock that somebody holds."""

    name: str
    holder: Claim
    waiting: dict[Ticket, Claim] = field(default_factory=dict)  # in the order in which they came


@record
class EventRow:
    """One event that is set, or that somebody waits for."""

    name: str
    since: float
    is_set: bool = False
    set_by: str = ""
    waiting: dict[Ticket, Claim] = field(default_factory=dict)


class LockTable:
    """All locks and events of one controller.

    >>> table = LockTable()
    >>> first, second = Claim((1, 1), Party(1, 0), "unit 1", 0.0), Claim((2, 1), Party(2, 0), "unit 2", 0.0)
    >>> table.acquire("door", first), table.acquire("door", second)
    (True, False)
    >>> table.release("door", (1, 1), now=5.0) is second
    True

    Attributes:
        locks, events: The rows, by name. Whoever reads them must not change them.
    """

    def __init__(self) -> None:
        self.locks: dict[str, LockRow] = {}
        self.events: dict[str, EventRow] = {}

    # -- locks

    def acquire(self, name: str, claim: Claim) -> bool:
        """Take a lock, and return True; or stand in line for it."""
        row = self.locks.get(name)
        if row is None:
            self.locks[name] = LockRow(name, claim)
            return True
        row.waiting[claim.ticket] = claim
        return False

    def release(self, name: str, ticket: Ticket, now: float) -> Claim | None:
        """Give a lock back, and return whose it is now. Ignored where it is not this ticket's: it was given back before."""
        row = self.locks.get(name)
        if row is None or row.holder.ticket != ticket:
            return None
        return self._pass_on(row, now)

    def withdraw(self, name: str, ticket: Ticket, now: float) -> Claim | None:
        """Forget a request for a lock or an event, whatever has become of it. Return whose the lock is by that."""
        for row in (self.locks.get(name), self.events.get(name)):
            if row is not None:
                row.waiting.pop(ticket, None)
        self._drop_if_idle(name)
        return self.release(name, ticket, now)

    def forget(self, is_gone: Callable[[Party], bool], now: float) -> tuple[list[LockRow], list[Claim]]:
        """Forget every claim of parties that are gone; return the locks that they held, as they were, and the claims that come true."""
        rows: list[LockRow | EventRow] = [*self.locks.values(), *self.events.values()]
        for row in rows:
            for ticket in [ticket for ticket, claim in row.waiting.items() if is_gone(claim.party)]:
                del row.waiting[ticket]
            self._drop_if_idle(row.name)
        held = [LockRow(row.name, row.holder) for row in self.locks.values() if is_gone(row.holder.party)]
        next_ones = [self.release(row.name, row.holder.ticket, now) for row in held]
        return held, [claim for claim in next_ones if claim is not None]

    def _pass_on(self, row: LockRow, now: float) -> Claim | None:
        if not row.waiting:
            del self.locks[row.name]
            return None
        row.holder = row.waiting.pop(next(iter(row.waiting)))
        row.holder.since = now
        return row.holder

    # -- events

    def set(self, name: str, who: str, now: float) -> list[Claim]:
        """Set an event, and return who has waited for it."""
        row = self.events.setdefault(name, EventRow(name, now))
        if not row.is_set:
            row.is_set, row.set_by, row.since = True, who, now
        waiting, row.waiting = row.waiting, {}
        return list(waiting.values())

    def clear(self, name: str) -> None:
        """Have an event not set. Nobody waits for one that is."""
        if self.is_set(name):
            del self.events[name]

    def is_set(self, name: str) -> bool:
        """Return whether an event is set."""
        row = self.events.get(name)
        return row is not None and row.is_set

    def wait(self, name: str, claim: Claim) -> bool:
        """Return True where an event is set; else stand in line till it is."""
        if self.is_set(name):
            return True
        self.events.setdefault(name, EventRow(name, claim.since)).waiting[claim.ticket] = claim
        return False

    def _drop_if_idle(self, name: str) -> None:
        row = self.events.get(name)
        if row is not None and not row.is_set and not row.waiting:
            del self.events[name]

    # -- who waits for what

    def waits_of(self, party: Party) -> Iterator[LockRow]:
        """Yield the locks that a party waits for, and will until it gets them."""
        for row in self.locks.values():
            if any(claim.party == party and claim.certain for claim in row.waiting.values()):
                yield row

    def waiting(self) -> bool:
        """Return whether anybody waits for a lock."""
        return any(row.waiting for row in self.locks.values())
