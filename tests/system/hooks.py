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
