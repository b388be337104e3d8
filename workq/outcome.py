"""What a unit has come to: nothing yet, a value, a result that is still pickled, or another end."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from workq.attempt import bounded
from workq.core.states import UnitState
from workq.errors import RemoteError, RemoteTraceback, UnitCancelled, UnitTimeout
from workq.given.arguments import add_hint
from workq.transport import codec, segments

if TYPE_CHECKING:
    from workq.controller.records import Worker
    from workq.unit import Unit


class _Mark:
    """A value that no unit can return."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


LOADED_AGAIN = 2  # times that an exception which comes out as text only is read once more
PENDING = _Mark("PENDING")
ASKED = b""  # in `data`, once the unit has ended and somebody has asked for its result


class Raw:
    """A result as it came, still pickled. Reading it may run anybody's code, so the thread that asks does it, and not the leader."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes | memoryview) -> None:
        self.payload = payload

    def load(self) -> Any:
        """Unpickle it."""
        return codec.load(self.payload)


class Unread(weakref.ref["SegmentRaw"]):
    """Tells a worker's row when a result is dropped that nobody has read. Its callback is a deque's ``append``: a ``__del__`` would be
    Python, and an exception of a signal handler could strike in it.

    Attributes:
        number: Of the segment; 0 once the result was read.
    """

    __slots__ = ("number",)

    number: int


class SegmentRaw:
    """A result that lies in a segment of its worker, mapped but not yet read."""

    __slots__ = ("__weakref__", "_lengths", "_mapping", "_unread", "_worker")

    def __init__(self, worker: Worker, number: int, fd: int, lengths: list[int]) -> None:
        self._worker = worker
        self._lengths = lengths
        self._mapping = segments.map_private(fd, lengths)
        self._unread = Unread(self, worker.freed.append)
        self._unread.number = number
        worker.unread.add(self._unread)

    def load(self) -> Any:
        """Unpickle without a copy; the worker may write there again once nobody has a view of it."""
        reading = segments.Reading(self._unread.number, self._mapping, self._lengths)
        try:
            return reading.load()
        finally:
            if reading.number:  # else it was read before, and an exception struck: the segment is kept for nobody, which does no harm
                self._unread.number = 0
                self._worker.lent.append(reading)

    def payload(self) -> bytes:
        """Return the value pickled in one piece, for a worker whose unit waits for it."""
        return codec.dump_value(self.load())


class Ended:
    """How a unit ended other than by returning."""

    __slots__ = ("error", "exact", "function", "payload", "state")

    def __init__(
        self,
        state: UnitState,
        error: BaseException | None = None,
        payload: bytes | memoryview = b"",
        function: str | None = None,
        exact: bool = False,
    ) -> None:
        self.state = state
        self.error = error
        self.payload = payload
        self.function = function  # what was called, where it has raised
        self.exact = exact  # SystemExit and its like are raised as themselves, and not as a RemoteError

    def line(self) -> str:
        """Return what it was, in a line, without making the exception of anybody's class."""
        from workq.transport.failures import last_line, line_of

        if self.error is None:
            return line_of(bytes(self.payload))
        told = last_line(self.error.__cause__.text) if type(self.error.__cause__) is RemoteTraceback else ""
        return told or f"{type(self.error).__name__}: {self.error}"

    def reason(self) -> str:
        """Return the same as attempts show it, in a short line: of a lost unit how its worker has ended."""
        if self.state is UnitState.LOST and (halt := getattr(self.error, "halt", None)) is not None:
            return bounded(halt.reason())
        return bounded(self.line())

    def exception(self) -> BaseException:
        """Return the exception, rebuilt from what the worker sent at the first time.

        Threads that ask at once may both rebuild it; all get the one that was stored last. The payload is read first and forgotten
        last, so that nobody finds neither.
        """
        payload = self.payload
        if self.error is None:
            error = codec.load_error(bytes(payload), self.exact)
            for _ in range(LOADED_AGAIN):
                if type(error) is not RemoteError:
                    break
                error = codec.load_error(bytes(payload), self.exact)  # not the unit's fault: a signal handler may have raised just now
            if type(error) is TypeError:
                add_hint(error, self.function)
            self.error = error
            self.payload = b""
        return self.error


RAW = frozenset({Raw, SegmentRaw})


def cancelled(unit: Unit[Any], why: str) -> Ended:
    """Return the end of a unit that was asked to end."""
    return Ended(UnitState.CANCELLED, UnitCancelled(f"unit {unit.label} was cancelled: {why}"))


def timed_out(unit: Unit[Any], timeout_s: float, worker: Worker | None = None) -> Ended:
    """Return the end of a unit that ran for too long."""
    where = f" in {worker.name} (pid {worker.pid})" if worker is not None else ""
    message = f"unit {unit.label} ran for more than its timeout of {timeout_s:g} s{where} and was stopped"
    return Ended(UnitState.TIMED_OUT, UnitTimeout(message))


def never_ran(unit: Unit[Any]) -> Ended:
    """Return the end of a unit that waited for too long."""
    limit_s = unit.call.options.queue_timeout or 0.0
    message = f"unit {unit.label} waited for more than its queue_timeout of {limit_s:g} s, and never ran"
    return Ended(UnitState.TIMED_OUT, UnitTimeout(message))


__all__ = ["ASKED", "PENDING", "RAW", "Ended", "Raw", "SegmentRaw", "cancelled", "never_ran", "timed_out"]
