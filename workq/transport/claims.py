"""What the threads of one process hold and ask of the lock table, which the controller keeps. Both sides' half of the conversation.

A request goes to the controller under a *ticket*; what it answers comes back under the same. Whoever stops waiting, whatever the reason
(a time-out, an interrupt, Ctrl-C), withdraws the ticket: the controller then takes back what it has granted meanwhile. So a grant that
crosses a withdrawal leaves no lock held.
"""

from __future__ import annotations

import time
from _thread import get_ident
from itertools import count

from workq.errors import LockError, WaitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

FIRST_ANSWER_S = 1.0  # how much longer than its time-out a request waits to hear that the lock is free, or is not
GRANTED, REFUSED, QUEUED, CIRCLE, FREE = range(5)  # what the controller answers; FREE: nobody has it, take it without asking


def waits_already() -> WaitError:
    """Return what is raised in a signal handler that would wait in the middle of its own thread's wait."""
    return WaitError("a signal handler that interrupted a wait for the parent's answer cannot itself wait for one in that thread")


class Held:
    """A lock that a thread of this process holds."""

    __slots__ = ("thread", "ticket", "unit", "who")

    def __init__(self, thread: int, ticket: int, unit: int, who: str) -> None:
        self.thread = thread
        self.ticket = ticket  # 0: it was free, and nobody was asked
        self.unit = unit  # the worker's number of the unit that took it; 0: none did
        self.who = who  # as messages name it


class Claims:
    """The locks that this process holds, and the asking.

    ``held`` is by lock and thread, and an entry is made and deleted by its own thread alone: whoever gives a lock back comes to his entry
    afterwards, and by then another thread may have got the lock, and made its own.

    Each side says how it sends, waits and shields what must not be cut in two.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], Held] = {}
        self._tickets = count(1)

    # ------------------------------------------------------------ what each side does its own way

    def send(self, *request: Any) -> None:
        """Hand a request to the controller."""
        raise NotImplementedError

    def answer(self, ticket: int, deadline: float | None, after_queued: bool = False) -> tuple[int, str] | None:
        """Wait for what the controller answers to a ticket; None where the time ran out. ``after_queued``: QUEUED is no answer."""
        raise NotImplementedError

    def expect(self, ticket: int) -> None:
        """Answers to this ticket are waited for from now on."""
        raise NotImplementedError

    def forget(self, ticket: int) -> None:
        """Nobody waits for this ticket any more."""
        raise NotImplementedError

    def learn(self, name: str, text: str) -> None:
        """Learn from ``text`` how a lock may be taken without asking."""

    def thread(self) -> int:
        """Return by which number the controller knows the calling thread."""
        return get_ident()

    def unit(self) -> tuple[int, str]:
        """Return the number of the unit that runs here (0: none), and how messages speak of it."""
        raise NotImplementedError

    def shield(self) -> int:
        """Hold interrupts back; return what `unshield` wants."""
        return 0

    def unshield(self, number: int) -> None:
        """Let them strike again."""

    # ------------------------------------------------------------ locks

    def acquire(self, name: str, wait: bool, timeout: float | None) -> bool:
        """Take a lock for the calling thread; return False where it could not be had at once, or in time."""
        return bool(self.ask_for(name, wait, timeout, again=True))

    def ask_for(self, name: str, wait: bool, timeout: float | None, again: bool) -> bool | None:
        """Ask for a lock. None, where this is not asked ``again``: nobody has it, and it may be taken without asking."""
        number, who = self.unit()
        ticket = next(self._tickets)
        answer = self._ask("acquire", name, ticket, wait, timeout, who, Held(get_ident(), ticket, number, who), again)
        return answer == GRANTED if answer != FREE else None

    def release(self, name: str) -> None:
        """Give a lock back. Raises LockError where the calling thread does not hold it."""
        held = self.held.get((name, get_ident()))
        if held is None and self._has(name):
            raise LockError(f"lock {name!r} cannot be released: another thread holds it")
        if held is None:
            raise LockError(f"lock {name!r} cannot be released: nobody holds it in this process")
        number = self.shield()
        self.give_back(name, held)
        self.unshield(number)

    def give_back(self, name: str, held: Held) -> None:
        """Give back a lock that this process holds."""
        self.send("release", held.ticket, name)
        self.held.pop((name, held.thread), None)

    def holds(self, name: str) -> bool:
        """Return whether the calling thread holds a lock."""
        return (name, get_ident()) in self.held

    def locked(self, name: str) -> bool:
        """Return whether anybody holds a lock."""
        return self._has(name) or self._ask("locked", name) == GRANTED

    def _has(self, name: str) -> bool:
        """Return whether a thread of this process holds a lock."""
        return any(name == each for each, _ in tuple(self.held))

    # ------------------------------------------------------------ events

    def set(self, name: str) -> None:
        """Set an event; when this returns everybody sees it."""
        self._ask("set", name, who=self.unit()[1])

    def clear(self, name: str) -> None:
        """Clear an event; when this returns everybody sees it."""
        self._ask("clear", name)

    def is_set(self, name: str) -> bool:
        """Return whether an event is set."""
        return self._ask("is_set", name) == GRANTED

    def wait(self, name: str, timeout: float | None) -> bool:
        """Wait for an event; return whether it is set."""
        return self._ask("wait", name, wait=True, timeout=timeout, who=self.unit()[1]) == GRANTED

    # ------------------------------------------------------------ asking

    def _ask(
        self,
        what: str,
        name: str,
        ticket: int = 0,
        wait: bool = False,
        timeout: float | None = None,
        who: str = "",
        held: Held | None = None,
        again: bool = True,
    ) -> int:
        """Ask one thing, wait for the answer and return it; whatever ends the wait before withdraws it."""
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        ticket = ticket or next(self._tickets)
        self.expect(ticket)
        answer = None
        try:
            self.send(what, ticket, name, self.thread(), who, wait, timeout is None, again)
            answer = self.answer(ticket, None if deadline is None else deadline + FIRST_ANSWER_S)
            if answer is not None and answer[0] == QUEUED:
                answer = self._stand_in_line(ticket, deadline)
            if answer is not None and answer[0] == GRANTED and held is not None:
                self.held[name, held.thread] = held
            if answer is not None and answer[0] == FREE:
                self.learn(name, answer[1])
        except BaseException:
            self._withdraw(name, ticket)
            raise
        finally:
            self.forget(ticket)
        if answer is None:
            self._withdraw(name, ticket)
            return REFUSED
        if answer[0] == CIRCLE:
            raise WaitError(answer[1])
        return answer[0]

    def _stand_in_line(self, ticket: int, deadline: float | None) -> tuple[int, str] | None:
        """Wait for one's turn."""
        return self.answer(ticket, deadline, after_queued=True)

    def _withdraw(self, name: str, ticket: int) -> None:
        number = self.shield()
        held = self.held.get((name, get_ident()))
        if held is not None and held.ticket == ticket:
            self.held.pop((name, held.thread), None)
        self.send("withdraw", ticket, name)
        self.unshield(number)


# The code in whose lines no interrupt of a worker strikes (worker/interrupt.py); locking.py and worker/claims.py add theirs.
TAKING: set[CodeType] = {function.__code__ for function in (Claims.acquire, Claims.ask_for, Claims._ask)}
GIVING_BACK: set[CodeType] = {Claims.release.__code__}
