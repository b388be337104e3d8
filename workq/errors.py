"""Every exception a caller can meet, one tree.

``WorkqError`` is the root. Each way for a unit to end badly is a class with fields, and its message says what happened, to
which unit, in which worker, and what to do about it. A worker process imports this only where something has gone wrong.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from workq.interruption import ExternalInterrupt

__all__ = [
    "ArgumentError",
    "CategoryError",
    "ExternalInterrupt",
    "ForkedError",
    "Halt",
    "LaunchError",
    "PicklingError",
    "QueueClosed",
    "RemoteError",
    "RemoteTraceback",
    "ResultError",
    "UnitCancelled",
    "UnitFailed",
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


class CategoryError(WorkqError, LookupError):
    """There is no such category, or it cannot be made, changed or deleted that way."""


class QueueClosed(WorkqError, RuntimeError):
    """The queue, or its controller, has been closed: nothing more can be queued on it."""


class ForkedError(WorkqError, RuntimeError):
    """This process is a fork of the one that made the object; its workers belong to the other process."""


class WaitError(WorkqError, RuntimeError):
    """A wait that can never end, refused instead of begun (a signal handler that interrupted the very wait it would need)."""


class PicklingError(WorkqError, TypeError):
    """A function or an argument cannot be sent to a worker; the message names which."""


class LaunchError(WorkqError, RuntimeError):
    """Workers of a category cannot be started; the message holds what the last one wrote to stderr."""


class UnitFailed(WorkqError):
    """The root of what ends a unit other than its own exception."""


class UnitCancelled(UnitFailed, CancelledError):
    """The unit was cancelled: by ``cancel()``, or with its queue."""


class UnitTimeout(UnitFailed, TimeoutError):
    """The unit ran for longer than its ``timeout`` and was stopped."""


class ResultError(UnitFailed):
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

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


STACK_LINES = 12  # that a message shows; ``Halt.stack`` has them all


@dataclass(frozen=True, slots=True, repr=False)
class Halt:
    """One record for one worker that ended by itself: who, how, and with what.

    Attributes:
        worker: The worker's name, ``worker_`` and the first 8 digits of its ``process_info_id``.
        pid: Its process number.
        process_info_id: The uuid4 of this very process, new at each start.
        category: The category that it served.
        phase: What it was doing: ``"start"``, ``"idle"``, ``"unit"`` or ``"exit"``.
        exit_code: Its exit code, or None where a signal ended it or the code is not known.
        signal: The name of the signal that ended it (``"SIGKILL"``), or None.
        unit: The label of the unit that it ran, or None.
        run_time_s: How long that unit had run, seconds.
        peak_rss_bytes: The most memory that it ever held, bytes.
        stderr: The last lines that it wrote to stderr.
        stack: The Python stack that faulthandler wrote, or an empty text.
        probably_out_of_memory: The kernel's out-of-memory counter grew, and the signal was a SIGKILL that workq did not send.
        stalled: True for a worker that lives, but whose heartbeat has stopped.
    """

    worker: str
    pid: int
    process_info_id: str
    category: str
    phase: str
    exit_code: int | None = None
    signal: str | None = None
    unit: str | None = None
    run_time_s: float = 0.0
    peak_rss_bytes: int = 0
    stderr: str = ""
    stack: str = ""
    probably_out_of_memory: bool = False
    stalled: bool = False

    def reason(self) -> str:
        """Return how it ended, in a few words."""
        if self.stalled:
            return "has stopped beating"
        if self.signal and self.probably_out_of_memory:
            return f"was ended by {self.signal}, probably out of memory"
        if self.signal:
            return f"was ended by {self.signal}"
        if self.exit_code is None:
            return "ended in an unknown way"
        return f"exited with code {self.exit_code}"

    def __repr__(self) -> str:
        return f"<Halt: {str(self).splitlines()[0]}>"

    def __str__(self) -> str:
        doing = f" in unit {self.unit} after {self.run_time_s:.3f} s" if self.unit else f" ({self.phase})"
        lines = [f"{self.worker} (pid {self.pid}) {self.reason()}{doing}"]
        if self.peak_rss_bytes:
            lines[0] += f", peak memory {self.peak_rss_bytes / 2**20:.0f} MiB"
        if self.stderr:
            lines.append("its last lines of stderr:")
            lines += ["  " + line for line in self.stderr.splitlines()]
        if self.stack:
            lines.append("its Python stack:")
            lines += ["  " + line for line in self.stack.splitlines()[:STACK_LINES]]
        return "\n".join(lines)


class WorkerHalted(UnitFailed, BrokenProcessPool):
    """The worker that ran this unit ended under it. No other unit is lost.

    The unit may have run in part; it is not run again unless ``retries`` was asked for.

    Attributes:
        halt: The record of it, see :class:`Halt`.
    """

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt)
        self.halt = halt

    def __str__(self) -> str:
        return f"{self.halt}\nthe unit may have run in part; options(retries=...) runs such units again"

    @property
    def pid(self) -> int:
        """The process number of the worker that halted."""
        return self.halt.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None where a signal ended it."""
        return self.halt.exit_code

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it, or None."""
        return self.halt.signal


class WorkErrors(WorkqError, ExceptionGroup[Any]):
    """The failures of a queue's units that nobody had asked for, in order of submission. Raised by ``sync()``."""

    def derive(self, excs: Any) -> WorkErrors:
        """Return a group of the same kind with other members (what ``except*`` asks for)."""
        return WorkErrors(self.message, excs)
