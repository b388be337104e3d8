"""What code inside a unit may use. Loaded by parents and workers; knows neither side's rooms.

A worker puts its own side here (`enter`) before it runs anything of anybody; in every other process `_side` is None.
"""

from __future__ import annotations

import os
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from workq.transport.claims import Claims

    class Side(Protocol):
        """What a worker process offers to the code that runs in it."""

        pid: int
        name: str
        process_info_id: str
        category: str
        rank: int

        def current_unit(self) -> UnitInfo | None: ...
        def flush(self) -> None: ...
        def locks(self) -> Claims: ...
        def progress(self, fraction: float | None, text: str) -> None: ...
        def block(self) -> None: ...
        def unblock(self) -> None: ...


_side: Side | None = None
_inline: dict[int, UnitInfo] = {}  # by thread: the unit of a queue without workers that it runs


class UnitInfo:
    """The unit that runs here.

    Attributes:
        id: Its number within its queue.
        name: The name that ``options(name=…)`` gave it, else that of its function.
        queue: The name of its queue.
        attempt: 1 at the first try, more where ``retries`` brought it back.
        worker: The name of the worker.
    """

    __slots__ = ("attempt", "id", "name", "progress", "queue", "worker")

    def __init__(self, id: int, name: str, queue: str, attempt: int, worker: str) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.attempt = attempt
        self.worker = worker
        self.progress: tuple[float | None, str] | None = None  # of a unit without a worker

    def __repr__(self) -> str:
        return f"<unit {self.queue}:{self.id} {self.name} attempt {self.attempt} in {self.worker}>"


class WorkerInfo:
    """The worker process that this is.

    Attributes:
        name: ``worker_`` and the first 8 digits of ``process_info_id``.
        pid: Its process number.
        process_info_id: The uuid4 of this very process, new at each start.
        category: The category that it serves.
        rank: Its number among the living workers of its category: 0, 1, 2, … A new worker gets the lowest that is free.
    """

    __slots__ = ("category", "name", "pid", "process_info_id", "rank")

    def __init__(self, name: str, pid: int, process_info_id: str, category: str, rank: int) -> None:
        self.name = name
        self.pid = pid
        self.process_info_id = process_info_id
        self.category = category
        self.rank = rank

    def __repr__(self) -> str:
        return f"<{self.name} pid {self.pid} of {self.category}, rank {self.rank}>"


def enter(side: Side) -> None:
    """Called once by a worker, before anything else runs in it."""
    global _side
    _side = side


def side() -> Side | None:
    """Return the worker's side, or None in a process that is no worker (a child that a unit forked is none)."""
    if _side is not None and _side.pid == os.getpid():
        return _side
    return None


def in_child_of_worker() -> bool:
    """Return whether a unit, or what a unit has started, has forked this process."""
    return _side is not None and _side.pid != os.getpid()


def is_worker_job() -> bool:
    """Return True in a worker: in its units, their threads, its set-up and its initializer.

    False in the parent, and in a process that the application or a unit has started.

    >>> is_worker_job()
    False
    """
    return side() is not None


def current_unit() -> UnitInfo | None:
    """Return what runs here, or None outside of a unit.

    >>> current_unit() is None
    True
    """
    if _inline and (info := _inline.get(get_ident())) is not None:
        return info
    here = side()
    return here.current_unit() if here is not None else None


def current_worker() -> WorkerInfo | None:
    """Return the worker that this is, in units, their threads, set-up and initializers; None elsewhere.

    In a unit of a queue without workers (``num_workers=0``) it is the caller, of rank 0.

    >>> current_worker() is None
    True
    """
    if _inline and (info := _inline.get(get_ident())) is not None:
        return WorkerInfo(info.worker, os.getpid(), "", "", 0)
    here = side()
    return WorkerInfo(here.name, here.pid, here.process_info_id, here.category, here.rank) if here is not None else None


class inline_unit:
    """Have `current_unit` say what a queue without workers runs in this thread."""

    __slots__ = ("_before", "_info")

    def __init__(self, info: UnitInfo) -> None:
        self._info = info
        self._before: UnitInfo | None = None

    def __enter__(self) -> None:
        self._before = _inline.get(get_ident())
        _inline[get_ident()] = self._info

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._before is None:
            del _inline[get_ident()]
        else:
            _inline[get_ident()] = self._before


def flush() -> None:
    """Hand the output that the unit has written so far to the parent now. Does nothing outside of a unit."""
    here = side()
    if here is not None:
        here.flush()


def progress(fraction: float | None = None, text: str = "") -> None:
    """Say how far the unit is: ``unit.progress``, ``workers()`` and progress bars show it. Costs 2 us; does nothing outside of a unit.

    Args:
        fraction: From 0 to 1; None where that is not known.
        text: What it is at, a few words; more than 400 bytes are cut.

    Raises:
        ArgumentError: A value is not allowed.

    >>> progress(0.4, "fold 2/5")
    """
    if fraction is not None and not (isinstance(fraction, int | float) and 0 <= fraction <= 1):
        _refuse(f"fraction must be a number from 0 to 1, or None, not {fraction!r}")
    if not isinstance(text, str):
        _refuse(f"text must be a str, not {text!r}")  # type: ignore[unreachable]
    if _inline and (info := _inline.get(get_ident())) is not None:
        info.progress = fraction, text
        return
    here = side()
    if here is not None:
        here.progress(None if fraction is None else float(fraction), text)


def _refuse(message: str) -> None:
    from workq.errors import ArgumentError

    raise ArgumentError(message)


class blocking:
    """Say that the unit waits for something, so that another worker may stand in for it meanwhile.

    ``with workq.blocking():`` around a wait makes the worker *blocked*: it is not counted as active. Only the main thread of a unit
    counts; elsewhere, and outside of a unit, it does nothing. It may be nested.

    >>> with blocking():
    ...     pass
    """

    __slots__ = ("_here",)

    def __init__(self) -> None:
        self._here: Side | None = None

    def __enter__(self) -> blocking:
        self._here = side()
        if self._here is not None:
            self._here.block()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._here is not None:
            self._here.unblock()
