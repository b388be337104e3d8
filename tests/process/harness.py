"""An engine with stub workers, for tests: starts, waits for events with a deadline, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import time
from typing import Any

from tests.support import DEADLINE_S
from workq.engines.local import LocalEngine
from workq.engines.protocol import EngineEvent, Exited, Lane, Started, StartFailed

STUB = "tests.process.stub:run"


class Pool:
    """A `LocalEngine` whose workers obey `tests.process.stub`."""

    def __init__(self, **options: Any) -> None:
        self.bells = os.eventfd(0, os.EFD_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
        self.engine = LocalEngine(self.bells, **{"entry_point": STUB, **options})
        self.lanes: list[Lane] = []
        self.happened: list[EngineEvent] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self, within_s: float = 5.0) -> None:
        self.engine.close(time.monotonic() + within_s)
        for lane in self.lanes:
            lane.close()
        for bell in self.bells:
            os.close(bell)
        self.lanes, self.bells = [], ()

    def start(self) -> Worker:
        """Start one worker and wait until it answers."""
        worker = self.begin()
        worker.wait_ready()
        return worker

    def begin(self) -> Worker:
        """Start one worker; wait for nothing."""
        lane = self.engine.start(len(self.lanes))
        self.lanes.append(lane)
        return Worker(self, lane)

    def turn(self, deadline: float) -> None:
        """Wait as the controller does: for the engine's descriptor or its deadline; then take in what has happened."""
        wanted = min(deadline, self.engine.next_deadline() or deadline)
        poll = select.poll()
        poll.register(self.engine.fileno(), select.POLLIN)
        poll.poll(max(0.0, wanted - time.monotonic()) * 1000)
        self.happened += self.engine.events()

    def wait_event(self, number: int, *kinds: type, deadline_s: float = DEADLINE_S) -> Any:
        """Return the first event of these kinds for this lane."""
        deadline = time.monotonic() + deadline_s
        while True:
            for event in self.happened:
                if event.number == number and isinstance(event, kinds):
                    return event
            assert time.monotonic() < deadline, f"no {kinds} for {number} within {deadline_s} s, only {self.happened}"
            self.turn(deadline)


class Worker:
    """One stub worker, as a test talks to it."""

    def __init__(self, pool: Pool, lane: Lane) -> None:
        self.pool = pool
        self.lane = lane
        self.lane.socket.settimeout(DEADLINE_S)
        self.ahead = b""

    def wait_ready(self) -> None:
        event = self.pool.wait_event(self.lane.number, Started, StartFailed)
        assert isinstance(event, Started), event.why
        assert self.line() == "ready"

    def line(self) -> str:
        """Return the next line that it sends."""
        while b"\n" not in self.ahead:
            piece = self.lane.socket.recv(4096)
            assert piece, "end of file"
            self.ahead += piece
        line, self.ahead = self.ahead.split(b"\n", 1)
        return line.decode()

    def ask(self, expression: str) -> Any:
        """Evaluate an expression in the worker."""
        self.tell(f"eval {expression}")
        return eval(self.line())

    def tell(self, order: str) -> None:
        self.lane.socket.sendall(order.encode() + b"\n")

    def wait_exited(self, deadline_s: float = DEADLINE_S) -> Exited:
        return self.pool.wait_event(self.lane.number, Exited, deadline_s=deadline_s)

    def stderr(self) -> str:
        """Return what it wrote to descriptor 2, to its end: the process must be gone."""
        return read_all(self.lane.error_fd)

    def stdout(self) -> str:
        return read_all(self.lane.output_fd)


def read_all(descriptor: int) -> str:
    """Read a pipe that does not block until it is empty or ended."""
    data = b""
    try:
        while piece := os.read(descriptor, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data.decode(errors="replace")
