"""Every exception a caller can meet, one tree.

``WorkqError`` is the root. Each way for a unit to end badly is a class with fields, and its message says what happened, to
which unit, in which worker, and what to do about it. A worker process imports this only where something has gone wrong.
"""

from __future__ import annotations

import _pickle
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from workq.interruption import ExternalInterrupt

if TYPE_CHECKING:
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
    "RemoteError",
    "RemoteTraceback",
    "ResultError",
    "TokenError",
    "UnitCancelled",
    "UnitFailed",
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


class UnitCancelled(UnitFailed, CancelledError):
    """The unit was cancelled: by ``cancel()``, or with its queue."""


class UnitTimeout(UnitFailed, TimeoutError):
    """The unit ran for longer than its ``timeout`` and was stopped, or waited for longer than its ``queue_timeout`` and never ran."""


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


def __getattr__(name: str) -> object:
    """Load what has to do with halts when it is first asked for."""
    if name not in ("Halt", "UnitPoisoned", "WorkerHalted"):
        raise AttributeError(f"module 'workq.errors' has no attribute {name!r}")
    import importlib

    halt = importlib.import_module("workq.halt")
    globals().update(Halt=halt.Halt, UnitPoisoned=halt.UnitPoisoned, WorkerHalted=halt.WorkerHalted)
    return globals()[name]
