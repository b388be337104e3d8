"""Seeing: what a work queue is, what it may have, and what it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workq import context
from workq.errors import ArgumentError
from workq.face.part import Part
from workq.given.arguments import check_seconds, check_whole

if TYPE_CHECKING:
    from workq.category import Category
    from workq.controller.pools import QueueLimits
    from workq.seeing.statistics import Metrics, QueueStatistics, WorkerTable


class Seeing(Part):
    """What a work queue tells of itself, and what of that may be set."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._row.name

    @property
    def category(self) -> str:
        """The name of its category."""
        return self._row.category

    @property
    def delete_timeout(self) -> float:
        """Seconds between interrupt and kill; may be set at any time."""
        return self._row.delete_timeout_s

    @delete_timeout.setter
    def delete_timeout(self, seconds: float) -> None:
        check_seconds("delete_timeout", seconds)
        self._row.delete_timeout_s = float(seconds)

    @property
    def num_workers(self) -> int:
        """The most workers that serve it at once: the effective number, after clamping. ``limits`` says why. -1 where it was detached.

        It may be set at any time. Fewer: those that are too many end what they have begun; nothing is interrupted. More than the
        category's ``max_workers`` is clamped. A queue without workers (0) stays one, and the others keep at least 1.

        >>> wq.num_workers = 1
        >>> wq.num_workers
        1
        """
        row = self._row
        if self._is_detached():
            return -1
        if not row.opened and row.category in self.controller.pools:  # its category's limits may have changed since it was made
            row.max_workers = self.controller.pools[row.category].clamp(row.wanted_workers)
        return 0 if self._inline else row.max_workers

    @num_workers.setter
    def num_workers(self, number: int) -> None:
        check_whole("num_workers", number, least=0)
        if self._inline != (number == 0):
            has = "has no workers: units run in whoever waits" if self._inline else "has workers"
            raise ArgumentError(f"num_workers cannot be changed from or to 0, and queue {self._row.name} {has}; make another WorkMgr")
        if self._inline:
            return
        limits = self.controller.category(self._row.category)
        self._row.asked_workers = self._row.wanted_workers = int(number)
        self.controller.change_workers(self._row, limits.clamp(number))
        self._tell_clamped(limits)

    def _tell_clamped(self, limits: Category) -> None:
        """Say it where a queue has fewer workers than were wanted."""
        if not self._inline and self._row.wanted_workers > limits.max_workers:
            from workq.controller.pools import tell_clamped

            tell_clamped(self._row, limits)

    @property
    def max_pending(self) -> int | None:
        """How many of its units may wait; None: any number."""
        return None if self._row.gate is None else self._row.gate.max_pending

    @property
    def limits(self) -> QueueLimits:
        """What it may have, with the limits of its category, and why: prints as a table, and has named fields.

        >>> wq.limits.num_workers, wq.limits.reason
        (2, 'as asked for')
        """
        self._row.max_workers = self.num_workers or 1
        from workq.controller.pools import limits_of_queue

        return limits_of_queue(self._row, self.controller.category(self._row.category), self._inline)

    @property
    def num_active_workers(self) -> int:
        """How many workers run units of it now, blocked ones left out. -1 where it was detached."""
        if self._is_detached():
            return -1
        from workq.controller.seeing import num_active_workers

        return num_active_workers(self._row)

    def statistics(self) -> QueueStatistics:
        """Return the queue's counters as they are now: prints as a table, and has named fields."""
        statistics: QueueStatistics = self.controller.statistics(self._row)
        return statistics

    def workers(self) -> WorkerTable:
        """Return the worker processes of this queue's controller: prints as a table, and is a sequence of rows."""
        table: WorkerTable = self.controller.workers()
        return table

    def metrics(self) -> Metrics:
        """Return the counters of this queue's controller: prints as a table, and has named fields."""
        metrics: Metrics = self.controller.metrics()
        return metrics

    @staticmethod
    def is_worker_job() -> bool:
        """Return True in a worker; see ``workq.is_worker_job``."""
        return context.is_worker_job()

    def __repr__(self) -> str:
        row = self._row
        if row.closed:
            return f"<WorkMgr {row.name}: {'detached' if self._is_detached() else 'closed'}>"
        open_units = row.open_units()
        units = "nothing to do" if not open_units else f"{open_units} unit{'s' * (open_units != 1)} to do"
        workers = "no workers" if self._inline else f"{len(row.workers)} of {row.max_workers} worker{'s' * (row.max_workers != 1)}"
        return f"<WorkMgr {row.name}: {units}, {workers}{', paused' if row.paused else ''}>"

    def _repr_html_(self) -> str:
        """Return its statistics, as a notebook shows them."""
        return self.statistics()._repr_html_()


__all__ = ["Seeing"]
