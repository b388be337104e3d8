"""Reading: how a unit waits for units of its own, and takes in what the parent says of them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from workq import context
from workq.attempt import Attempt
from workq.category import Category, unpacked
from workq.controller import tallies
from workq.controller.children import ANSWERED, NEWS, POOLS_NEWS, RUN_OWN
from workq.controller.nested import ENDED, PICKLED
from workq.controller.records import Queue
from workq.core.states import UnitState
from workq.errors import WaitError, not_in_time
from workq.hosts.children import Grant, OwnRuns
from workq.hosts.telling import tell_here
from workq.outcome import PENDING, Ended, Raw
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.worker.main import Worker as Side

logger = logging.getLogger("workq")


class Reading:
    """The part of a ``NestedController`` that waits. What it needs is the controller's.

    One thread of the unit's reads, whichever waits; the others are told of each outcome.
    """

    if TYPE_CHECKING:
        _side: Side
        _open: dict[tuple[int, int], Unit[Any]]
        _sending: Any
        _answers: set[int]
        _leaving: dict[int, Queue]
        _reads_along: bool
        _pools_version: int
        _pools: dict[str, Category]
        _own_runs: OwnRuns

        def check_usable(self) -> None: ...
        def request(self, *what: Any) -> None: ...

    def wait_unit(self, unit: Unit[Any], timeout: float | None) -> None:
        """Wait until a unit has ended."""
        self.wait(lambda: unit.value is not PENDING, timeout, f"unit {unit.label} has not ended", unit, unit.call.queue)

    def wait(
        self,
        ready: Callable[[], bool],
        timeout: float | None,
        what: str,
        waits_for: Unit[Any] | Queue | None = None,
        runs: Queue | None = None,
    ) -> None:
        """Wait until `ready()`, as a blocked worker. One thread reads; others are told of each outcome.

        A wait of the main thread that has no time-out, for what it names, may close a circle: then it raises WaitError. Where the category
        may have no more processes units of the queue ``runs`` are run here; the time is looked at between two.
        """
        self.check_usable()
        deadline = None if timeout is None else time.monotonic() + timeout
        while (grant := self._wait_or_be_granted(ready, deadline, waits_for, runs)) is not None:
            self._run_own(*grant)
        if not ready():
            raise not_in_time(what, timeout)

    def _wait_or_be_granted(
        self, ready: Callable[[], bool], deadline: float | None, waits_for: Unit[Any] | Queue | None, runs: Queue | None
    ) -> Grant | None:
        """Wait until `ready()` or the time is over; return before that where we are to run a unit of ``runs`` ourselves."""
        if deadline is not None or waits_for is None or threading.get_ident() != self._side.main_thread:
            with context.blocking():
                return self._wait(ready, deadline, runs)
        claims = self._side.locks()
        queue, unit = (waits_for.number, 0) if isinstance(waits_for, Queue) else (waits_for.call.queue.number, waits_for.id)
        number = claims.waits_for(queue, unit)
        try:
            with context.blocking():  # afterwards: its bell has the controller look
                grant = self._wait(lambda: ready() or claims.circle(number) is not None, None, runs)
        finally:
            claims.waits_no_more(number)
        if grant is None and not ready():
            raise WaitError(claims.circle(number))
        return grant

    def _wait(self, ready: Callable[[], bool], deadline: float | None, runs: Queue | None) -> Grant | None:
        offers: list[int] = []  # the one that is open
        try:
            return self._wait_for_grant(ready, deadline, runs, offers)
        finally:
            if offers and runs is not None:
                self._own_runs.withdraw(runs, offers[0])

    def _wait_for_grant(self, ready: Callable[[], bool], deadline: float | None, runs: Queue | None, offers: list[int]) -> Grant | None:
        """A function of its own, see ``Lead._read_until``."""
        replies = self._side.replies
        heard = replies.heard  # before each look
        while not ready():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            if not offers and runs is not None and self._own_runs.may_offer(runs):
                offers.append(self._own_runs.offer(runs))
            replies.wait_once(left, heard)
            heard = replies.heard
            if offers and (grant := self._own_runs.granted(offers[0])) is not None:
                offers.clear()
                return grant
        return None

    def _run_own(self, offer: int, queue_number: int, unit_id: int, number: int, attempt: int) -> None:
        """Run what we were given for an offer."""
        unit = self._open.get((queue_number, unit_id))
        if unit is None:  # its queue was closed just now, and the parent knows
            self.request("withdraw", queue_number, offer)
        else:
            self._own_runs.run(unit, offer, number, attempt)

    def wake_waiters(self) -> None:
        """Have whoever waits look again."""
        self._side.replies.tell()

    def waited_for_otherwise(self, unit: Unit[Any]) -> None:
        """Somebody waits who does not read: have a thread read until all that is open has ended."""
        with self._sending:
            if self._reads_along:
                return
            self._reads_along = True
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # interrupts are for the main thread
            try:
                threading.Thread(target=self._read_along, name="workq-outcomes", daemon=True).start()
            except RuntimeError:  # no threads are left
                self._reads_along = False
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    called_back_later = waited_for_otherwise

    def _read_along(self) -> None:
        while True:
            heard = self._side.replies.heard
            with self._sending:
                if not self._open:
                    self._reads_along = False
                    return
            self._side.replies.wait_once(1.0, heard)

    def _take(self, reply: tuple[Any, ...]) -> None:
        """Settle a unit by what the parent says of it, or take in news that are of no unit."""
        if reply[0] == NEWS:
            self._hear(*reply[1:])
            return
        queue_number, unit_id, what, data, state, output, (started_ns, ended_ns, earlier), worker_name = reply
        unit = self._open.pop((queue_number, unit_id), None)
        if unit is None:
            return
        queue = unit.call.queue
        unit.started_ns, unit.ended_ns = started_ns, ended_ns
        unit.worker_record = SimpleNamespace(name=worker_name)  # type: ignore[assignment]
        if earlier:
            unit.need_extra().history = [Attempt(*attempt) for attempt in earlier]
            unit.need_extra().attempt = len(earlier) + 1
        if output:
            unit.need_extra().output += output
            queue.outputs.append(unit)
        self._count(unit, UnitState(state))
        if started_ns and ended_ns:
            tallies.note_unit(unit)
        queue.retrying -= 1
        if what == ENDED:
            self._settle(unit, Ended(UnitState(state), payload=data, function=unit.call.name, exact=queue.exact_errors))
        else:
            self._settle(unit, Raw(data) if what == PICKLED else data)

    def _hear(self, what: int, *news: Any) -> None:
        if what == ANSWERED:
            leaving = self._leaving.pop(news[0], None)
            if leaving is not None:
                leaving.gone = True
            else:
                self._answers.add(news[0])
            return
        if what == RUN_OWN:
            self._own_runs.take(*news)
            return
        assert what == POOLS_NEWS, what
        version, rows = news
        self._pools = unpacked(rows)
        self._pools_version = version

    @staticmethod
    def _count(unit: Unit[Any], state: UnitState) -> None:
        queue = unit.call.queue
        if state not in (UnitState.DONE, UnitState.CANCELLED):
            queue.note_failure(unit)
        name = state.value.replace(" ", "_")
        setattr(queue, name, getattr(queue, name) + 1)

    def _settle(self, unit: Unit[Any], value: Any) -> None:
        if unit.extra is None:  # nothing is called between this and the store, so nobody makes one meanwhile
            unit.value = value
        else:
            unit.extra.end(unit, value)
        unit.call.queue.ended.append(unit)
        tell_here(unit)


__all__ = ["Reading"]
