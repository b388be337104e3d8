"""WorkMgr: the work queue that an application holds. How it is made, who holds it; its methods are in the room `face`."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import count
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from workq import context
from workq.controller.controller import Controller
from workq.controller.intake import PLAIN
from workq.controller.records import Queue
from workq.core.ids import QueueId
from workq.errors import ArgumentError, WorkqError
from workq.face.ending import Ending
from workq.face.intakes import carried_of, intake_of
from workq.face.queueing import Queueing
from workq.face.waiting import Waiting
from workq.given.arguments import check_name, check_seconds, check_whole, plain
from workq.transport.mainmodule import preparing

if TYPE_CHECKING:  # what only annotations name is loaded when it is needed: to import workq is to wait for it
    from contextvars import ContextVar

    from workq.controller.pools import CategoryTable

_numbers = count(1)
made_inline: list[None] = []  # an item for each `workq.testing.inline` that is on: what is made meanwhile has no workers
DROPPED = "nobody held its WorkMgr any more, so its queue was deleted; keep it in a variable, or use `with`"


class WorkMgr(Queueing, Waiting, Ending):
    """A work queue: queue calls on it, and worker processes run them.

    It starts nothing by itself: workers attach one by one as units are queued. All methods may be called from any thread. As a context
    manager it ends with ``resume()``, ``sync()`` and ``close()``; on an exception it closes at once. It is deleted, as by ``close()``,
    when the last reference to it goes, and its units do not hold it: ``WorkMgr(1).queue(f).result()`` is cancelled.

    Args:
        num_workers: The most workers that serve this queue at once, blocked ones left out. None: the category's ``default_workers``; more
            than its ``max_workers`` is clamped; 0: no worker at all, units run in the caller, inside ``result()``, ``sync()``,
            ``wait_one()``, ``as_completed()`` and ``map()``. There a unit that runs cannot be stopped, neither by ``cancel()`` nor by its
            ``timeout``. Each worker whose unit says that it waits (``blocking()``, a lock, units of its own) has a stand-in, and so have
            at most as many as ``num_workers`` whose unit is only seen to wait: ``max_total_workers`` of a category limits them all.
        category: The name of the pool that it draws from. Default: ``"Default"``; inside a unit the category of its worker.
        name: Shown in tables, messages and log records. Default: the category's name and a number.
        delete_timeout: Seconds between the interrupt of a unit that has to stop and the kill of its worker.
        output: ``"stream"``: what units print is written to this process's stdout and stderr by whoever waits; ``"discard"``: nothing is.
        at_exit: What becomes of its units that have not ended when the interpreter ends: ``"cancel"``: what waits is dropped, what
            runs is interrupted, and killed after ``delete_timeout``; ``"drain"``: they are waited for, for ``Settings.exit_drain_s`` at
            most; ``"kill"``: they are killed at once. A warning counts what was dropped.
        controller: Default: the one that all queues share.
        contextvars: What units are given of the context variables of whoever queues them: True: all whose values can be pickled; or a list
            of them. They have to be global variables of modules. What a unit sets is seen by nobody else.
        max_pending: How many units may wait, and be in no worker's hands. None: any number.
        when_full: What becomes of one more: ``"block"``: ``queue()`` waits for room, and reads results meanwhile; ``"raise"``: it raises
            ``QueueFull``; ``"drop_oldest"``: the unit that has waited longest, of the lowest priority, is cancelled.
        full_timeout: Seconds that ``queue()`` waits for room at most; then it raises ``QueueFull``. Default: None, for ever.
        trace_context: Units go on with the trace of whoever queues them (W3C ``traceparent``): OpenTelemetry has to be installed.

    Attributes:
        controller: The :class:`workq.Controller` whose workers it draws, for categories, halts and locks.

    Raises:
        ArgumentError: A value is not allowed; the message names the argument.
        CategoryError: There is no such category.

    >>> from workq import WorkMgr
    >>> with WorkMgr(2) as wq:
    ...     units = [wq.queue(pow, 2, n) for n in (8, 10)]
    ...     [unit.result() for unit in units]
    [256, 1024]
    """

    __slots__ = ()

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        category: str | None = None,
        name: str | None = None,
        delete_timeout: float = 1.0,
        output: str = "stream",
        at_exit: str = "cancel",
        controller: Controller | None = None,
        contextvars: bool | Iterable[ContextVar[Any]] = False,
        trace_context: bool = False,
        max_pending: int | None = None,
        when_full: str = "block",
        full_timeout: float | None = None,
    ) -> None:
        _check_workers(num_workers)
        check_seconds("delete_timeout", delete_timeout)
        check_name("name", name)
        if output not in ("stream", "discard"):
            raise ArgumentError(f"output must be 'stream' or 'discard', not {output!r}")
        if at_exit not in ("cancel", "drain", "kill"):
            raise ArgumentError(f"at_exit must be 'cancel', 'drain' or 'kill', not {at_exit!r}")
        _check_bound(max_pending, when_full, full_timeout)
        if controller is not None and not isinstance(controller, Controller):
            raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
        self.controller: Any = controller or _controller_here()
        self.controller.check_usable()
        if category is None:
            category = getattr(self.controller, "own_category", "Default")
        limits = self.controller.category(category)
        wanted = limits.default_workers if num_workers is None else num_workers
        if made_inline:
            wanted = 0
        self._inline = wanted == 0
        if self._inline:
            from workq.hosts.inline import InlineController

            self.controller = InlineController(self.controller)
        number = QueueId(next(_numbers))
        self._row = Queue(
            self.controller,
            number,
            plain(name or f"{category}-{number}"),
            plain(category),
            limits.clamp(wanted),
            float(delete_timeout),
        )
        self._row.asked_workers, self._row.wanted_workers = num_workers, int(wanted)
        self._tell_clamped(limits)
        self._row.output_to = output
        self._row.at_exit = at_exit
        self.controller.adopt(self._row)
        self._row.carried = None if contextvars is False and trace_context is False else carried_of(contextvars, trace_context)
        if max_pending is not None:
            from workq.controller.gate import Gate

            self._row.gate = Gate(self._row, int(max_pending), when_full, None if full_timeout is None else float(full_timeout))
        self._take(self._row)

    def _take(self, row: Queue) -> None:
        """Be the one that has a queue: a new one, or one that was detached."""
        self._row = row
        self._sessions = row.sessions = row.sessions or weakref.WeakSet()
        self._intakes = {}
        self._former = weakref.WeakSet()
        self._carried = row.carried
        self._intake = intake_of(row, PLAIN, self._carried)
        row.holder = weakref.ref(self)
        self._finalizer = weakref.finalize(self, _drop, row)
        self._finalizer.atexit = False

    # ------------------------------------------------------------ giving it away

    def detach(self, timeout: float = 86400.0) -> str:
        """Give this queue away: its work goes on, and whoever has the token can attach it, in this process, as long as that lives.

        Output and callbacks are kept for the one who attaches. This object can do nothing with the queue any more: most calls raise
        ``QueueDetached``, the numbers of its workers are -1, and ``close()`` does nothing.

        Args:
            timeout: Seconds until the token ends. If nobody has attached the queue by then, it is deleted.

        Returns:
            The token: secret, and good once.

        Raises:
            WorkqError: This is a unit: its queues end with it.

        >>> from workq import WorkMgr
        >>> wq = WorkMgr(1)
        >>> unit = wq.queue(abs, -1)
        >>> token = wq.detach()
        >>> wq.num_workers
        -1
        >>> with WorkMgr.attach(token) as again:
        ...     again.wait_one() is unit
        True
        """
        check_seconds("timeout", timeout, above=True)
        if context.is_worker_job():
            raise WorkqError("a queue that a unit makes ends with the unit at the latest, so it cannot be detached")
        self.controller.check_usable()
        row = self._row
        if row.closed:
            raise row.refusal()
        from workq.face.detaching import Detached, issue

        stand_in: Any = Detached(row)
        self._row = stand_in
        self._sessions = weakref.WeakSet()
        for intake in (self._intake, *self._intakes.values(), *self._former):
            intake.detach(stand_in)
        row.holder = None
        self._finalizer.detach()
        return issue(row, float(timeout))

    @classmethod
    def attach(cls, token: str) -> Self:
        """Return a WorkMgr that has the queue that was detached with this token.

        Raises:
            TokenError: The token is of no queue of this process, has been used, or has expired.
        """
        from workq.face.detaching import redeem

        row = redeem(token)
        manager = cls.__new__(cls)
        manager.controller = row.controller
        manager._inline = row.controller.inline
        manager._take(row)
        return manager

    # ------------------------------------------------------------ with

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._is_to_be_waited_for():
                self.sync()
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._is_to_be_waited_for():
                await self.finished()
        finally:
            await self.aclose()


def _name_methods() -> None:
    """Have the methods that the parts bring go by the name of WorkMgr: in errors of wrong calls, and where they are pickled."""
    for part in WorkMgr.__mro__[1:-1]:
        for method in vars(part).values():
            if isinstance(method, FunctionType):
                method.__qualname__ = f"WorkMgr.{method.__name__}"
                method.__module__ = __name__


_name_methods()


def categories() -> CategoryTable:
    """Return the categories that queues of this process draw from: prints as a table, is a mapping, and makes, changes, deletes them.

    Those of another controller are its ``categories``. In a unit they can be read.

    >>> sorted(categories())
    ['Default', 'SQL', 'Utility']
    """
    from workq.controller.pools import CategoryTable

    return CategoryTable(_controller_here())


def _controller_here() -> Any:
    """Return the controller of this process: in a worker, the parent's, at the other end of the worker's socket."""
    side = context.side()
    if side is None:
        return Controller.default()
    if preparing():
        raise WorkqError(
            "the main script makes a WorkMgr when it is imported, and a worker has to import it: "
            'put that under `if __name__ == "__main__":`'
        )
    from workq.hosts.nested import NestedController

    return NestedController.here(side)


def _drop(row: Queue) -> None:
    """The last reference to a WorkMgr is gone: delete its queue. May run in any thread, in the middle of anything."""
    row.why_deleted = DROPPED
    row.controller.close_queue(row)


def _check_workers(number: object) -> None:
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
        raise ArgumentError(f"num_workers must be a whole number of 0 or more, or None, not {number!r}")


def _check_bound(max_pending: object, when_full: object, full_timeout: object) -> None:
    if max_pending is not None:
        check_whole("max_pending", max_pending, least=1)
    if when_full not in ("block", "raise", "drop_oldest"):
        raise ArgumentError(f"when_full must be 'block', 'raise' or 'drop_oldest', not {when_full!r}")
    if full_timeout is not None:
        check_seconds("full_timeout", full_timeout, none="to wait for ever")
    if max_pending is None and (when_full != "block" or full_timeout is not None):
        raise ArgumentError("when_full and full_timeout say what happens at the bound that max_pending sets: name it too")


__all__ = ["WorkMgr", "categories"]
