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


# ---------------------------------------------------------------- exceptions


class Odd(Exception):
    """An exception whose constructor wants other arguments than it keeps."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class Unreadable(Exception):
    """An exception none of whose texts can be had."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __str__(self) -> str:
        return str(misbehave(self.how))

    __repr__ = __str__


def throw_odd() -> NoReturn:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        odd = Odd(7, reason="odd")
        odd.add_note("a note")
        raise odd from error


def throw_in_context() -> NoReturn:
    try:
        raise KeyError("the context")
    except KeyError:
        raise Odd(7, reason="odd")


def throw_group() -> NoReturn:
    raise ExceptionGroup("several", [Odd(1, reason="first"), ExceptionGroup("inner", [ValueError("second"), Odd(3, reason="third")])])


def throw_group_with_lock() -> NoReturn:
    raise ExceptionGroup("several", [ValueError("first"), ValueError(threading.Lock())])


def throw_lock() -> NoReturn:
    raise ValueError("held", threading.Lock())


def throw_unreadable(how: str) -> NoReturn:
    raise Unreadable(how)


def throw_local() -> NoReturn:
    class Local(Exception):
        pass

    raise Local("of a function")


def throw_chain(length: int) -> NoReturn:
    error = ValueError(0)
    for number in range(1, length):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    raise error


def throw(kind: type[BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


def throw_large(size: int) -> NoReturn:
    raise ValueError("x" * size)


def pid() -> int:
    return os.getpid()


def announce_and_nap(fifo: str) -> None:
    """Tell the test that we run, and go on for ever."""
    announce(fifo)
    NAPPING.wait()


def nap() -> None:
    NAPPING.wait()


# ---------------------------------------------------------------- workers that end, or are stopped


def nap_as_pid(fifo: str) -> None:
    """Tell the test our pid, and go on for ever."""
    with open(fifo, "w") as file:
        print(os.getpid(), file=file)
    NAPPING.wait()


def announce_then(fifo: str, until: str, value: Any) -> Any:
    """Tell the test that we run, end when it writes to the second FIFO, and return the value."""
    announce(fifo)
    with open(until, "rb", buffering=0) as file:
        file.read(1)
    return value


def leave_child() -> int:
    """Start a process of a session of its own that holds all of the worker's descriptors open, and return its pid."""
    import signal

    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(tell, b"x")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    return child


def leave_child_and_nap(fifo: str) -> None:
    child = leave_child()
    with open(fifo, "w") as file:
        print(child, file=file)
    NAPPING.wait()


def write_lines_and_nap(fifo: str, lines: int, number: int = 2) -> None:
    """Write lines to a descriptor, tell the test, and go on for ever."""
    for line in range(lines):
        os.write(number, f"line {line}\n".encode())
    announce(fifo)
    NAPPING.wait()


def large(size: int, fifo: str = "", until: str = "") -> bytes:
    """Return so many bytes; with FIFOs, tell the test our pid before, and wait until it says something."""
    value = b"\x01" * size
    if fifo:
        with open(fifo, "w") as told:
            print(os.getpid(), file=told)
        with open(until, "rb", buffering=0) as file:
            file.read(1)
    return value


def announce_and_give(value: Any, fifo: str) -> Any:
    announce(fifo)
    return value


def size_of(value: bytes, folder: str = "") -> int:
    if folder:
        note_start(folder)
    return len(value)


def note_start(path: str, number: int = 0) -> int:
    """Add a line for this start to a file, in one call that no kill cuts in two."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"%d\n" % number)
    os.close(descriptor)
    return number


def note_start_and_work(path: str, number: int, rounds: int) -> int:
    note_start(path, number)
    return sum(range(rounds)) * 0 + number
