"""The control thread of a worker: beats, notices the launcher's death, and empties the pipes while a long unit writes.

It does no work for units that end within `PAUSE_S` of their first byte: they are looked at by the main thread. It never spins: after
each look that brought little it pauses, and a descriptor that a unit has closed is not polled again.

Signals are blocked in it, from its birth: an interrupt has to wake the main thread, and no other.
"""

from __future__ import annotations

import os
import select
import signal
import time
from _thread import start_new_thread

from workq.transport.board import BEAT, STARTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workq.transport.board import Board
    from workq.worker.output import Output

HEARTBEAT_S = 1.0
PAUSE_S = 0.02
LITTLE_BYTES = 32 << 10  # whoever writes more between two looks is waiting for us


def start(board: Board, output: Output, parent_pid: int, heartbeat_s: float = HEARTBEAT_S) -> None:
    """Start the thread. It ends with the process, or when the board is given back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        start_new_thread(Watch(board, output, parent_pid, heartbeat_s).run, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Watch:
    """What the control thread knows. Owned by that thread alone."""

    def __init__(self, board: Board, output: Output, parent_pid: int, heartbeat_s: float) -> None:
        self._words = board.words
        self._output = output
        self._parent_pid = parent_pid
        self._heartbeat_s = heartbeat_s
        self._poll = output.new_poll()
        self._next_beat = 0.0

    def run(self) -> None:
        """Go round until the process ends."""
        while True:
            try:
                self.turn()
            except ValueError:  # the board has been given back
                return
            except (OSError, MemoryError):  # nothing of a unit's doing may end the heartbeat
                time.sleep(PAUSE_S)

    def turn(self) -> None:
        """Beat if it is time, then wait for output until it is time again."""
        if time.monotonic() >= self._next_beat:
            self.beat()
        ready = self._poll.poll(self._rest_s() * 1000)
        if ready:
            self.look(ready)

    def beat(self) -> None:
        """Say that this process lives, and end it if nobody is left to hear that."""
        self._words[BEAT] = time.monotonic_ns()
        self._next_beat = time.monotonic() + self._heartbeat_s
        if os.getppid() != self._parent_pid:
            end_group()

    def look(self, ready: list[tuple[int, int]]) -> None:
        """Somebody writes: give the unit the time to end, then empty the pipes for it if it is still the same one."""
        if any(not event & select.POLLIN for _, event in ready):
            self._poll = self._output.find_dead(ready)
        started = self._words[STARTED]
        time.sleep(PAUSE_S)
        while self._words[STARTED] == started and time.monotonic() < self._next_beat:
            if self._output.drain() < LITTLE_BYTES:
                return

    def _rest_s(self) -> float:
        return max(0.0, self._next_beat - time.monotonic())


def end_group() -> None:
    """Kill this process and what it has started. The launcher has given it a group of its own; if not, it goes alone."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
