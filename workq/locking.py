"""workq.Lock and workq.Event: between units of any worker and the application."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from workq import context
from workq.errors import ArgumentError, ForkedError, LockError
from workq.given.arguments import check_lock_name, check_timeout
from workq.transport.claims import GIVING_BACK, TAKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from workq.controller import Controller
    from workq.transport.claims import Claims


class _Named:
    """A name, and where it is known: in a worker among those of its controller, else among those of the one that was given."""

    __slots__ = ("_controller", "_name", "_pid")

    def __init__(self, name: str, *, controller: Controller | None = None) -> None:
        self._name = check_lock_name(name)
        if controller is not None:
            if context.is_worker_job():
                raise ArgumentError("controller must be None in a unit: its worker's is the one that counts")
            from workq.controller import Controller

            if not isinstance(controller, Controller):
                raise ArgumentError(f"controller must be a workq.Controller or None, not {controller!r}")
        self._controller = controller
        self._pid = os.getpid()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def _claims(self) -> Claims:
        here = context.side()
        if here is not None:
            return here.locks()
        if os.getpid() != self._pid:
            raise ForkedError(f"{self!r} belongs to the process that this one was forked from, and cannot be used here")
        if self._controller is not None:
            return self._controller.claims
        from workq.controller import Controller

        if Controller.default_is_of_parent():
            raise ForkedError(
                f"this process was forked from one that shares {self!r} with others, and they would not see it held here; "
                "take it there, or make a WorkMgr here first, whose units and threads share locks of their own"
            )
        return Controller.default().claims

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._name,)

    def __repr__(self) -> str:
        return f"workq.{type(self).__name__}({self._name!r})"


class Lock(_Named):
    """A lock that units of any worker and the threads of the application share, by its name.

    It comes free when its holder dies, however it dies. It is as a ``threading.Lock``: held by one thread of one process at a time, not
    re-entrant, first come first served; but only the thread that holds it may release it. While a unit waits for it, its worker counts as
    blocked, and another one stands in. A unit that ends and still holds it is told of (``unit.notes``, ``workq.locks()``), and its
    worker is replaced.

    The name is known to one controller and its workers. Two programs, or two controllers of a program, never meet. The object itself holds
    nothing: make one wherever it is needed, or pass it to a unit.

    Args:
        name: A str of 1 to 128 characters.
        controller: Whose workers share it; default: the one that all queues share. In a unit always that of its worker.

    Raises:
        ArgumentError: The name, or the controller, is not allowed.

    >>> import workq
    >>> lock = workq.Lock("table")
    >>> with lock:
    ...     lock.locked()
    True
    >>> lock.locked()
    False
    """

    __slots__ = ()

    def __init__(self, name: str, *, controller: Controller | None = None) -> None:  # here, so that an error speaks of Lock
        super().__init__(name, controller=controller)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take it, and return True; False where it is held and ``blocking`` is False, or did not come free in time.

        Args:
            blocking: False: do not wait.
            timeout: Seconds to wait at most, 0 or more; None, or -1 as in ``threading``: for ever.

        Raises:
            WaitError: This wait could never end: the calling thread holds the lock itself, or the holder waits, maybe through others, for
                the calling unit. Only waits without a time-out are refused.
            ForkedError: This process is a fork of the one that made the lock.
            ArgumentError: The time-out is not allowed.
        """
        if timeout == -1:
            timeout = None
        check_timeout(timeout)
        if timeout is not None and not blocking:
            raise ArgumentError("timeout must be None where blocking is False")
        if timeout is not None and timeout <= 0:
            blocking, timeout = False, None
        return self._claims().acquire(self._name, blocking, timeout)

    def release(self) -> None:
        """Give it back.

        Raises:
            LockError: The calling thread does not hold it.
        """
        self._claims().release(self._name)

    def locked(self) -> bool:
        """Return whether anybody holds it."""
        return self._claims().locked(self._name)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self.release()
        except LockError:
            raise
        except BaseException:  # a signal handler's: what it has kept us from is done all the same
            claims = self._claims()
            if claims.holds(self._name):
                claims.release(self._name)
            raise


class Event(_Named):
    """A flag that units of any worker and the application share, by its name: set by one, waited for by others.

    It stays set until somebody clears it, also when whoever set it has ended or died. While a unit waits for it, its worker counts as
    blocked, and another one stands in. For names and controllers see :class:`Lock`.

    Args:
        name: A str of 1 to 128 characters.
        controller: Whose workers share it; default: the one that all queues share. In a unit always that of its worker.

    Raises:
        ArgumentError: The name, or the controller, is not allowed.

    >>> import workq
    >>> ready = workq.Event("ready")
    >>> with workq.WorkMgr(1) as wq:
    ...     unit = wq.queue(ready.wait)
    ...     ready.set()
    ...     unit.result()
    True
    >>> ready.clear()
    """

    __slots__ = ()

    def __init__(self, name: str, *, controller: Controller | None = None) -> None:  # here, so that an error speaks of Event
        super().__init__(name, controller=controller)

    def set(self) -> None:
        """Set it: who waits goes on."""
        self._claims().set(self._name)

    def clear(self) -> None:
        """Have it not set any more."""
        self._claims().clear(self._name)

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._claims().is_set(self._name)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return False where it was not within ``timeout`` seconds.

        Raises:
            ForkedError: This process is a fork of the one that made the event.
            ArgumentError: The time-out is not allowed.
        """
        check_timeout(timeout)
        return self._claims().wait(self._name, timeout)


TAKING.update(function.__code__ for function in (Lock.__enter__, Lock.acquire))
GIVING_BACK.update(function.__code__ for function in (Lock.__exit__, Lock.release))

__all__ = ["Event", "Lock"]
