"""Locks and events between units and the application: the controller keeps the table, and answers in the order in which it is asked.

A worker asks by its socket, a thread of the application by `inbox`. What a worker held comes free when its process is gone, and not
before: whatever it did under the lock has ended by then. A thread that waits tells on its own; the controller never waits for any.

Circles are looked for where a wait begins that has no time-out: for a lock here, for units by the worker's board (`WAIT_NUMBER`). A wait
that is read from a board may just be over; so a circle counts only if all its waits are the same when they are read again.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from marshal import dumps as marshal_dumps
from marshal import loads as marshal_loads
from typing import TYPE_CHECKING, Any

from workq.controller.claims import UnitsWait
from workq.controller.lockbytes import UNASKED, UNKNOWN_THREAD, LockBytes
from workq.controller.records import Queue, Worker
from workq.core.circles import find_circle, sentence
from workq.core.events import WorkerId
from workq.core.locks import Claim, LockRow, LockTable, Party
from workq.outcome import PENDING
from workq.transport.board import EXIT_LOCKED, WAIT_NUMBER, WAIT_QUEUE, WAIT_UNIT
from workq.transport.channel import DOWN_REPLY, Frame, down_frame
from workq.transport.claims import CIRCLE, FREE, GRANTED, QUEUED, REFUSED
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")

LEAKS_KEPT = 100
LOOKS = 100  # at a lock that comes and goes while we look who has it


@dataclass(frozen=True, slots=True)
class LockLeak:
    """A unit that ended, or died, and still held a lock.

    Attributes:
        lock: The lock's name.
        holder: The unit, as messages name it.
        worker: The name of its worker.
        pid: Of its worker.
        held_s: How long it had held the lock when its worker was gone, seconds.
        died: True: the worker died under the unit; False: the unit ended, and its worker was replaced.
        queue: The name of the unit's queue, or None.
    """

    lock: str
    holder: str
    worker: str
    pid: int
    held_s: float
    died: bool
    queue: str | None = None


class Locks:
    """The table, and the conversation about it. Belongs to the controller's thread; any thread appends to ``inbox``."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.table = LockTable()
        self.inbox: deque[tuple[Worker | None, tuple[Any, ...]]] = deque()
        self.leaks: deque[LockLeak] = deque(maxlen=LEAKS_KEPT)
        self.bytes = LockBytes()
        self._unasked: set[str] = set()  # the locks in the table whose holder has not asked
        self._left_by: dict[tuple[int, str], str] = {}  # by worker and lock: the unit that has ended and still holds it
        self._waits_seen: dict[int, int] = {}  # by worker: the last wait for units that was looked at
        self._verbs: dict[str, Callable[..., None]] = {
            "acquire": self._acquire,
            "release": self._release,
            "leak": self._leak,
            "freed": self._freed,
            "left": self._left,
            "withdraw": self._withdraw,
            "locked": self._locked,
            "set": self._set,
            "clear": self._clear,
            "is_set": self._is_set,
            "wait": self._wait,
            "waits": self._waits,
        }

    # ------------------------------------------------------------ from other threads

    def take_frame(self, worker: Worker, frame: Frame) -> None:
        """Keep what a worker asks until the controller comes. Under the lead."""
        request = worker, marshal_loads(frame.payload)
        keep = self.inbox.append
        frame.taken = True
        keep(request)
        self._loop.ring()

    # ------------------------------------------------------------ the controller's thread

    def turn(self) -> None:
        """Answer what was asked, and look at waits that have begun."""
        while self.inbox:
            worker, (verb, ticket, *rest) = self.inbox.popleft()
            self._verbs[verb](worker, ticket, *rest)
        for name in tuple(self._unasked):
            self._look_who_has(name)
        if self.table.locks and self.table.waiting():
            self._look_at_boards()

    def worker_gone(self, worker: Worker, code: int | None, unit: Unit[Any] | None) -> None:
        """A worker has ended, and was read to its end: what it held is free. ``unit``: what died with it."""
        self.turn()  # what it has asked before; and what it had taken without asking is ours now, or somebody else's
        number = int(worker.number)
        self._waits_seen.pop(number, None)
        now = time.monotonic()
        for name in self.bytes.held_by(worker):
            claim = self.bytes.claim_of(name, worker, unit.label if unit is not None else "")
            claim.who = self._left_by.pop((number, name), claim.who)
            self._tell_leak(LockRow(name, claim), worker.name, worker.pid, code != EXIT_LOCKED, now)
        held, granted = self.table.forget(lambda party: party.worker == number, now)
        for row in held:
            self._tell_leak(row, worker.name, worker.pid, code != EXIT_LOCKED, now)
            self._left_by.pop((number, row.name), None)
            self._passed_on(row.name, None)
        self._grant(granted)

    def _tell_leak(self, row: LockRow, where: str, pid: int, died: bool, now: float) -> None:
        holder, held_s = row.holder.who, now - row.holder.since
        queue = holder.removeprefix("unit ").rpartition(":")[0] if holder.startswith("unit ") else None
        self.leaks.append(LockLeak(row.name, holder, where, pid, held_s, died, queue))
        how = "died while it" if died else "ended and still"
        logger.warning("%s %s held lock %r, for %.3f s, in %s (pid %d): it is free", holder, how, row.name, held_s, where, pid)

    # ------------------------------------------------------------ from any thread: what is to be seen

    def waits(self) -> dict[int, str]:
        """Return what the waiting units wait for, in words, by the number of their worker."""
        found: dict[int, str] = {}
        for event in list(self.table.events.values()):
            for claim in list(event.waiting.values()):
                found[claim.party.worker] = f"event {event.name!r}"
        for row in list(self.table.locks.values()):
            for claim in list(row.waiting.values()):
                found[claim.party.worker] = f"lock {row.name!r}, held by {row.holder.who}"
        return found

    def held(self) -> list[LockRow]:
        """Return the rows of the locks that are held, those included that were taken without asking."""
        rows = list(self.table.locks.values())
        names = {row.name for row in rows}
        for name in list(self.bytes.names):
            worker = self._worker_of(self.bytes.holder_of(name)) if name not in names else None
            if worker is not None:
                rows.append(LockRow(name, self._claim_of(name, worker)))
        return rows

    def leaks_of(self, queue: str) -> tuple[str, ...]:
        """Return which units of a queue have left a lock held, in words."""
        return tuple(f"lock {leak.lock!r} by {leak.holder}" for leak in tuple(self.leaks) if leak.queue == queue)

    # ------------------------------------------------------------ requests

    def _acquire(
        self, worker: Worker | None, ticket: int, name: str, thread: int, who: str, wait: bool, certain: bool, again: bool
    ) -> None:
        if worker is not None:
            self.bytes.assign(name)
        self._look_who_has(name)
        if name not in self.table.locks and not again and (text := self.bytes.describe(name)):
            self.bytes.disown(name)
            return self._answer(worker, ticket, FREE, text)
        if name in self.table.locks and not wait:
            self._passed_on(name, None)
            return self._answer(worker, ticket, REFUSED)
        claim = self._claim(worker, ticket, thread, who, certain)
        if self.table.acquire(name, claim):
            return self._answer(worker, ticket, GRANTED)
        circle = self._circle(claim.party, who) if certain else ""
        if circle:
            self._passed_on(name, self.table.withdraw(name, claim.ticket, claim.since))
            self._answer(worker, ticket, CIRCLE, circle)
        else:
            self._answer(worker, ticket, QUEUED)

    def _release(self, worker: Worker | None, ticket: int, name: str) -> None:
        self._passed_on(name, self.table.release(name, _ticket(worker, ticket), time.monotonic()))

    def _leak(self, worker: Worker | None, ticket: int, name: str) -> None:
        """A unit that ran in the application has ended and still holds a lock."""
        row = self.table.locks.get(name)
        if row is not None and row.holder.ticket == (0, ticket):
            self._tell_leak(row, "the application", os.getpid(), False, time.monotonic())
        self._release(None, ticket, name)

    def _withdraw(self, worker: Worker | None, ticket: int, name: str) -> None:
        self._passed_on(name, self.table.withdraw(name, _ticket(worker, ticket), time.monotonic()))

    def _locked(self, worker: Worker | None, ticket: int, name: str, *rest: object) -> None:
        self._answer(worker, ticket, GRANTED if name in self.table.locks or self.bytes.holder_of(name) else REFUSED)

    def _set(self, worker: Worker | None, ticket: int, name: str, thread: int, who: str, *rest: object) -> None:
        self._grant(self.table.set(name, who, time.monotonic()))
        self._answer(worker, ticket, GRANTED)

    def _clear(self, worker: Worker | None, ticket: int, name: str, *rest: object) -> None:
        self.table.clear(name)
        self._answer(worker, ticket, GRANTED)

    def _is_set(self, worker: Worker | None, ticket: int, name: str, *rest: object) -> None:
        self._answer(worker, ticket, GRANTED if self.table.is_set(name) else REFUSED)

    def _wait(self, worker: Worker | None, ticket: int, name: str, thread: int, who: str, wait: bool, certain: bool, *rest: object) -> None:
        is_set = self.table.wait(name, self._claim(worker, ticket, thread, who, certain))
        self._answer(worker, ticket, GRANTED if is_set else QUEUED)

    def _waits(self, worker: Worker | None, ticket: int, wait: UnitsWait) -> None:
        """A thread of the application that holds locks waits for units."""
        circle = self._circle(Party(0, wait.thread), "")
        if circle:
            wait.circle = circle
            self._loop.lead.wake_all()

    # ------------------------------------------------------------ answers

    @staticmethod
    def _claim(worker: Worker | None, ticket: int, thread: int, who: str, certain: bool) -> Claim:
        number = 0 if worker is None else int(worker.number)
        return Claim((number, ticket), Party(number, thread), who, time.monotonic(), certain)

    def _passed_on(self, name: str, claim: Claim | None) -> None:
        """A lock was given back, or a claim withdrawn: tell whose it is now, or let workers take it without asking."""
        if claim is not None:
            self._grant([claim])
        row = self.table.locks.get(name)
        if row is not None and row.holder.ticket[1] == UNASKED and not row.waiting:
            self.table.release(name, row.holder.ticket, 0.0)  # nobody cares any more who has it
            row = None
        if row is None:
            self._unasked.discard(name)
            self.bytes.disown(name)

    def _grant(self, claims: list[Claim]) -> None:
        for claim in claims:
            number, ticket = claim.ticket
            worker = self._loop.by_number.get(WorkerId(number)) if number else None
            if worker is not None or not number:  # else it is dead, and its claims will be forgotten in a moment
                self._answer(worker, ticket, GRANTED)

    # ------------------------------------------------------------ locks that were taken without asking (transport/lockpage.py)

    def _look_who_has(self, name: str) -> None:
        """Make a lock ours to grant; or, where a worker has taken it without asking, have its row say so.

        Called whenever somebody asks for it, and each turn while somebody waits: who has it may have died, or been another who has
        seen the flag, gives it back and asks.
        """
        row = self.table.locks.get(name)
        if row is not None and row.holder.ticket[1] != UNASKED:
            return
        for _ in range(LOOKS):
            if self.bytes.own(name):
                if row is not None:
                    self._unasked.discard(name)
                    self._passed_on(name, self.table.release(name, row.holder.ticket, time.monotonic()))
                return
            worker = self._worker_of(self.bytes.holder_of(name))
            if worker is not None:
                break
        else:  # who has it is ending, and not yet told of
            worker = None
        self._unasked.add(name)
        claim = self._claim_of(name, worker)
        if row is None:
            self.table.acquire(name, claim)
        elif row.holder.party.worker != claim.party.worker or row.holder.party.thread == UNKNOWN_THREAD:
            row.holder = claim

    def _claim_of(self, name: str, worker: Worker | None) -> Claim:
        if worker is None:
            return Claim((-1, UNASKED), Party(-1, UNKNOWN_THREAD), "a worker that ends", time.monotonic())
        running = self._loop.dispatcher.running(worker)
        return self.bytes.claim_of(name, worker, running[0].label if running is not None else "")

    def _worker_of(self, pid: int) -> Worker | None:
        return next((worker for worker in self._loop.dispatcher.workers if pid and worker.pid == pid), None)

    def _freed(self, worker: Worker | None, ticket: int, name: str) -> None:
        """A worker has given a lock back, and seen the flag."""
        if name in self.table.locks:
            self._look_who_has(name)

    def _left(self, worker: Worker | None, ticket: int, name: str, who: str) -> None:
        """A unit has ended and still holds a lock: its worker ends in a moment."""
        if worker is not None:
            self._left_by[int(worker.number), name] = who

    def _answer(self, worker: Worker | None, ticket: int, what: int, text: str = "") -> None:
        if worker is not None:
            if not worker.exited:
                with self._loop.dispatcher.lock:
                    worker.outgoing.send(down_frame(DOWN_REPLY, marshal_dumps((None, ticket, what, text))))
            return
        gate = self._loop.controller.claims.gates.get(ticket)
        if gate is not None:
            gate.answer = what, text
            gate.open()

    # ------------------------------------------------------------ circles

    def _look_at_boards(self) -> None:
        """Units may have begun to wait for units of their own since the last look."""
        for worker in self._loop.dispatcher.workers:
            wait = int(worker.words[WAIT_NUMBER])
            if wait & 1 and self._waits_seen.get(int(worker.number)) != wait and not worker.exited:
                self._waits_seen[int(worker.number)] = wait
                circle = self._circle(Party(int(worker.number), MAIN), "")
                if circle and worker.words[WAIT_NUMBER] == wait:
                    self._answer(worker, -wait, CIRCLE, circle)

    def end_wait(self, worker: Worker, why: str) -> None:
        """Have the wait of a worker's unit for units of its own end with `WaitError`."""
        wait = int(worker.words[WAIT_NUMBER])
        if wait & 1 and not worker.exited:
            self._answer(worker, -wait, CIRCLE, why)

    def _circle(self, party: Party, who: str) -> str:
        """Return the circle that a party's wait has closed, in words, or an empty text."""
        found = find_circle(party, self._waits_for)
        boards = self._boards(found)
        if not found or find_circle(party, self._waits_for) != found or self._boards(found) != boards:
            return ""
        names = [name for node in found if (name := self._name(node, who if node == party else ""))]
        return sentence(names)

    def _boards(self, nodes: list[Any]) -> list[int]:
        """Return the numbers of the waits of these nodes, which change with each."""
        workers = [self._loop.by_number.get(WorkerId(node.worker)) for node in nodes if isinstance(node, Party)]
        return [int(worker.words[WAIT_NUMBER]) for worker in workers if worker is not None]

    def _waits_for(self, node: Any) -> Iterator[Any]:
        """Yield what a node waits for: a party for locks and units, a lock for its holder, a unit for the thread that runs it."""
        if isinstance(node, Party):
            yield from self._waits_of_party(node)
        elif isinstance(node, str):
            row = self.table.locks.get(node)
            if row is not None:
                yield row.holder.party
        else:
            runs = self._runner_of(node)
            if runs is not None:
                yield Party(int(runs.number), MAIN)

    def _waits_of_party(self, party: Party) -> Iterator[Any]:
        worker = self._loop.by_number.get(WorkerId(party.worker))
        for row in self.table.waits_of(party):
            yield row.name
        if worker is not None and party.thread == MAIN and worker.words[WAIT_NUMBER] & 1:
            yield from self._loop.nested.units_of(worker, int(worker.words[WAIT_QUEUE]), int(worker.words[WAIT_UNIT]))
        elif not party.worker:
            wait = self._loop.controller.claims.unit_waits.get(party.thread)
            if wait is not None:
                yield from self._running_units(wait.waits_for)

    def _running_units(self, waits_for: Unit[Any] | Queue) -> list[Unit[Any]]:
        if isinstance(waits_for, Unit):
            return [waits_for]
        running = [self._loop.dispatcher.running(worker) for worker in list(waits_for.workers)]
        return [one[0] for one in running if one is not None]

    def _runner_of(self, unit: Unit[Any]) -> Worker | None:
        """Return the worker that runs a unit now, if it is not being stopped: that will end its wait."""
        if unit.value is not PENDING or (unit.extra is not None and unit.extra.stopping is not None):
            return None
        for worker in self._loop.dispatcher.workers:
            running = self._loop.dispatcher.running(worker)
            if running is not None and running[0] is unit:
                return worker
        return None

    def _name(self, node: Any, who: str) -> str:
        """Return how messages speak of a node; nothing for a thread that runs a unit, which is named itself."""
        if isinstance(node, str):
            return f"lock {node!r}"
        if isinstance(node, Unit):
            return ""
        if who:
            return who
        worker = self._loop.by_number.get(WorkerId(node.worker))
        if worker is not None:
            running = self._loop.dispatcher.running(worker)
            return f"unit {running[0].label}" if running is not None else worker.name
        return self._thread_name(node.thread)

    @staticmethod
    def _thread_name(ident: int) -> str:
        import threading

        names = [thread.name for thread in threading.enumerate() if thread.ident == ident]
        return f"the application ({names[0] if names else 'a thread'})"


MAIN = 0  # as a party's thread: the main thread of its worker


def _ticket(worker: Worker | None, ticket: int) -> tuple[int, int]:
    return (0 if worker is None else int(worker.number)), ticket
