"""What the parent answers to a unit: whichever of the unit's threads waits reads the worker's socket, and tells the others.

Frames that are not answers are kept for the worker's loop, which reads whenever no unit runs.
"""

from __future__ import annotations

import os
import select
import threading
from marshal import loads as marshal_loads
from typing import TYPE_CHECKING, Any

from workq.transport.channel import DOWN_REPLY
from workq.transport.claims import waits_already

if TYPE_CHECKING:
    from workq.worker.main import Worker

LOOK_S = 0.05  # who read before may have gone on to something else, and tells nobody: so long until the next one reads


class Replies:
    """The reading, and the waiting for those who read. ``_reader`` and ``heard`` are written by the thread that holds the inbox.

    The race that ``heard`` settles: 1. a thread looks whether its answer is there; 2. another one reads it, and gives the inbox back;
    3. the first takes the inbox, and would wait for what has come already. So it says what it had heard before it looked, and looks again
    where there is more by now.
    """

    def __init__(self, side: Worker) -> None:
        self._side = side
        self._changed = threading.Condition()
        self._reader = 0
        self.heard = 0  # how many replies were taken in

    def wait_once(self, left: float | None, heard: int) -> None:
        """Wait until more was ``heard`` than when the caller looked, for ``left`` seconds at most: read, or be told by who reads."""
        lock = self._side.inbox.lock
        if self.reads_here():
            raise waits_already()
        if not lock.acquire(False):
            with self._changed:
                if self.heard == heard:
                    self._changed.wait(LOOK_S if left is None else min(left, LOOK_S))
            return
        try:
            self._reader = threading.get_ident()
            if self.heard != heard:
                return
            poll = select.poll()
            poll.register(self._side.socket.fileno(), select.POLLIN)
            if self._side.inbox.buffered() or poll.poll(None if left is None else left * 1000 + 1):
                self._read()
        finally:
            self._reader = 0
            lock.release()
            self.tell()

    def reads_here(self) -> bool:
        """Return whether the calling thread is reading: then a signal handler has interrupted it."""
        return self._reader == threading.get_ident()

    def tell(self) -> None:
        """Have whoever waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _read(self) -> None:
        """Take one frame off the socket, whole, whatever interrupts come."""
        number = self._side.interrupts.shield() if threading.get_ident() == self._side.main_thread else 0
        try:
            frame = self._side.inbox.receive()
            if frame is None:
                os._exit(1)  # the parent is gone
            kind, body = frame
            if kind == DOWN_REPLY:
                self.take(marshal_loads(body))
            else:
                self._side.inbox.stash.append((kind, memoryview(bytes(body))))
        finally:
            if number:
                self._side.interrupts.unshield(number)

    def take(self, reply: tuple[Any, ...]) -> None:
        """Hand a reply over. By whoever has read it, before the inbox is given back."""
        self._side.replied(reply)
        self.heard += 1
