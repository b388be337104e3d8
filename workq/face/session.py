"""Session: one worker of its own, calls in order, state kept between them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from workq.errors import SessionLost, is_handle
from workq.face.view import View
from workq.seeing.completion import public_names

if TYPE_CHECKING:
    from workq.face.seeing import Seeing
    from workq.manager import WorkMgr
    from workq.seeing.statistics import QueueStatistics
    from workq.unit import Unit

P = ParamSpec("P")
T = TypeVar("T")

_numbers = count(1)


class Session:
    """One worker of its own: calls run in it one after the other, and what they leave in its memory is there for the next.

    Made by ``WorkMgr.session()``. The worker is had with the first call; when the session is closed, or the last reference to it goes,
    that process ends, and all that it held with it. It counts for ``max_active_workers`` only while it runs a call, and comes on top of
    its queue's ``num_workers``; it is never replaced for its age, its units or its memory.

    If the worker ends, the session is lost: its open calls and all further ones raise ``SessionLost``. Nothing is started anew.

    >>> with wq.session() as session:
    ...     session.run(exec, "import math; math.seen = 3")
    ...     session.run(eval, "__import__('math').seen")
    3
    """

    __slots__ = ("__weakref__", "_inner")

    def __init__(self, manager: Seeing) -> None:
        from workq.controller.controller import Controller
        from workq.manager import WorkMgr as Manager

        outer = manager._row
        behind = getattr(manager.controller, "outer", manager.controller)  # of a queue without workers: the one that it stands before
        if outer.closed:
            raise outer.refusal()
        self._inner: WorkMgr = Manager(
            0 if manager._inline else 1,
            category=manager.category,
            name=f"{manager.name}.session-{next(_numbers)}",
            delete_timeout=manager.delete_timeout,
            output=outer.output_to,
            at_exit=outer.at_exit,
            controller=behind if isinstance(behind, Controller) else None,
        )
        row = self._inner._row
        row.session = not manager._inline
        row.outfit = outer.outfit

    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` in the session's worker, after all calls before, and return its result.

        Raises:
            SessionLost: The worker has ended, now or before.
            QueueClosed: The session, or its queue, has been closed.
            PicklingError: The function or an argument cannot be sent.
            BaseException: What ``fn`` raises.
        """
        return self.queue(fn, *args, **kwargs).result()

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue a call and return its unit at once. Calls run in the order in which they were queued."""
        self._check()
        return self._inner.queue(fn, *args, **kwargs)

    def options(self, **options: Any) -> SessionView:
        """Return a view of this session with options such as ``timeout`` or ``memory_mb``, see ``WorkMgr.options``; it has ``run`` too.

        A call that does not end when it is interrupted takes the worker, and so the session, with it.

        >>> with wq.session() as session:
        ...     session.options(timeout=5).run(len, "four")
        4
        """
        self._check()
        view = self._inner.options(**options)
        return SessionView(view._manager, view._intake)

    def sync(self, timeout: float | None = None) -> QueueStatistics:
        """Wait for all calls of this session. See ``WorkMgr.sync``."""
        return self._inner.sync(timeout)

    def close(self) -> None:
        """End the session: what waits is cancelled, what runs is stopped, and its worker ends."""
        self._inner.close()

    @property
    def name(self) -> str:
        """Its name: that of its queue, and a number."""
        return self._inner.name

    @property
    def lost(self) -> bool:
        """Whether its worker has ended."""
        return self._inner._row.lost_by is not None

    def _check(self) -> None:
        check_not_lost(self._inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._inner._is_to_be_waited_for():
                self.sync()
        finally:
            self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"Session {self.name}")

    def __dir__(self) -> list[str]:
        """Return the public names: what completion offers."""
        return public_names(self)

    def __repr__(self) -> str:
        state = "lost" if self.lost else "closed" if self._inner._row.closed else "open"
        return f"<Session {self.name} {state}>"


class SessionView(View):
    """A session under certain options: what ``Session.options`` returns. It is a ``View`` whose calls run in the session's worker.

    >>> with wq.session() as session:
    ...     session.options(timeout=5).run(len, "four")
    4
    """

    __slots__ = ()

    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` in the session's worker, after all calls before, and return its result. See ``Session.run``."""
        return self.queue(fn, *args, **kwargs).result()

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue a call and return its unit at once. See ``Session.queue``."""
        check_not_lost(self._manager)
        return super().queue(fn, *args, **kwargs)


def check_not_lost(manager: Seeing) -> None:
    """Raise where the worker of a session has ended."""
    if (lost_by := manager._row.lost_by) is not None:
        raise SessionLost(*lost_by)


__all__ = ["Session", "SessionView"]
