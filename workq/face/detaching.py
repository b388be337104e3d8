"""Detached queues: work that goes on without its WorkMgr, until somebody attaches it again by its token.

A token is 256 random bits, good once. Only its SHA-256 is kept, as the key of a table, so that no comparison of it takes a time that tells
anything. Tokens live as long as the process; a fork of it has none.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from workq.controller.departing import delete_inactive
from workq.controller.records import Queue
from workq.errors import QueueDetached, TokenError

TOKEN_BYTES = 32
PAST_KEPT = 10_000  # tokens of which it is remembered how they ended, so that an error can say it
NOT_IN_TIME = "it was detached, and nobody has attached it in time"


class Detached:
    """Stands in a WorkMgr for the row of its queue, once that was detached: most of what is asked of it raises."""

    closed = True

    def __init__(self, row: Queue) -> None:
        self.name = row.name
        self.category = row.category
        self.controller = row.controller

    def refusal(self) -> QueueDetached:
        """Return the error that says why nothing can be done with it."""
        return QueueDetached(f"queue {self.name} was detached: WorkMgr.attach(token) gives a WorkMgr that has it")

    def __getattr__(self, name: str) -> Any:
        raise self.refusal()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ("name", "category", "controller"):
            raise self.refusal()
        object.__setattr__(self, name, value)


@dataclass(slots=True, eq=False)
class Ticket:
    """A detached queue, and until when it may be attached, ``time.monotonic()`` seconds."""

    row: Queue
    expires_at: float
    alarm: Any = None


class Tickets:
    """The detached queues of this process. Any thread; the lock is held for lookups only."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[bytes, Ticket] = {}
        self._past: OrderedDict[bytes, str] = OrderedDict()

    def issue(self, row: Queue, timeout_s: float) -> str:
        """Keep a queue, and return the token that gives it back."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        key = _key(token)
        ticket = Ticket(row, time.monotonic() + timeout_s)
        row.detached = True
        with self._lock:
            self._open[key] = ticket
        if row.opened and not row.controller.inline:  # else nothing runs by itself, and the first who asks finds it expired
            loop = row.controller.running()
            expire = partial(row.controller.delivery.call, self.expire, key)  # not in the controller's thread: handlers of logs are called
            ticket.alarm = loop.alarms.set(ticket.expires_at, expire)
        return token

    def redeem(self, token: str) -> Queue:
        """Give a queue back, to the first who asks in time."""
        self.expire_all()
        key = _key(token)
        with self._lock:
            ticket = self._open.pop(key, None)
            if ticket is None:
                raise TokenError(self._past.get(key, UNKNOWN))
            self._remember(key, f"this token of queue {ticket.row.name} has been used: each is good once")
        row = ticket.row
        loop = row.controller.loop
        if ticket.alarm is not None and loop is not None:
            loop.alarms.drop(ticket.alarm)
        if row.controller.closed or row.closed:
            raise TokenError(f"queue {row.name} was deleted, with its controller")
        row.detached = False
        return row

    def expire(self, key: bytes) -> None:
        """Delete a queue whose time is over, unless somebody was quicker."""
        with self._lock:
            ticket = self._open.pop(key, None)
            if ticket is None:
                return
            self._remember(key, f"this token has expired, and queue {ticket.row.name} was deleted")
        row = ticket.row
        if not row.closed:
            outer: Any = row.controller
            delete_inactive(outer.outer if outer.inline else outer, row, NOT_IN_TIME)
        row.detached = False

    def expire_all(self) -> None:
        """Delete all queues whose time is over: those without a controller's thread have no other clock."""
        now = time.monotonic()
        with self._lock:
            tickets = list(self._open.items())
        for key in [key for key, ticket in tickets if ticket.expires_at <= now]:
            self.expire(key)

    def _remember(self, key: bytes, how: str) -> None:
        self._past[key] = how
        while len(self._past) > PAST_KEPT:
            self._past.popitem(last=False)


UNKNOWN = "this is no token of a queue that was detached in this process"
_tickets = Tickets()


def issue(row: Queue, timeout_s: float) -> str:
    """Detach a queue; return its token."""
    return _tickets.issue(row, timeout_s)


def redeem(token: object) -> Queue:
    """Return the queue of a token, which is good no more. Raises TokenError."""
    if not isinstance(token, str):
        raise TokenError(f"{UNKNOWN}: it must be a str, not {token!r}")
    return _tickets.redeem(token)


def expire_all() -> None:
    """Delete the detached queues whose time is over."""
    _tickets.expire_all()


def _key(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _forget_in_child() -> None:
    """A fork of the process has none of its workers, and so none of its queues."""
    global _tickets
    _tickets = Tickets()


os.register_at_fork(after_in_child=_forget_in_child)

__all__ = ["Detached", "expire_all", "issue", "redeem"]
