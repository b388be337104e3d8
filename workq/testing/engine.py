"""An engine whose workers live in this process and take one step at a time: for tests of the controller without processes and threads.

Channel and board are the real ones; only the loop around them is cut into steps that a test takes by hand.
"""

from __future__ import annotations

import _pickle
import os
import socket
from collections import deque
from collections.abc import Callable
from marshal import loads as marshal_loads
from typing import Any

from workq.engines.descriptors import make_lane
from workq.engines.protocol import EngineEvent, Exited, Lane, Started
from workq.transport import bells, codec
from workq.transport.board import (
    BATCH_AT,
    FINISHED,
    FRAMES,
    INT_LIMIT,
    KIND_FALSE,
    KIND_INT,
    KIND_NONE,
    KIND_SKIPPED,
    KIND_TRUE,
    LIMIT,
    MASK,
    STARTED,
    TARGET,
    Board,
)
from workq.transport.channel import DOWN_CONFIG, DOWN_LEAVE, DOWN_UNITS, UP_HEAD, UP_READY, Inbox

PLAIN_KINDS = {None: KIND_NONE, True: KIND_TRUE, False: KIND_FALSE}


class SteppedWorker:
    """A worker that does one thing when it is told to.

    Attributes:
        running: The number of the unit that it has begun, or 0.
        interrupts: The numbers of the units that were to be interrupted.
        killed: It was killed.
        left: It was asked to leave.
    """

    def __init__(self, lane: Lane, ends: list[int], engine: MemoryEngine) -> None:
        self.lane = lane
        self._engine = engine
        socket_fd, board_fd, *self._others = ends
        self._socket = socket.socket(fileno=socket_fd)
        self._socket.setblocking(False)
        self._board = Board.attach(board_fd)
        self._inbox = Inbox(self._socket.recv_into)
        self._functions: dict[int, Callable[..., Any]] = {}
        self._batch: deque[tuple[int, int, Any]] = deque()  # number, function, data
        self._unit: tuple[int, Any] | None = None
        self._next_number = 1  # of the next unit that is sent: a frame that names an earlier one was sent twice
        self.running = 0
        self.interrupts: list[int] = []
        self.killed = self.left = False

    def get_ready(self) -> None:
        """Take the first frame and say ready."""
        frame = self._frame()
        assert frame is not None
        assert frame[0] == DOWN_CONFIG, frame
        self._board.words[FRAMES] += 1
        self._socket.sendall(UP_HEAD.pack(UP_READY, 0))

    def begin(self) -> bool:
        """Begin the next unit that was sent, if there is one; those that were taken back are passed over."""
        assert not self.running
        while self._batch or self._take_batch():
            number, function, data = self._batch.popleft()
            words = self._board.words
            words[STARTED] = number
            if number <= words[LIMIT] and data is not None:
                self.running, self._unit = number, (function, data)
                return True
            self._put(number, KIND_SKIPPED)
        return False

    def end(self) -> None:
        """Run the unit that was begun, here and now, and leave its result: None, True, False, or a small whole number of 0 or more."""
        assert self._unit is not None
        function, data = self._unit
        value = self._functions[function](*_pickle.loads(data))
        assert value in PLAIN_KINDS or (type(value) is int and 0 <= value < INT_LIMIT), value
        number, self.running = self.running, 0
        self._put(number, value << 4 | KIND_INT if type(value) is int else PLAIN_KINDS[value])

    def step(self) -> bool:
        """Begin a unit and end it; return whether there was one."""
        if not self.running and not self.begin():
            return False
        self.end()
        return True

    def exit(self, code: int | None = 0) -> None:
        """End, as a process does."""
        self._engine.report(Exited(self.lane.number, code))
        self.close()

    def close(self) -> None:
        """Close our ends."""
        self._socket.close()
        self._board.close()
        for descriptor in self._others:
            os.close(descriptor)
        self._others = []

    def note_interrupt(self) -> None:
        """The signal has come: note which unit it is for."""
        self.interrupts.append(int(self._board.words[TARGET]))

    def _put(self, number: int, header: int) -> None:
        self._board.headers[number & MASK] = header
        self._board.ends[number & MASK] = int(self._engine.clock() * 1e9)
        if not self._batch:
            self._board.words[FINISHED] = number

    def _take_batch(self) -> bool:
        frame = self._frame()
        if frame is not None and frame[0] == DOWN_LEAVE:
            self.left = True
            frame = None
        if frame is None:
            return False
        assert frame[0] == DOWN_UNITS, frame
        first, same, batch, _, news = marshal_loads(frame[1])
        for number, pickled, _, _, _ in (news or {}).get("functions", ()):
            self._functions[number] = codec.load(pickled)
        if first < self._next_number:
            return self._take_batch()
        self._next_number = first + len(batch)
        self._board.words[BATCH_AT] = int(self._engine.clock() * 1e9)
        for index, data in enumerate(batch):
            function, data = (same, data) if same or data is None else data
            self._batch.append((first + index, function, data))
        return True

    def _frame(self) -> tuple[int, memoryview] | None:
        try:
            return self._inbox.next()
        except BlockingIOError:
            return None


class MemoryEngine:
    """See ``engines.protocol.Engine``. Workers start when the test says so; ``workers`` holds them by number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.workers: dict[int, SteppedWorker] = {}
        self._events: list[EngineEvent] = []
        self._fd, self._ring_fd = bells.make(blocking=False)

    def report(self, event: EngineEvent) -> None:
        """Have the controller hear of something."""
        self._events.append(event)

    def start(self, number: int) -> Lane:
        """Make a worker; it has started at once, and is ready when the test has it say so."""
        lane, ends = make_lane(number, wide=False)
        lane.pid = 1_000_000_000 + number  # nobody's
        self.workers[number] = SteppedWorker(lane, ends, self)
        self.report(Started(number))
        return lane

    def fileno(self) -> int:
        """Return a descriptor that is never readable: turns are taken by hand."""
        return self._fd

    def watched(self) -> list[tuple[int, int]]:
        """Return nothing: the same."""
        return []

    def events(self) -> list[EngineEvent]:
        """Return what was reported."""
        events, self._events = self._events, []
        return events

    def next_deadline(self) -> float | None:
        """Nothing is ever due by itself."""
        return None

    def interrupt(self, lane: Lane) -> None:
        """Have the worker note it."""
        self.workers[lane.number].note_interrupt()

    def kill(self, lane: Lane) -> None:
        """End the worker, as SIGKILL does."""
        worker = self.workers[lane.number]
        if not worker.killed:
            worker.killed = True
            worker.exit(-9)

    def close(self, deadline: float) -> None:
        """End what is left."""
        for worker in self.workers.values():
            worker.close()
        for fd in {self._fd, self._ring_fd}:
            os.close(fd)
