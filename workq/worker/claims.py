"""The locks that units of this worker hold, and their conversation with the controller over the worker's socket."""

from __future__ import annotations

import sys
import time
from _thread import get_ident
from marshal import dumps as marshal_dumps
from typing import TYPE_CHECKING, Any

from workq import context
from workq.claims import QUEUED, Claims
from workq.transport.board import STARTED, WAIT_NUMBER, WAIT_QUEUE, WAIT_UNIT
from workq.transport.channel import UP_LOCK

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
        self._circle: tuple[int, str] | None = None  # the wait for units that stands in a circle, and how messages tell that

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
        while True:
            answer = self._answers[ticket]
            if answer is not None and not (after_queued and answer[0] == QUEUED):
                return answer
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._side.replies.wait_once(left)

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
        text = f"unit {info.queue}:{info.id} {info.name}"
        if get_ident() != self._side.main_thread:
            threading = sys.modules.get("threading")
            text += f" (thread {threading.current_thread().name})" if threading is not None else " (a thread)"
        return self._side.words[STARTED], text

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
        return [name for name, held in tuple(self.held.items()) if held.unit]
