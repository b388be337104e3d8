"""Unit: a future that knows its state, its worker, its output and its times.

A real ``concurrent.futures.Future`` costs 2.5 us and 1.7 KB, ten times the rest of a unit's way. So a unit is a subclass whose
``__init__`` does not run the base's: condition, waiters and callbacks are made when somebody asks for them.

The race between a thread that settles a unit and one that begins to wait for it: settling stores ``value``, then reads ``extra``;
waiting stores ``extra``, then reads ``value``. Either one sees the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED
from concurrent.futures._base import PENDING as _PENDING_STATE
from typing import TYPE_CHECKING, Any, TypeVar

from workq.core.states import UnitState
from workq.courtesy import is_due
from workq.errors import ResultError, WorkqError, is_handle
from workq.given.arguments import check_callable, check_future_timeout
from workq.outcome import ASKED, PENDING, RAW, Ended, Raw, SegmentRaw
from workq.seeing.completion import public_names

if TYPE_CHECKING:
    from workq.attempt import Attempt
    from workq.controller.records import Call, Large, Worker
    from workq.core.ids import AlarmId

T = TypeVar("T")


class Extra:
    """What a unit needs only when somebody waits for it in another way than ``result()``, or when it is not an ordinary one."""

    __slots__ = (
        "_condition",
        "alarm",
        "attempt",
        "callbacks",
        "crashes",
        "deaths_on_its_way",
        "emitted",
        "exceeded",
        "handles",
        "history",
        "large",
        "lock",
        "note_end",
        "noted",
        "notes",
        "notified",
        "output",
        "stopping",
        "to_tell",
        "waiters",
    )

    def __init__(self) -> None:
        self.lock = threading.RLock()  # taken by `with`, and not by way of the condition, whose methods an exception may leave half done
        self._condition: threading.Condition | None = None
        self.waiters: list[Any] = []
        self.to_tell: list[Any] = []  # those of them that came before the end, and so count on being told of it
        self.callbacks: list[Callable[[Any], object]] = []
        self.notified = False
        self.note_end: Callable[[Unit[Any]], None] | None = None  # told of the end just before it is stored, maybe twice; takes no lock
        self.attempt = 1  # the number of the present one
        self.crashes = 0  # earlier attempts whose worker has ended under them
        self.deaths_on_its_way = 0  # of workers, while its arguments were sent to them
        self.history: list[Attempt] = []  # its earlier attempts
        self.alarm: AlarmId | None = None  # that ends its rest
        self.exceeded: BaseException | None = None  # with what it is to end as FAILED, as it is past a limit of its own
        self.stopping: UnitState | None = None  # CANCELLED, TIMED_OUT or FAILED once it has been asked to end
        self.output: list[tuple[int, str]] = []
        self.emitted = 0  # how many pieces of the output were written to our streams
        self.handles: list[Any] = []  # of shared values that it is given: they live until it has ended
        self.large: Large | None = None  # its arguments, where they lie in a segment
        self.notes: list[str] = []
        self.noted = 0  # the attempt whose output and notes were taken in

    @property
    def condition(self) -> threading.Condition:
        """What those wait on who wait for it as for any future; made for the first of them."""
        with self.lock:
            if self._condition is None:
                self._condition = threading.Condition(self.lock)
            return self._condition

    def notify(self) -> None:
        """Wake those who wait on the condition. Under the lock."""
        if self._condition is not None:
            self._condition.notify_all()

    def tell_waiters(self, unit: Unit[Any]) -> list[Callable[[Any], object]]:
        """Tell those who waited for the unit when it ended, and return its callbacks, for the caller to make. Under the lock."""
        for waiter in self.to_tell:
            if unit.cancelled():
                waiter.add_cancelled(unit)
            elif type(unit.value) is Ended:
                waiter.add_exception(unit)
            else:
                waiter.add_result(unit)
        callbacks, self.callbacks = self.callbacks, []
        return callbacks

    @property
    def untold(self) -> bool:
        """Whether nobody has to be told of the end, once that is stored. Whoever comes later sees it."""
        waits = self.to_tell or self.callbacks or (self._condition is not None and self._condition._waiters)  # type: ignore[attr-defined]
        return not (waits or self.handles or self.history or self.stopping)

    def end(self, unit: Unit[Any], value: Any) -> None:
        """Store how a unit ended. Under its lock: a waiter of concurrent.futures sees it open and is told, or ended and is not."""
        with self.lock:
            if unit.value is PENDING:
                if self.note_end is not None:
                    self.note_end(unit)
                to_tell = list(self.waiters)
                self.to_tell, unit.value = to_tell, value


_INTERNAL = frozenset(  # of a unit: what other rooms use, and what a future has that is not for a unit's users
    {
        *("asked", "call", "data", "ended_ns", "extra", "need_extra", "queued_ns", "started_ns", "value", "worker_record"),
        *("set_exception", "set_result", "set_running_or_notify_cancel"),
    }
)
_making = threading.RLock()  # a signal handler or a finalizer may come here while its own thread is here


class Unit(Future[T]):
    """One queued call, and the future of its result. Made by ``WorkMgr.queue``; all of it may be used from any thread.

    It is a ``concurrent.futures.Future``: ``concurrent.futures.wait``, ``as_completed``, ``asyncio.wrap_future`` and libraries that take
    futures accept it, and ``await unit`` works. Done-callbacks run one at a time in workq's delivery thread.

    Attributes:
        id: Its number within its queue, from 1.
    """

    __slots__ = ("call", "data", "ended_ns", "extra", "id", "queued_ns", "started_ns", "value", "worker_record")

    def __init__(self, call: Call, data: bytes, id: int, queued_ns: int) -> None:
        self.call = call
        self.data = data
        self.id = id
        self.queued_ns = queued_ns
        self.value: Any = PENDING
        self.extra: Extra | None = None
        self.worker_record: Worker | None = None
        self.started_ns = self.ended_ns = 0

    # ------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The name that ``options(name=…)`` gave it, else that of its function."""
        return self.call.name

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self.call.queue.name

    @property
    def asked(self) -> bool:
        """Whether somebody has asked for its result since it ended."""
        return self.data is ASKED

    @property
    def priority(self) -> int:
        """The priority that ``options(priority=…)`` gave it; it stays as it was queued."""
        return self.call.options.priority

    @property
    def label(self) -> str:
        """Queue, number and name: how messages speak of it."""
        return f"{self.call.queue.name}:{self.id} {self.call.name}"

    @property
    def state(self) -> UnitState:
        """Where it is in its life; see :class:`workq.UnitState`."""
        value = self.value
        if value is PENDING:
            return self.call.queue.controller.state_of(self)
        return value.state if type(value) is Ended else UnitState.DONE

    @property
    def worker(self) -> Worker | None:
        """The worker that runs it, or ran it last (``.name``, ``.pid``, ``.process_info_id``, ``.stack()``), or None."""
        running = self.call.queue.controller.worker_of(self) if self.value is PENDING else None
        return running or self.worker_record

    @property
    def attempt(self) -> int:
        """The number of its present attempt, or of its last; more than 1 only with ``retries``."""
        return self.extra.attempt if self.extra is not None else 1

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Each time that it was begun or is about to be, the present one last: outcome, worker, when, how long, what went wrong."""
        from workq.attempt import Attempt

        value, worker = self.value, self.worker_record
        reason = value.reason() if type(value) is Ended else ""
        begun = value is not PENDING and bool(self.started_ns)
        present = Attempt(
            self.attempt,
            self.state.value,
            worker.name if worker is not None and begun else None,
            getattr(worker, "pid", None) if begun else None,
            self.started_at if begun else None,
            self.run_time_s if begun else None,
            reason,
        )
        return (*self.extra.history, present) if self.extra is not None else (present,)

    @property
    def progress(self) -> tuple[float | None, str] | None:
        """What it has said with ``workq.progress`` while it runs: how far it is, from 0 to 1, and at what; else None."""
        return self.call.queue.controller.progress_of(self) if self.value is PENDING else None

    @property
    def output(self) -> str:
        """What it wrote to stdout and stderr, as text."""
        return "".join(text for _, text in tuple(self.extra.output)) if self.extra is not None else ""

    @property
    def notes(self) -> list[str]:
        """What it left behind in its worker, a sentence each."""
        return list(self.extra.notes) if self.extra is not None else []

    @property
    def started_at(self) -> float | None:
        """When it began, ``time.monotonic()`` seconds, or None."""
        return self.started_ns / 1e9 if self.started_ns else None

    @property
    def wait_time_s(self) -> float | None:
        """How long it waited before it began, seconds, or None."""
        return max(0, self.started_ns - self.queued_ns) / 1e9 if self.started_ns else None

    @property
    def run_time_s(self) -> float | None:
        """How long it ran, seconds, or None while it has not ended."""
        return (self.ended_ns - self.started_ns) / 1e9 if self.ended_ns and self.started_ns else None

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"unit {self.label}", "send its result")

    def __dir__(self) -> list[str]:
        """Return the public names: what completion offers."""
        return public_names(self, _INTERNAL)

    def __repr__(self) -> str:
        value = self.value
        text = f"<Unit {self.label}: {self.state.value}"
        if type(value) is Ended:
            error = value.exception()
            text += f", {type(error).__name__}"
        return text + ">"

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from workq.seeing.tables import html_table, seconds

        rows = [["name", self.name], ["state", self.state.value], ["waited", seconds(self.wait_time_s)], ["ran", seconds(self.run_time_s)]]
        worker = self.worker
        rows += [["worker", worker.name]] if worker is not None else []
        value = self.value
        rows += [["raised", f"{type(value.exception()).__name__}: {value.exception()}"]] if type(value) is Ended else []
        rows += [["note", note] for note in self.notes]
        return html_table(f"unit {self.queue}:{self.id}", [], rows)

    # ------------------------------------------------------------ the future

    def done(self) -> bool:
        """Return True once it has ended, however."""
        return self.value is not PENDING

    def running(self) -> bool:
        """Return True while a worker runs it."""
        return self.value is PENDING and self.state in (UnitState.RUNNING, UnitState.STOPPING)

    def cancelled(self) -> bool:
        """Return True once it has ended because somebody asked, and no worker runs it any more."""
        value = self.value
        return type(value) is Ended and value.state is UnitState.CANCELLED

    def cancel(self) -> bool:
        """Ask that it end: dropped where it has not begun, interrupted and then killed where it runs.

        Returns:
            False where it had ended already, else True. A running unit may still end by itself first; ``cancelled()`` tells.
        """
        if self.value is not PENDING:
            return self.cancelled()
        return self.call.queue.controller.cancel(self)

    def result(self, timeout: float | None = None) -> T:
        """Wait for it and return what it returned, or raise what it raised.

        Args:
            timeout: Seconds to wait at most; None waits for ever. Less than 0 is as 0, as for any future.

        Raises:
            TimeoutError: It has not ended in time. It goes on, and nothing is lost.
            UnitCancelled, UnitTimeout, WorkerHalted, RemoteError: See ``workq.errors``; and whatever the unit raised itself.
        """
        if timeout is not None:
            check_future_timeout(timeout)
        value = self.value
        if value is PENDING:
            self.call.queue.controller.wait_unit(self, timeout)
            value = self.value
        queue = self.call.queue
        if self.data is not ASKED:
            self.data = ASKED
            queue.let_go(self)
        if queue.outputs or queue.half_written:
            queue.emit()
        kind = type(value)
        if kind in RAW:
            value = self._read(value)
        elif kind is Ended:
            raise value.exception()
        return value  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for it and return what it raised, or None. Raises UnitCancelled, and TimeoutError where it has not ended in time."""
        check_future_timeout(timeout)
        if self.value is PENDING:
            self.call.queue.controller.wait_unit(self, timeout)
        self.data = ASKED
        if self.call.queue.outputs:
            self.call.queue.emit()
        if self.cancelled():
            raise self.value.exception()
        return self._exception

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have ``fn(unit)`` called once it has ended: in workq's delivery thread, or here and now if it has ended already."""
        check_callable("fn", fn)
        extra = self.need_extra()
        with extra.lock:
            pending = self.value is PENDING
            if pending:
                extra.callbacks.append(fn)
        if pending:
            self.call.queue.controller.called_back_later(self)
            return
        try:
            fn(self)
        except Exception:
            import logging

            logging.getLogger("workq").exception("a callback raised: %r", fn)

    def __await__(self) -> Generator[Any, None, T]:
        if self.value is PENDING or type(self.value) is Ended:
            self._waited_for_otherwise()
            from workq.awaiting import result_of

            return (yield from result_of(self).__await__())
        if is_due():
            from workq.awaiting import give_way

            yield from give_way().__await__()
        return self.result()

    def set_running_or_notify_cancel(self) -> bool:
        """Not for a unit: its queue runs it."""
        raise WorkqError("a unit is run by its queue; only the queue sets its state")

    def set_result(self, result: Any) -> None:
        """Not for a unit: its worker gives the result."""
        raise WorkqError("a unit gets its result from its worker; it cannot be set")

    def set_exception(self, exception: BaseException | None) -> None:
        """Not for a unit: its worker gives the exception."""
        raise WorkqError("a unit gets its exception from its worker; it cannot be set")

    # ------------------------------------------------------------ what concurrent.futures touches

    @property
    def _condition(self) -> threading.Condition:
        self._waited_for_otherwise()
        return self.need_extra().condition

    @_condition.setter
    def _condition(self, value: object) -> None:
        raise AttributeError("a unit makes its condition itself")

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self.need_extra().waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        return self.need_extra().callbacks

    @property
    def _state(self) -> str:  # type: ignore[override]
        """Looked at by `concurrent.futures.wait` with the units' locks in hand.

        So it takes no lock: who settles a unit may hold the dispatch lock, which `running()` takes, and wait for the unit's.
        """
        if self.value is not PENDING:
            return CANCELLED_AND_NOTIFIED if self.cancelled() else FINISHED
        return _PENDING_STATE

    @property
    def _exception(self) -> BaseException | None:  # type: ignore[override]
        value = self.value
        if type(value) in RAW:
            try:
                self._read(value)
            except ResultError as error:
                return error
            return None
        return value.exception() if type(value) is Ended else None

    @property
    def _result(self) -> Any:  # type: ignore[override]
        value = self.value
        if value is PENDING or type(value) is Ended:
            return None
        return self._read(value) if type(value) in RAW else value

    # ------------------------------------------------------------ inside

    def need_extra(self) -> Extra:
        """Return the rest of it, made now if nobody had asked before."""
        if self.extra is None:
            with _making:
                made = Extra()
                if self.extra is None:
                    self.extra = made
        return self.extra

    def _waited_for_otherwise(self) -> None:
        """Somebody is about to wait for it past us, as `concurrent.futures.wait` and `await` do.

        Whoever waits for a unit of a queue without workers runs it; inside a unit somebody has to read the outcomes.
        """
        if self.value is PENDING:
            self.call.queue.controller.waited_for_otherwise(self)

    def _read(self, raw: Raw | SegmentRaw) -> Any:
        """Unpickle the result, once; what goes wrong becomes how the unit ended."""
        try:
            value = raw.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if _loads_now(raw):
                raise  # it was not the result that raised, but a signal handler
            failure = ResultError(f"the result of unit {self.label} cannot be read here: {type(error).__name__}: {error}")
            failure.__cause__ = error
            if self.value is raw:
                self.value = Ended(UnitState.FAILED, failure)
            raise failure from error
        if self.value is raw:
            self.value = value
        return value


def _loads_now(raw: Raw | SegmentRaw) -> bool:
    """Return whether a result can be read after all."""
    try:
        raw.load()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False
    return True


__all__ = ["Unit"]
