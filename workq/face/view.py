"""View: a work queue under certain options, as `WorkMgr.options` returns it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from workq.controller.intake import Intake
from workq.errors import ArgumentError, is_handle
from workq.given.arguments import check_callable, check_progress, check_timeout, check_whole, checked_iterables, length_of
from workq.seeing.completion import public_names
from workq.transport.codec import name_of
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.records import Options
    from workq.controller.recurring import Recurring
    from workq.face.mapping import Results
    from workq.face.seeing import Seeing
    from workq.schedule import Cron

P = ParamSpec("P")
T = TypeVar("T")


class View:
    """A work queue under certain options: what ``WorkMgr.options`` returns. It queues on the same queue, and holds it.

    The options are ``timeout``, ``retries``, ``priority``, ``name``, ``queue_timeout``, ``memory_mb`` and ``cpu_s``; what each says stands
    at ``WorkMgr.options``. A view stays as it was made, is cheap, and may be kept and used from any thread.

    >>> quick = wq.options(timeout=5, name="quick")
    >>> quick.queue(len, "four").result(), quick.queue(len, "seven").name
    (4, 'quick')
    """

    __slots__ = ("__weakref__", "_intake", "_manager")

    def __init__(self, manager: Seeing, intake: Intake) -> None:
        self._manager = manager  # its queue lives as long as the view
        self._intake = intake

    def queue(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and return its unit at once; work starts at once. See ``WorkMgr.queue``."""
        return self._intake.queue(fn, args, kwargs)

    def queue_callback(self, fn: Callable[P, T], callback: Callable[..., object], /, *args: P.args, **kwargs: P.kwargs) -> Unit[T]:
        """Queue one call and have a callback made when it has ended. See ``WorkMgr.queue_callback``."""
        check_callable("callback", callback)
        from workq.face.callbacks import queue_with

        return queue_with(self._manager._row, self._intake.queue, fn, callback, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        look_ahead: int | None = None,
        timeout: float | None = None,
        errors: str = "raise",
        progress: bool | str = False,
    ) -> Results[T]:
        """Return the results of ``fn`` over the iterables, in order. See ``WorkMgr.map``."""
        return results_of(self._manager, self._intake, fn, iterables, look_ahead, timeout, errors, progress)

    def every(self, seconds: float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call each so many seconds. See ``WorkMgr.every``."""
        from workq.controller import recurring

        return recurring.every(self._manager._row, self._intake.options, seconds, fn, args, kwargs)

    def cron(self, expression: str | Cron, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Recurring:
        """Queue a call at the times of a cron expression. See ``WorkMgr.cron``."""
        from workq.controller import recurring

        return recurring.by_calendar(self._manager._row, self._intake.options, expression, fn, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise is_handle(f"{type(self).__name__} of queue {self._manager.name}")

    def __dir__(self) -> list[str]:
        """Return the public names: what completion offers."""
        return public_names(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of queue {self._manager.name}: {', '.join(_named(self._intake.options)) or 'no options'}>"


def _named(options: Options) -> Iterator[str]:
    """Yield what differs from the defaults, as it was given."""
    given = {
        "timeout": options.timeout,
        "retries": options.retry and options.retry.limit,
        "priority": options.priority or None,
        "name": options.name,
        "queue_timeout": options.queue_timeout,
        "memory_mb": options.memory_bytes and options.memory_bytes / (1 << 20),
        "cpu_s": options.cpu_s,
    }
    for name, value in given.items():
        if value is not None:
            yield f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"


def results_of(
    manager: Seeing,
    intake: Intake,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    look_ahead: int | None,
    timeout: float | None,
    errors: str,
    progress: bool | str,
) -> Results[T]:
    """Check what ``map`` was given, now and not at the first result, and begin it."""
    check_callable("fn", fn)
    check_timeout(timeout)
    if look_ahead is not None:
        check_whole("look_ahead", look_ahead, least=1)
    if errors not in ("raise", "return", "skip"):
        raise ArgumentError(f"errors must be 'raise', 'return' or 'skip', not {errors!r}")
    check_progress(progress)
    checked = checked_iterables(iterables)
    from workq.face.mapping import results

    row = manager._row
    bar = None
    if progress is not False:
        from workq.controller.seeing import progress_notes
        from workq.seeing.bar import bar_for

        bar = bar_for(row, progress, intake.options.name or name_of(fn), length_of(checked), lambda: progress_notes(row))
    return results(manager, row, intake, fn, checked, look_ahead, timeout, errors, bar)


__all__ = ["View", "results_of"]
