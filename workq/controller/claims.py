"""The locks that threads of the application hold, and their conversation with the controller's thread."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from workq import context
from workq.controller.waiting import LOOK_S
from workq.errors import QueueClosed, WaitError
from workq.transport.claims import QUEUED, Claims

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.controller import Controller
    from workq.controller.records import Queue
    from workq.unit import Unit


class Gate:
    """Where one thread waits for what the controller answers to one ticket."""

    __slots__ = ("_shut", "answer")

    def __init__(self) -> None:
        self.answer: tuple[int, str] | None = None
        self._shut = threading.Lock()
        self._shut.acquire()

    def open(self) -> None:
        """Have the thread look. Twice is once."""
        try:
            self._shut.release()
        except RuntimeError:
            pass

    def wait(self, seconds: float) -> None:
        """Wait until it is opened, and shut it again; or for so long."""
        self._shut.acquire(timeout=seconds)


class UnitsWait:
    """A thread that holds locks waits for units, without a time-out: it may stand in a circle."""

    __slots__ = ("circle", "thread", "waits_for")

    def __init__(self, thread: int, waits_for: Unit[Any] | Queue) -> None:
        self.thread = thread
        self.waits_for = waits_for
        self.circle: str | None = None  # how messages tell the circle; written by the controller's thread


class ApplicationClaims(Claims):
    """One for each controller. Any thread of the application may use it; ``gates`` are opened by the controller's thread."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.gates: dict[int, Gate] = {}
        self.unit_waits: dict[int, UnitsWait] = {}  # by thread

    def send(self, *request: Any) -> None:
        """Hand a request to the controller's thread."""
        controller = self._controller
        if controller.closed and request[0] in ("release", "withdraw"):
            return  # everything is free
        loop = controller.running()
        loop.start()
        loop.locks.inbox.append((None, request))
        loop.ring()

    def expect(self, ticket: int) -> None:
        """Answers to this ticket are waited for from now on."""
        self._check_may_wait()
        self.gates[ticket] = Gate()

    def forget(self, ticket: int) -> None:
        """Nobody waits for this ticket any more."""
        self.gates.pop(ticket, None)

    def answer(self, ticket: int, deadline: float | None, after_queued: bool = False) -> tuple[int, str] | None:
        """Wait for what the controller answers to a ticket; None where the time ran out."""
        gate = self.gates[ticket]
        while True:
            gate.wait(LOOK_S if deadline is None else max(0.0, min(LOOK_S, deadline - time.monotonic())))
            answer = gate.answer
            if answer is not None and not (after_queued and answer[0] == QUEUED):
                return answer
            if self._controller.closed or self._controller.running().lead.closed:
                raise QueueClosed("the controller was closed while this was waited for")
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def set(self, name: str) -> None:
        """Set an event. Whatever is asked afterwards finds it set: requests are answered in their order."""
        self.send("set", 0, name, 0, self.unit()[1])

    def clear(self, name: str) -> None:
        """Clear an event. Whatever is asked afterwards finds it cleared."""
        self.send("clear", 0, name)

    def _check_may_wait(self) -> None:
        """Raise in a signal handler or a finalizer that has struck where the controller's thread would wait for us."""
        loop = self._controller.loop
        if loop is None:
            return
        if loop.lead.lock._is_owned() or loop.dispatcher.lock._is_owned():  # type: ignore[attr-defined]
            raise WaitError(
                "a signal handler or a finalizer that interrupted a wait for units, or the queueing of one, "
                "cannot ask for a lock or an event in that thread"
            )
        if threading.current_thread() is loop.thread:
            raise WaitError("a finalizer that runs in the controller's own thread cannot ask for a lock or an event")

    def unit(self) -> tuple[int, str]:
        """Return 1 in a unit that runs here as its queue has no workers, else 0; and how messages speak of this thread."""
        info = context.current_unit()
        if info is not None:
            return 1, f"unit {info.queue}:{info.id} {info.name}"
        return 0, f"the application ({threading.current_thread().name})"

    def settle(self) -> None:
        """Wait until the controller has heard all that this thread has said so far, if that is possible here."""
        loop = self._controller.loop
        if loop is not None and loop.thread is not None:
            with contextlib.suppress(WaitError, QueueClosed):
                self._ask("locked", "", timeout=0.0)

    def free_those_of(self, who: str) -> list[str]:
        """Give back what a unit that ran here has left locked, and return the locks' names."""
        left = [(lock, held) for lock, held in tuple(self.held.items()) if held.who == who]
        for lock, held in left:
            if self.held.get(lock) is held:
                del self.held[lock]
            self.send("leak", held.ticket, lock[0])
        return [name for (name, _), _ in left]

    # ------------------------------------------------------------ waits for units, which may close a circle

    def wait_for(self, waits_for: Unit[Any] | Queue, ready: Callable[[], bool], wait: Callable[[Callable[[], bool]], None]) -> None:
        """Wait for units in a thread that holds locks. Raises WaitError where that closes a circle."""
        loop = self._controller.running()
        mine = UnitsWait(threading.get_ident(), waits_for)
        before = self.unit_waits.get(mine.thread)
        self.unit_waits[mine.thread] = mine
        try:
            loop.locks.inbox.append((None, ("waits", 0, mine)))
            loop.ring()
            wait(lambda: ready() or mine.circle is not None)
        finally:
            if before is not None:
                self.unit_waits[mine.thread] = before
            else:
                self.unit_waits.pop(mine.thread, None)
        if mine.circle is not None and not ready():
            raise WaitError(mine.circle)

    def holds_any(self) -> bool:
        """Return whether the calling thread holds a lock."""
        me = threading.get_ident()
        return any(held.thread == me for held in tuple(self.held.values()))

    def end_waits(self) -> None:
        """The controller was closed: nobody answers any more."""
        for gate in tuple(self.gates.values()):
            gate.open()
