"""Every exception a caller can meet, one tree.

``WorkqError`` is the root. Each way for a unit to end badly is a class with fields, and its message says what happened, to
which unit, in which worker, and what to do about it. A worker process imports this only where something has gone wrong.
"""

from __future__ import annotations

import _pickle
import os
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from workq.interruption import ExternalInterrupt

if TYPE_CHECKING:
    from types import TracebackType

    from workq.halt import Halt as Halt
    from workq.halt import UnitPoisoned as UnitPoisoned
    from workq.halt import WorkerHalted as WorkerHalted

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "CategoryError",
    "ExternalInterrupt",
    "ForkedError",
    "Halt",
    "LaunchError",
    "LockError",
    "PicklingError",
    "QueueDetached",
    "QueueClosed",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "ResultError",
    "SessionLost",
    "SetupFailed",
    "TooLate",
    "TokenError",
    "UnitCancelled",
    "UnitCpuExceeded",
    "UnitFailed",
    "UnitMemoryExceeded",
    "UnitPoisoned",
    "UnitTimeout",
    "WaitError",
    "WorkErrors",
    "WorkerHalted",
    "WorkqError",
]


class WorkqError(Exception):
    """The root of all errors that workq raises by itself."""


class ArgumentError(WorkqError, ValueError):
    """An argument has a value that is not allowed; the message names it and says what is."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument is of a type that is not allowed, where the standard library says TypeError."""


class CategoryError(WorkqError, LookupError):
    """There is no such category, or it cannot be made, changed or deleted that way."""


class QueueClosed(WorkqError, RuntimeError):
    """The queue, or its controller, has been closed: nothing more can be queued on it."""


class QueueFull(WorkqError, RuntimeError):
    """So many units wait in the queue as may (``max_pending``): this one was not queued."""


class QueueDetached(WorkqError, RuntimeError):
    """This WorkMgr has given its queue away by ``detach()``; ``WorkMgr.attach(token)`` gives another one that has it."""


class TokenError(WorkqError, LookupError):
    """No queue can be attached by this token: it is of none, was used, or has expired; the message says which."""


class ForkedError(WorkqError, RuntimeError):
    """This process is a fork of the one that made the object; its workers belong to the other process."""


class WaitError(WorkqError, RuntimeError):
    """A wait that can never end: refused, or broken off. Units and locks that wait for each other in a circle, which the message names;
    a unit that waits for itself; a signal handler that interrupted the very wait it would need."""


class LockError(WorkqError, RuntimeError):
    """A lock was to be released by a thread that does not hold it."""


class PicklingError(WorkqError, _pickle.PicklingError, TypeError):
    """A function or an argument cannot be sent to a worker; the message names which. It is a ``pickle.PicklingError`` too."""


class LaunchError(WorkqError, RuntimeError):
    """Workers of a category cannot be started; the message holds what the last one wrote to stderr."""


class UnitFailed(WorkqError):
    """The root of what ends a unit other than its own exception."""

    def __repr__(self) -> str:
        """Return the message's first line, and not the values of which it is made."""
        if len(self.args) < 2:
            return super().__repr__()
        return f"{type(self).__name__}({str(self).partition(chr(10))[0]!r})"


class UnitCancelled(UnitFailed, CancelledError):
    """The unit was cancelled: by ``cancel()``, or with its queue. Also where it is awaited; there it is no ``asyncio.CancelledError``."""


class UnitTimeout(UnitFailed, TimeoutError):
    """The unit ran for longer than its ``timeout`` and was stopped, or waited for longer than its ``queue_timeout`` and never ran."""


class UnitMemoryExceeded(UnitFailed, MemoryError):
    """The unit took more memory than its ``memory_mb`` and was stopped; its worker is replaced.

    Attributes:
        unit: Which unit.
        limit_bytes: How much it might take.
        used_bytes: The most that it was seen to hold. It is looked at now and then, so it may have held more.
    """

    def __init__(self, unit: str, limit_bytes: int, used_bytes: int) -> None:
        super().__init__(unit, limit_bytes, used_bytes)
        self.unit = unit
        self.limit_bytes = limit_bytes
        self.used_bytes = used_bytes

    def __str__(self) -> str:
        limit = self.limit_bytes / 2**20
        used = next(figure for digits in (0, 1, 6) if float(figure := f"{self.used_bytes / 2**20:.{digits}f}") > limit or digits == 6)
        return f"{self.unit} took {used} MiB of memory, more than its limit of {limit:g} MiB"


class UnitCpuExceeded(UnitFailed):
    """The unit took more CPU time than its ``cpu_s`` and was stopped.

    Attributes:
        unit: Which unit.
        limit_s: How many CPU seconds it might take.
        used_s: How many it had taken when it was looked at.
    """

    def __init__(self, unit: str, limit_s: float, used_s: float) -> None:
        super().__init__(unit, limit_s, used_s)
        self.unit = unit
        self.limit_s = limit_s
        self.used_s = used_s

    def __str__(self) -> str:
        return f"{self.unit} took {self.used_s:.3g} s of CPU time, more than its limit of {self.limit_s:g} s"


class SetupFailed(UnitFailed):
    """The ``setup`` of the unit's queue failed in the worker that was to run the unit; the function was not called."""


class SessionLost(UnitFailed):
    """The worker of a session has ended, and what it held is gone with it.

    Attributes:
        halt: The record of its end, or None where it could not be set up.
    """

    def __init__(self, message: str, halt: Halt | None = None) -> None:
        super().__init__(message, halt)
        self.message = message
        self.halt = halt

    def __str__(self) -> str:
        return self.message


class TooLate(WorkqError, RuntimeError):
    """Something was asked for that must come before the first unit is queued."""


class ResultError(UnitFailed, _pickle.PicklingError):
    """The unit returned, but what it returned could not be sent back, or not be read here."""


class RemoteError(UnitFailed):
    """The unit raised an exception that cannot be rebuilt here: its type's name, its repr and its traceback as text."""

    def __init__(self, type_name: str, text: str, traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


class RemoteTraceback(WorkqError):
    """The traceback of a unit's exception as the worker saw it; stands as ``__cause__`` of that exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    @property
    def tb(self) -> str:
        """The same text, under the name that concurrent.futures has for it."""
        return self.text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class WorkErrors(WorkqError, ExceptionGroup[Any]):
    """The failures of a queue's units that nobody had asked for, in order of submission. Raised by ``sync()``."""

    def derive(self, excs: Any) -> WorkErrors:
        """Return a group of the same kind with other members (what ``except*`` asks for)."""
        return WorkErrors(self.message, excs)


KEEP_OUT = "leave it out of what is sent (of an object: by __getstate__; of a method: make that a function)"


def is_handle(what: str, instead: str = KEEP_OUT) -> PicklingError:
    """Return the error of a handle that is pickled or copied; it says what to do instead."""
    return PicklingError(f"{what} is a handle that belongs to this process and cannot be pickled or copied; {instead}")


def not_in_time(what: str, timeout: float | None) -> TimeoutError:
    """Return the error of a wait that has taken as long as its caller allowed."""
    waited = f"{max(0.0, timeout):g} s" if timeout is not None else "all that time"
    return TimeoutError(f"{what} after {waited}; it goes on, and nothing is lost")


def shortened(error: KeyboardInterrupt) -> KeyboardInterrupt:
    """Leave our own frames out of its traceback, if it struck in one of them: what the person pressed Ctrl-C in is above."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is not None and last.tb_frame.f_code.co_filename.startswith(_HERE):
        return error.with_traceback(None)
    return error


_HERE = os.path.dirname(__file__) + os.sep


def __getattr__(name: str) -> object:
    """Load what has to do with halts when it is first asked for."""
    if name not in ("Halt", "UnitPoisoned", "WorkerHalted"):
        raise AttributeError(f"module 'workq.errors' has no attribute {name!r}")
    import importlib

    halt = importlib.import_module("workq.halt")
    globals().update(Halt=halt.Halt, UnitPoisoned=halt.UnitPoisoned, WorkerHalted=halt.WorkerHalted)
    return globals()[name]
