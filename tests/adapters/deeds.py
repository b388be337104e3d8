"""What the units of this folder's tests do."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

made_ready = None


def make_ready(value: object) -> None:
    global made_ready
    made_ready = value


def what_was_made_ready() -> object:
    return made_ready


def fail_to_start(*_: object) -> None:
    raise ValueError("error in initializer")


def fail(text: str) -> None:
    raise LookupError(text)


def leave(code: int) -> None:
    sys.exit(code)


def die() -> None:
    os._exit(9)


def touch(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def wait_for_line(fifo: str) -> str:
    """Wait until somebody writes to a fifo."""
    with open(fifo) as file:
        return file.readline()


def do(what: str, path: str) -> None:
    """One of the above, for a map."""
    {"nothing": len, "touch": touch, "wait": wait_for_line}[what](path)


def put(queue: Any, value: object) -> None:
    queue.put(value)


def hold(lock: Any) -> None:
    with lock:
        make_ready("held")


def deep(depth: int) -> int:
    """Submit from within a call, so deep."""
    import workq

    if depth == 0:
        return 0
    with workq.Executor(1) as executor:
        return 1 + executor.submit(deep, depth - 1).result()


class Thing:
    """Can be watched by a weak reference."""

    def method(self) -> str:
        return "called"


class Unpicklable:
    def __init__(self) -> None:
        self.lock = threading.Lock()
