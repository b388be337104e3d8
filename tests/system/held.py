"""Units that run until a test lets them go. They say that they run by opening a fifo: nobody has to guess when."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import workq
from tests.support import DEADLINE_S, wait_until
from workq.config import DEFAULTS

NEVER_JUDGED = DEFAULTS._replace(sample_s=3600.0)  # what waits counts as active, unless it says so: nobody stands in for held units


def hold(fifo: str) -> int:
    """Wait in a read, until the other end is closed; return the worker's pid."""
    with open(fifo, "rb") as file:
        file.read()
    return os.getpid()


def declare(fifo: str) -> int:
    """The same, and say so."""
    with open(fifo, "rb") as file, workq.blocking():
        file.read()
    return os.getpid()


def spin(fifo: str) -> int:
    """Compute until the other end is closed."""
    with open(fifo, "rb", buffering=0) as end:
        os.set_blocking(end.fileno(), False)
        while end.read(1) != b"":
            sum(range(1000))
    return os.getpid()


def deaf(fifo: str) -> int:
    """Compute, and ignore every interrupt, until the other end is closed or the process is killed."""
    fd, flags = -1, os.O_RDONLY
    while True:
        try:  # around everything: the interrupt may come right after the opening
            if fd < 0:
                fd = os.open(fifo, flags)
                os.set_blocking(fd, False)
            while True:
                try:
                    if os.read(fd, 1) == b"":
                        return os.getpid()
                except BlockingIOError:
                    pass
        except workq.ExternalInterrupt:
            flags |= os.O_NONBLOCK  # it may have been open, and the other end may be closed by now: there would be nobody to wait for


def sleep(fifo: str) -> None:
    """Wait for the clock."""
    with open(fifo, "rb"):
        select.select([], [], [], 600)


def wait_for_lock(fifo: str) -> None:
    """Wait for a lock that nobody gives back."""
    lock = threading.Lock()
    with open(fifo, "rb"), lock:
        lock.acquire()


def wait_for_file_lock(fifo: str) -> None:
    """Wait for a file that another process has locked."""
    with open(fifo, "rb"), open(fifo + ".lock", "w") as first, open(fifo + ".lock", "w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX)


def wait_for_busy_child(fifo: str) -> None:
    """Wait for a process that computes."""
    with open(fifo, "rb"):
        subprocess.run([sys.executable, "-S", "-c", "while True: pass"], check=False)


class Held:
    """A unit, queued, begun, and running until it is let go. As a context manager it is let go at the end."""

    def __init__(self, wq: Any, folder: Path, function: Callable[[str], object] = hold) -> None:
        self.fifo = str(folder / f"fifo{next(_numbers)}")
        os.mkfifo(self.fifo)
        self.unit = wq.queue(function, self.fifo)
        self._file: Any = None

    def wait_begun(self) -> Held:
        """Wait until the unit has opened its end."""
        wait_until(lambda: self.begun, what=f"{self.unit!r} has begun")
        return self

    @property
    def begun(self) -> bool:
        """Whether the unit has opened its end; True opens ours."""
        if self._file is None:
            try:
                self._file = os.fdopen(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK), "wb")
            except OSError:
                return False
        return True

    def let_go(self) -> None:
        """Close our end."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Held:
        return self.wait_begun()

    def __exit__(self, *exc: object) -> None:
        self.let_go()


@contextmanager
def between_turns(controller: workq.Controller) -> Iterator[None]:
    """Keep the controller where it has nothing in hand: at the beginning of its next turn, when it asks for the time."""
    loop, there, on = controller.running(), threading.Event(), threading.Event()
    clock = loop.clock

    def slow_clock() -> float:
        there.set()
        assert on.wait(DEADLINE_S)
        return clock()

    loop.clock = slow_clock
    loop.ring()
    assert there.wait(DEADLINE_S)
    try:
        yield
    finally:
        loop.clock = clock
        on.set()


_numbers = iter(range(1_000_000_000))
