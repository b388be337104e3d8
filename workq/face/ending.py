"""Ending: a work queue is held up, emptied, shut down, deleted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workq import context
from workq.controller.controller import Controller
from workq.controller.exiting import log_warning
from workq.errors import WorkErrors, WorkqError
from workq.face import gathering
from workq.face.seeing import Seeing
from workq.given.arguments import check_callable, check_seconds, check_timeout

if TYPE_CHECKING:
    from workq.controller.draining import Shutdown


class Ending(Seeing):
    """What holds up the units of a work queue, or ends them."""

    __slots__ = ()

    def pause(self, timeout: float | None = 0.0) -> bool:
        """Have workers take no new unit of this queue. What runs is never stopped; more may be queued.

        Args:
            timeout: Seconds to wait for units that run; None waits for ever.

        Returns:
            True as soon as none runs; False where some still do after ``timeout``: the queue is paused all the same. A queue that was
            closed, or is being shut down, is not paused any more, by itself or by its controller.

        >>> wq.pause()
        True
        >>> unit = wq.queue(abs, -1)
        >>> wq.resume()
        >>> unit.result()
        1
        """
        check_timeout(timeout)
        from workq.face import holding

        return holding.pause(self._row, timeout) if self._is_open() else not self._row.busy()

    def resume(self) -> None:
        """Have workers take units of this queue again. Does nothing where it is not paused, or was closed, or is being shut down."""
        if self._is_open() and self._row.paused:
            self.controller.pause_queue(self._row, False)

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self._row.paused

    def clear(self, timeout: float = 5.0) -> int:
        """Empty this queue. It stays usable, paused or not as it was.

        Units that wait are cancelled; those that run are waited for, then interrupted, then killed after ``delete_timeout``. What has
        ended and was not collected is forgotten, and callbacks that were not made yet are not made.

        Args:
            timeout: Seconds to wait for units that run, before they are interrupted.

        Returns:
            How many units it has cancelled: 0 where the queue was closed, or is being shut down.

        >>> wq.pause()
        True
        >>> units = [wq.queue(abs, -n) for n in range(3)]
        >>> wq.clear(), wq.wait_one()
        (3, None)
        """
        check_seconds("timeout", timeout)
        from workq.face import holding

        return holding.clear(self._row, timeout, log_warning) if self._is_open() else 0

    def _is_open(self) -> bool:
        """Return whether the queue, and its controller, take orders: they have not been closed, and are not being shut down.

        Raises:
            QueueDetached: The queue was detached, and is no longer this object's.
        """
        row, controller = self._row, self.controller
        if self._is_detached():
            raise row.refusal()
        if controller.forked:
            controller.check_usable()
        return not (row.closed or controller.closed or controller.draining)

    # ------------------------------------------------------------ deleting it

    def _is_to_be_waited_for(self) -> bool:
        """Return whether its units are waited for where a block is left: also while somebody else drains the queue, or its controller."""
        row = self._row
        if self._is_detached() or (row.closed and not row.draining):
            return False
        self.resume()  # a wait for a paused one would never end
        return not self.controller.closed or row.busy()

    def close(self) -> None:
        """Delete the queue. When it returns, no unit of it runs any more and nothing can be queued on it.

        What waits is cancelled; what runs is interrupted, and killed after ``delete_timeout``. Where ``cleanup`` was called it returns
        at once. It does nothing where the queue was detached.
        """
        for session in list(self._sessions):
            session.close()
        if self._begin_close():
            row = self._row
            ended = f"queue {row.name} has not ended"
            gathering.wait_for(row, self._is_over, row.end_bound_s(), ended)
            self._end_close()

    def _begin_close(self) -> bool:
        """Begin to delete the queue; return whether its end is to be waited for."""
        row = self._row
        self._finalizer.detach()
        if self._is_detached() or (row.closed and not row.draining and not row.busy() and not row.fit):
            return False
        row.draining = False
        waits = row.opened and not row.cleanups
        if row.callbacks is not None:
            row.callbacks.drop()  # first: another thread may wait, and would make those of units that this ends
        self.controller.close_queue(row)
        if row.callbacks is not None:
            self.controller.wake_waiters()
        controller = self.controller
        if controller.closed:  # by another thread, which may be at it still
            return waits and isinstance(controller, Controller) and not controller.forked and controller.may_wait_for_end()
        return waits and not controller.forked

    def _is_over(self) -> bool:
        """Return whether nothing of the queue is left: no unit, no worker that has still to tear down; or nothing of its controller."""
        over = not self._row.busy() and self._row.gone and not self._row.fit
        return over or (isinstance(self.controller, Controller) and self.controller.has_ended())

    def _end_close(self) -> None:
        """Say what is still to be said of the queue: it is gone."""
        if not isinstance(self.controller, Controller):
            self.controller.tear_down(self._row)  # in this very process, where that has run units of it
        self._row.emit()
        self.controller.tell_unasked(self._row, log_warning)

    async def aclose(self) -> None:
        """Delete the queue from a coroutine: what ``close`` is elsewhere."""
        from workq.face import asynchronous

        await asynchronous.close(self)

    def shutdown(self, drain_timeout: float = 10.0) -> Shutdown:
        """Take nothing new, let what was queued end, for ``drain_timeout`` seconds at most, then ``close``.

        Output is written and callbacks are made as by ``sync``; what they queue on this queue is refused. What has not ended by then is
        interrupted, and killed after ``delete_timeout``. It does nothing where the queue's controller has been closed.

        Returns:
            Which units were interrupted, which were never begun, and what failed; true where nothing was cut short.

        >>> from workq import WorkMgr
        >>> wq = WorkMgr(1)
        >>> unit = wq.queue(len, "four")
        >>> bool(wq.shutdown(drain_timeout=30)), unit.result()
        (True, 4)
        """
        check_seconds("drain_timeout", drain_timeout)
        from workq.controller import draining

        gathering.refuse_in_callback(self._row, "shutdown()")
        begun, failures = time.monotonic(), []
        if self.controller.closed and not self._row.busy():
            self.close()
            return draining.report((), (), begun)
        self.resume()
        draining.begin([self._row])
        try:
            gathering.sync(self._row, drain_timeout)
        except TimeoutError:
            pass
        except WorkErrors as error:
            failures = list(error.exceptions)
        row = self._row
        runs, waits = self.controller.open_units(row)
        self.close()
        if runs or waits:  # where `cleanup` was called nothing has waited for them yet
            ended = f"queue {row.name} has not ended"
            gathering.wait_for(row, lambda: all(unit.done() for unit in (*runs, *waits)), row.end_bound_s(), ended)
        return draining.report(runs, waits, begun, failures)

    def cleanup(self, fn: Callable[..., object], *args: Any) -> None:
        """Have ``fn(*args)`` called once, when this queue has been deleted and no unit of it runs any more.

        It makes deletion asynchronous: ``close()``, leaving a ``with`` block and dropping the last reference return at once. ``fn`` is
        called in this process, in workq's delivery thread; what it raises is logged. Several are called in their order.

        Raises:
            QueueClosed: The queue has been closed already.
            WorkqError: This is a unit: its queues end with it.

        >>> from threading import Event
        >>> from workq import WorkMgr
        >>> gone = Event()
        >>> with WorkMgr(1) as wq:
        ...     wq.cleanup(gone.set)
        ...     wq.queue(abs, -1).result()
        1
        >>> gone.wait(10)
        True
        """
        check_callable("fn", fn)
        if not self._inline and context.is_worker_job():
            raise WorkqError("a queue that a unit makes ends with the unit at the latest, so nothing can be called afterwards: close() it")
        if self._row.closed:
            raise self._row.refusal()
        self._row.cleanups.append((fn, args))


__all__ = ["Ending"]
