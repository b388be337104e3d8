"""A thread that queues units one by one and waits for each: how it is told, and what its workers are spared.

Such a unit may have ended before its thread waits for it, always where both share a core. Its worker would ring the controller then, which
finds nothing to do: that doubles the price of the trip. So in a row it rings nobody, and the thread that waits looks before it blocks.
The controller looks each `ROW_S` whether the row goes on, and takes over where it does not.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING

from workq.transport.board import CONTROLLER, NOBODY, WAIT, fence

if TYPE_CHECKING:
    from workq.controller.records import Worker

ROW = 8  # units that one thread has queued and waited for one by one: from then on it is believed to go on so
ROW_S = 0.005  # between two looks whether a row goes on; at 2 ms one trip of a hundred met one
SHORT_S = 500e-6  # of units that take longer a wake-up more is no matter


class Row:
    """The row of one controller, if there is one.

    ``thread`` is stored under the lead where a row begins, and anywhere where it ends; who dispatches reads it in the line that arms the
    worker, so that no other thread comes between. The rest belongs to the lead; a row that ends under its hand leaves a guess, no more.
    """

    __slots__ = ("_count", "_last", "thread", "went_on")

    def __init__(self) -> None:
        self.thread = 0  # whose units ring nobody; 0: there is no row
        self.went_on = False  # since the controller has looked
        self._last = 0  # the thread that has waited for a lone unit last
        self._count = 0  # how many it has, one after the other

    def count(self, estimate_s: float) -> bool:
        """Count a lone unit that the calling thread has waited for; return whether a row may begin with it."""
        caller = get_ident()
        if self.thread == caller:
            self.went_on = True
            return False
        if self._last != caller:
            self._last, self._count = caller, 0
        self._count += 1
        return self._count >= ROW and estimate_s < SHORT_S

    def yield_to(self, thread: int) -> None:
        """Stop where another thread waits alone: it would not hear of what the row's thread sends, nor that one of its end."""
        if self.thread and self.thread != thread:
            self.stop()

    def stop(self) -> None:
        """No unit is sent so any more. What is under way stays as it is: somebody else arms its worker, or reads."""
        self.thread = self._count = 0

    def end(self, workers: list[Worker]) -> None:
        """The same, and the controller is rung for what is under way. Followed by a look, as some of it may have ended."""
        self.stop()
        for worker in workers:
            if worker.batches and worker.words[WAIT] == NOBODY:
                worker.words[WAIT] = CONTROLLER
        fence()
