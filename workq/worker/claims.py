"""The locks that units of this worker hold, and their conversation with the controller over the worker's socket."""

from __future__ import annotations

import sys
import time
from _thread import get_ident
from marshal import dumps as marshal_dumps
from typing import TYPE_CHECKING, Any

from workq import context
from workq.transport.board import FINISHED, STARTED, WAIT_NUMBER, WAIT_QUEUE, WAIT_UNIT
from workq.transport.channel import UP_LOCK
from workq.transport.claims import GIVING_BACK, QUEUED, TAKING, Claims, Held
from workq.transport.lockpage import Page, Thin
from workq.worker.output import identity

if TYPE_CHECKING:
    from workq.worker.main import Worker


PATIENCE_S = 0.01


class WorkerClaims(Claims):
    """One for each worker process. Any thread of a unit may use it.

    ``_answers`` holds an item for each ticket that is waited for: made and deleted by the thread that waits, filled by whichever reads.
    """

    def __init__(self, side: Worker) -> None:
        super().__init__()
        self._side = side
        self._answers: dict[int, tuple[int, str] | None] = {}
        self._thin: Thin | None = None  # made with the first lock that is granted
        TAKING.update(function.__code__ for function in (WorkerClaims.acquire, WorkerClaims._take_unasked, WorkerClaims.forget))
        side.interrupts.entering, side.interrupts.leaving = TAKING, GIVING_BACK
        self._circle: tuple[int, str] | None = None  # the wait for units that stands in a circle, and how messages tell that

    # ------------------------------------------------------------ locks that are free (lockpage.py)

    def acquire(self, name: str, wait: bool, timeout: float | None) -> bool:
        """Take a lock for the calling thread: without asking, if it is free."""
        if self._take_unasked(name):
            return True
        taken = self.ask_for(name, wait, timeout, again=False)
        if taken is None:  # nobody has it: from now on we know how it is taken
            taken = self._take_unasked(name) or self.ask_for(name, wait, timeout, again=True)
        return bool(taken)

    def _take_unasked(self, name: str) -> bool:
        thin, words = self._thin, self._side.words
        if thin is None or name not in thin.bytes:
            return False
        mine = Held(get_ident(), 0, words[STARTED] if words[STARTED] > words[FINISHED] else 0, "")
        try:
            number = self.shield()
            taken = thin.take(name, self.held, mine, time.monotonic_ns())
            self.unshield(number)
        except BaseException:
            self.give_back(name, mine)  # it may have the byte, whatever is noted
            raise
        return taken

    def give_back(self, name: str, held: Held) -> None:
        """Give back a lock that this process holds."""
        if held.ticket or self._thin is None:
            super().give_back(name, held)
        elif self._thin.give(name, self.held, held):
            self.send("freed", 0, name)

    def learn(self, name: str, text: str) -> None:
        """Learn the byte of a lock, if we may open the page."""
        byte, fd, inode = map(int, text.split())
        if self._thin is None:
            try:
                page = Page.of(self._side.parent_pid, fd, inode)
            except OSError:
                return
            self._side.own_descriptors[page.fd] = identity(page.fd)  # a unit that closes it has given its locks back
            self._thin = Thin(page, self._side.words, self._side.main_thread)
        self._thin.bytes[name] = byte

    # ------------------------------------------------------------ the conversation

    def send(self, *request: Any) -> None:
        """Hand a request to the controller."""
        self._side.say(UP_LOCK, marshal_dumps(request))

    def expect(self, ticket: int) -> None:
        """Answers to this ticket are waited for from now on."""
        self._answers[ticket] = None

    def forget(self, ticket: int) -> None:
        """Nobody waits for this ticket any more."""
        self._answers.pop(ticket, None)

    def answer(self, ticket: int, deadline: float | None, after_queued: bool = False) -> tuple[int, str] | None:
        """Wait for what the controller answers to a ticket; None where the time ran out."""
        replies = self._side.replies
        while True:
            heard = replies.heard  # before the look
            answer = self._answers[ticket]
            if answer is not None and not (after_queued and answer[0] == QUEUED):
                return answer
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            replies.wait_once(left, heard)

    def take(self, reply: tuple[Any, ...]) -> None:
        """Take in what the controller says. Any thread, whichever reads."""
        _, ticket, what, text = reply
        if ticket < 0:
            self._circle = -ticket, text
        elif ticket in self._answers:
            self._answers[ticket] = what, text

    def _stand_in_line(self, ticket: int, deadline: float | None) -> tuple[int, str] | None:
        """Wait for one's turn; from `PATIENCE_S` on as a blocked worker: before that a stand-in would not be worth its start."""
        soon = time.monotonic() + PATIENCE_S
        answer = super()._stand_in_line(ticket, soon if deadline is None else min(soon, deadline))
        if answer is not None:
            return answer
        with context.blocking():
            return super()._stand_in_line(ticket, deadline)

    def set(self, name: str) -> None:
        """Set an event; when this returns everybody sees it (but for a signal handler that interrupted a wait: soon)."""
        if self._side.replies.reads_here():
            self.send("set", 0, name, self.thread(), self.unit()[1])
        else:
            super().set(name)

    def thread(self) -> int:
        """Return by which number the controller knows the calling thread: 0 is the main one."""
        ident = get_ident()
        return 0 if ident == self._side.main_thread else ident

    def unit(self) -> tuple[int, str]:
        """Return the number of the unit that runs here (0: none), and how messages speak of it."""
        info = self._side.current_unit()
        if info is None:
            return 0, self._side.name
        return self._side.words[STARTED], f"unit {info.queue}:{info.id} {info.name}{self._thread_text(get_ident())}"

    def _thread_text(self, ident: int) -> str:
        """Return how messages speak of a thread; nothing for the main one."""
        if ident == self._side.main_thread:
            return ""
        threading: Any = sys.modules.get("threading")
        names = [thread.name for thread in threading.enumerate() if thread.ident == ident] if threading is not None else []
        return f" (thread {names[0]})" if names else " (a thread)"

    def shield(self) -> int:
        """Hold interrupts back."""
        return self._side.interrupts.shield() if get_ident() == self._side.main_thread else 0

    def unshield(self, number: int) -> None:
        """Let them strike again."""
        if number:
            self._side.interrupts.unshield(number)

    # ------------------------------------------------------------ waits for units, which may close a circle

    def waits_for(self, queue: int, unit: int) -> int:
        """Note on the board that the main thread waits for a unit (0: for all) of a queue that its unit made; return the wait's number."""
        words = self._side.words
        words[WAIT_QUEUE], words[WAIT_UNIT] = queue, unit
        words[WAIT_NUMBER] = number = words[WAIT_NUMBER] + 1 | 1  # odd: it waits
        return int(number)

    def waits_no_more(self, number: int) -> None:
        """Note that this wait is over."""
        if self._side.words[WAIT_NUMBER] == number:
            self._side.words[WAIT_NUMBER] = number + 1

    def circle(self, number: int) -> str | None:
        """Return in what circle this wait stands, or None."""
        found = self._circle
        return found[1] if found is not None and found[0] == number else None

    # ------------------------------------------------------------ the end of a unit

    def left_locked(self) -> list[str]:
        """Return the names of the locks that the unit which has just ended, or one before it, still holds."""
        left = [(name, thread) for (name, thread), held in tuple(self.held.items()) if held.unit]
        for name, thread in left:
            self.send("left", 0, name, self.unit()[1] + self._thread_text(thread))
        return [name for name, _ in left]
