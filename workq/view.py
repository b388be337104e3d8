"""View: a work queue under certain options, as `WorkMgr.options` returns it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from workq.arguments import check_callable, check_seconds, check_timeout, check_whole, checked_iterables
from workq.callbacks import queue_with
from workq.controller.intake import Intake
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.recurring import Recurring
    from workq.manager import WorkMgr
    from workq.schedule import Cron

P = ParamSpec("P")
T = TypeVar("T")


class View:
    """A work queue under certain options: what `WorkMgr.options` returns. It queues on the same queue."""

    def __init__(self, manager: WorkMgr, intake: Intake) -> None:
        self._manager = manager  # its queue lives as long as the view
        self._intake = intake

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and return its unit at once; work starts at once. See ``WorkMgr.queue``."""
        return self._intake.queue(fn, *args, **kwargs)

    def queue_callback(self, fn: Callable[P, T], callback: Callable[..., object], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and have a callback made when it has ended. See ``WorkMgr.queue_callback``."""
        check_callable("callback", callback)
        return queue_with(self._manager._row, self._intake.queue, fn, callback, args, kwargs)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], look_ahead: int | None = None, timeout: float | None = None
    ) -> Iterator[T]:
        """Return the results of ``fn`` over the iterables, in order. See ``WorkMgr.map``."""
        return results_of(self._manager, self._intake, fn, iterables, look_ahead, timeout)

    def every(self, seconds: float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call each so many seconds. See ``WorkMgr.every``."""
        check_seconds("seconds", seconds, above=True)
        from workq.controller.recurring import recurring

        return recurring(self._manager._row, self._intake.options, seconds, fn, args, kwargs)

    def cron(self, expression: str | Cron, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call at the times of a cron expression. See ``WorkMgr.cron``."""
        from workq.controller.recurring import recurring
        from workq.schedule import Cron

        when = expression if isinstance(expression, Cron) else Cron(expression)
        return recurring(self._manager._row, self._intake.options, when, fn, args, kwargs)


def results_of(
    manager: WorkMgr,
    intake: Intake,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int | None,
    timeout: float | None,
) -> Iterator[T]:
    """Check what ``map`` was given, now and not at the first result, and begin it."""
    check_callable("fn", fn)
    check_timeout(timeout)
    if look_ahead is not None:
        check_whole("look_ahead", look_ahead, least=1)
    checked = checked_iterables(iterables)
    from workq.mapping import results

    return results(manager, manager._row, intake, fn, checked, look_ahead, timeout)


__all__ = ["View", "results_of"]
