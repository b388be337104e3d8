"""The control thread of a worker: beats, notices the launcher's death, and makes room in the pipes while a long unit writes.

It does no work for units that end within `PAUSE_S` of their first byte: they are looked at by the main thread. And it takes from a
pipe only what keeps its writers from waiting: what lies in the pipe survives a SIGKILL, and the parent shows it as the worker's last
words; what is in the worker's memory does not. It never spins: after a look that brought nothing it pauses, each time for longer,
and a descriptor that a unit has closed is not polled again.

Signals are blocked in it, from its birth: an interrupt has to wake the main thread, and no other. All but the one that asks for stacks,
which the parent sends to this thread alone where the main one would be disturbed; and it answers who asks for stacks by the pipe.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum and functools: 3 ms of each start
import os
import select
import time
from _thread import get_native_id, start_new_thread

from workq.transport.board import BEAT, STACK_SIGNAL, STARTED, WATCH_THREAD
from workq.worker import stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workq.transport.board import Board
    from workq.worker.output import Output

HEARTBEAT_S = 1.0
PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.16  # and so long, at most, a writer waits that has been quiet and then fills a pipe at once


def start(board: Board, output: Output, parent_pid: int, heartbeat_s: float = HEARTBEAT_S) -> None:
    """Start the thread. It ends with the process, or when the board is given back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {STACK_SIGNAL})
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
        self._poll = self._with_questions(output.new_poll())
        self._questions = self._with_questions(select.poll())
        self._next_beat = 0.0
        self._pause_s = PAUSE_S

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
        ready = self._without_questions(self._poll.poll(self._rest_s() * 1000))
        if ready:
            self.look(ready)
        else:
            self._pause_s = PAUSE_S

    def beat(self) -> None:
        """Say that this process lives, and end it if nobody is left to hear that."""
        self._words[BEAT] = time.monotonic_ns()
        self._words[WATCH_THREAD] = get_native_id()
        self._next_beat = time.monotonic() + self._heartbeat_s
        if os.getppid() != self._parent_pid:
            end_group()

    def look(self, ready: list[tuple[int, int]]) -> None:
        """Somebody writes: give the unit the time to end, then make room for it if it is still the same one."""
        if any(not event & select.POLLIN for _, event in ready):
            self._poll = self._with_questions(self._output.find_dead(ready))
        started = self._words[STARTED]
        self._pause(min(self._pause_s, self._rest_s()))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        while self._words[STARTED] == started and time.monotonic() < self._next_beat:
            if not self._output.drain():
                return
            self._pause_s = PAUSE_S

    def _pause(self, seconds: float) -> None:
        """Let time pass, and answer who asks meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._without_questions(self._questions.poll(left * 1000))

    def _with_questions(self, poll: select.poll) -> select.poll:
        if stack.questions() >= 0:
            poll.register(stack.questions(), select.POLLIN)
        return poll

    def _without_questions(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Answer, if somebody asks for the stacks; return the rest."""
        rest = [(fd, event) for fd, event in ready if fd != stack.questions()]
        if len(rest) < len(ready) and not stack.answer():
            self._poll = self._with_questions(self._output.new_poll())
            self._questions = self._with_questions(select.poll())
        return rest

    def _rest_s(self) -> float:
        return max(0.0, self._next_beat - time.monotonic())


def end_group() -> None:
    """Kill this process and what it has started. The launcher has given it a group of its own; if not, it goes alone."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
