"""Values and exceptions whose pickling and unpickling misbehave as told, and the units that make them. Imported by workers too."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

NAPPING = threading.Event()  # never set


def misbehave(how: str) -> object:
    """Raise, exit, die, recurse without end, hang (after a byte into a FIFO), or do nothing."""
    word, _, fifo = how.partition(" ")
    if word == "raise":
        raise LookupError("not today")
    if word == "exit":
        sys.exit("goodbye")
    if word == "die":
        os._exit(3)
    if word == "recurse":
        return misbehave(how)
    if word == "hang":
        announce(fifo)
        NAPPING.wait()
    return None


def announce(fifo: str) -> None:
    """Tell the test, which holds the other end, that we are there."""
    with open(fifo, "wb", buffering=0) as file:
        file.write(b"x")


class AtDump:
    """Misbehaves when it is pickled."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        misbehave(self.how)
        return AtDump, (self.how,)


class AtLoad:
    """Misbehaves when it is unpickled in the process of this number, or in any but that one (the number is negative then)."""

    def __init__(self, how: str, pid: int) -> None:
        self.how = how
        self.pid = pid

    def __reduce__(self) -> Any:
        return load_here, (self.how, self.pid)

    def __call__(self) -> str:
        return "called"


def load_here(how: str, pid: int) -> AtLoad:
    if (os.getpid() == pid) if pid > 0 else (os.getpid() != -pid):
        misbehave(how)
    return AtLoad(how, pid)


class ErrorAtDump(Exception):
    """An exception that misbehaves when it is pickled."""

    def __reduce__(self) -> Any:
        misbehave(self.args[0])
        return ErrorAtDump, self.args


class Calls:
    """An argument whose pickling calls what the test gives it, in the test's own process."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __reduce__(self) -> Any:
        self.function()
        return str, ("pickled",)


def give(value: Any) -> Any:
    return value


def make_at_dump(how: str) -> AtDump:
    return AtDump(how)


def make_at_load(how: str, pid: int) -> AtLoad:
    return AtLoad(how, pid)


def throw_at_dump(how: str) -> NoReturn:
    raise ErrorAtDump(how)


def make_lock() -> object:
    return threading.Lock()


def make_generator() -> object:
    return (number for number in range(3))


def make_nested(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def make_unknown() -> object:
    """Return an instance of a class in a module that exists in this process only."""
    import types

    module = types.ModuleType("known_here_only")
    sys.modules[module.__name__] = module
    exec("class Thing: pass", module.__dict__)
    return module.__dict__["Thing"]()


def make_lambda() -> Callable[[int], int]:
    return lambda number: number + 1
