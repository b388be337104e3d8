"""Waiting: for the units of a work queue, in a thread and in a coroutine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from workq.errors import ArgumentError
from workq.face import gathering
from workq.face.seeing import Seeing
from workq.given.arguments import check_timeout

if TYPE_CHECKING:
    from workq.seeing.statistics import QueueStatistics
    from workq.unit import Unit


class Waiting(Seeing):
    """What waits for units of a work queue."""

    __slots__ = ()

    def sync(self, timeout: float | None = None, *, stop_on_error: bool = False, progress: bool | str = False) -> QueueStatistics:
        """Wait for all units, write their output, make their callbacks, and return the queue's statistics.

        Units and callbacks that callbacks queue meanwhile are waited for too. Ctrl-C cancels what has not ended; the queue lives on.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            stop_on_error: False: all units run, whatever fails. True: the first failure of a unit that nobody has asked for, or of a
                callback, cancels the units that wait and interrupts those that run; callbacks that were not made yet stay for the next
                ``sync``.
            progress: Show how far it has come; see ``map``.

        Raises:
            WorkErrors: Units failed whose result nobody has asked for, or callbacks: an ExceptionGroup, in order of submission.
            TimeoutError: They have not ended within ``timeout`` seconds. They go on, and nothing is lost.

        >>> unit = wq.queue(print, "hello")
        >>> wq.sync().done
        hello
        1
        """
        check_timeout(timeout)
        if stop_on_error is not True and stop_on_error is not False:
            raise ArgumentError(f"stop_on_error must be True or False, not {stop_on_error!r}")
        if stop_on_error:
            from workq.face import holding

            holding.sync_to_first_failure(self._row, timeout, progress)
        else:
            gathering.sync(self._row, timeout, progress)
        return self.statistics()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait as ``sync`` does, but no longer than until a callback returns ``workq.EXIT``.

        Callbacks that were not made before that one stay for the next wait.

        Args:
            timeout: Seconds to wait at most; None: until the end; 0: make the callbacks that are due, and look.

        Returns:
            True where nothing is outstanding; False after EXIT, or where the time ran out, if something is.

        Raises:
            WorkErrors: Nothing is outstanding, and units have failed whose result nobody has asked for, or callbacks have.

        >>> from workq import EXIT
        >>> unit = wq.queue_callback(len, lambda unit, text: EXIT, "four")
        >>> wq.wait(), wq.wait(0)
        (True, True)
        """
        check_timeout(timeout)
        return gathering.wait(self._row, timeout)

    def wait_one(self, timeout: float | None = None) -> Unit[Any] | None:
        """Wait for the next unit that has ended and was not yet handed out, make its callback, and return it.

        Returns None when nothing is outstanding. What callbacks raise is kept for ``sync``.

        Raises:
            TimeoutError: None ended within ``timeout`` seconds.

        >>> unit = wq.queue(len, "four")
        >>> wq.wait_one() is unit, wq.wait_one()
        (True, None)
        """
        check_timeout(timeout)
        return gathering.wait_one(self._row, timeout)

    def as_completed(self, timeout: float | None = None) -> Iterator[Unit[Any]]:
        """Yield the units of this queue as they end, until none is outstanding; each is handed out once.

        >>> units = [wq.queue(abs, -n) for n in range(3)]
        >>> sorted(unit.result() for unit in wq.as_completed())
        [0, 1, 2]
        """
        check_timeout(timeout)
        return iter(partial(gathering.next_completed, self, timeout), None)

    # ------------------------------------------------------------ in asyncio

    def completed(self, timeout: float | None = None) -> AsyncIterator[Unit[Any]]:
        """Yield the units of this queue as they end, in a coroutine: what ``as_completed`` is elsewhere.

        Args:
            timeout: Seconds to wait for the next unit at most; then TimeoutError.

        >>> import asyncio
        >>> async def main():
        ...     units = [wq.queue(abs, -n) for n in range(3)]
        ...     return sorted([await unit async for unit in wq.completed()])
        >>> asyncio.run(main())
        [0, 1, 2]
        """
        check_timeout(timeout)
        from workq.face import asynchronous

        return asynchronous.completed(self._row, timeout)

    async def finished(self, timeout: float | None = None) -> QueueStatistics:
        """Wait for all units in a coroutine, and return the queue's statistics: what ``sync`` is elsewhere.

        A coroutine that is cancelled in it leaves the units as they are.

        Args:
            timeout: Seconds to wait at most; then TimeoutError.

        Raises:
            WorkErrors: Units or callbacks have failed; see ``sync``.
        """
        check_timeout(timeout)
        from workq.face import asynchronous

        await asynchronous.finished(self._row, timeout)
        return self.statistics()


__all__ = ["Waiting"]
