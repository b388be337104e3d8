"""Running: how a unit runs in the caller, from its set-up to those that are told of its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workq import context
from workq.attempt import Attempt
from workq.config import DEFAULTS
from workq.controller import tallies
from workq.core.states import UnitState
from workq.hosts.catching import caught_output
from workq.hosts.telling import tell_here
from workq.outcome import PENDING, Ended, Raw, never_ran
from workq.transport import codec, failures
from workq.unit import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workq.controller.records import Queue

logger = logging.getLogger("workq")

WHERE = "the caller"  # what stands where a worker's name would


class Running:
    """The part of an ``InlineController`` that runs units. What it needs is the controller's."""

    if TYPE_CHECKING:
        outer: Any
        _turn: threading.Condition
        _runner: int | None
        _running: list[Unit[Any]]
        _infos: dict[int, context.UnitInfo]
        _is_set_up: bool
        _random: Callable[[], float]

        def wake_waiters(self) -> None: ...
        def _call_cleanups(self, queue: Queue) -> None: ...

    def _run(self, unit: Unit[Any]) -> None:
        queue = unit.call.queue
        value: Any = PENDING
        try:
            if overdue(unit):
                value = never_ran(unit)
            else:
                unit.started_ns = time.monotonic_ns()
                value = self._outcome(unit)
        finally:  # also where a KeyboardInterrupt passes, which is the caller's
            unit.ended_ns = time.monotonic_ns()
            again = bool(unit.started_ns) and self._may_come_again(unit, value)
            if not again:
                self._settle(unit, value)
            with self._turn:
                self._running.remove(unit)
                self._runner = self._runner if self._running else None
                if again and unit not in queue.resting:
                    queue.backlog(unit.call.options.priority).appendleft(unit)
                queue.retrying -= 1
                self._turn.notify_all()
            if not again:
                self._tell_end(unit)
            self._call_cleanups(queue)

    def _outcome(self, unit: Unit[Any]) -> Any:
        """Call the function, and return the unit's value: pickled, as from a worker."""
        call = unit.call
        info = context.UnitInfo(unit.id, unit.name, call.queue.name, unit.attempt, WHERE)
        self._infos[unit.id] = info
        with context.inline_unit(info), caught_output(unit), self._freed_locks(unit):
            try:
                self._set_up(call.queue)
                function, arguments = codec.load(call.pickled), codec.load(unit.data)
                value = function(*arguments[0], **arguments[1]) if call.keywords else function(*arguments)
                return Raw(codec.dump_result(value, unit.label))
            except KeyboardInterrupt as error:
                self._settle(unit, Ended(UnitState.FAILED, payload=codec.dump_error(error, unit.label), function=call.name))
                raise
            except BaseException as error:
                return Ended(
                    UnitState.FAILED, payload=codec.dump_error(error, unit.label), function=call.name, exact=call.queue.exact_errors
                )
            finally:
                self._infos.pop(unit.id, None)

    @contextmanager
    def _freed_locks(self, unit: Unit[Any]) -> Iterator[None]:
        """Give back what a unit has left locked. In a worker its own unit's end does so."""
        try:
            yield
        finally:
            claims = getattr(self.outer, "claims", None)
            for name in claims.free_those_of(f"unit {unit.label}") if claims is not None and claims.held else ():
                unit.need_extra().notes.append(f"it ended and still held lock {name!r}, which is freed")

    def _set_up(self, queue: Queue) -> None:
        """Do what the queue wants done before its first unit, once. Where it fails, all units that wait fail as this one does."""
        if queue.outfit is None or self._is_set_up:
            return
        try:
            _do(queue.outfit.set_up)
            self._is_set_up = True
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = failures.setup_failed(queue.name, WHERE, error)
            payload = codec.dump_error(failure)
            for unit in [unit for unit in queue.open_list() if unit not in self._running and unit.value is PENDING]:
                queue.backlog(unit.call.options.priority).remove(unit)
                self._settle(unit, Ended(UnitState.FAILED, payload=payload))
                self._tell_end(unit)
            raise failure from error

    def tear_down(self, queue: Queue) -> None:
        """Do what the queue wants done after its last unit. What it raises is logged, as where a worker does it."""
        if self._is_set_up and queue.outfit is not None:
            self._is_set_up = False
            try:
                _do(queue.outfit.tear_down)
            except Exception:
                logger.exception("the teardown of queue %s failed", queue.name)

    def _may_come_again(self, unit: Unit[Any], value: Any) -> bool:
        """Note the failed attempt and return True where `retries` allow another; where it has to rest first it is put there."""
        queue = unit.call.queue
        if type(value) is not Ended or unit.call.options.retry is None or (queue.closed and not queue.draining) or unit.id <= queue.cleared:
            return False
        run_time_s = (unit.ended_ns - unit.started_ns) / 1e9
        attempt = Attempt(unit.attempt, value.state.value, WHERE, None, unit.started_ns / 1e9, run_time_s, value.reason())
        from workq.controller.retrying import judge_unit  # loaded already, by whoever asked for retries

        verdict = judge_unit(unit, value, attempt, DEFAULTS, self._random)
        if verdict.again:
            extra = unit.need_extra()
            extra.history.append(attempt)
            extra.attempt += 1
        if verdict.rest_s:
            queue.resting[unit] = time.monotonic() + verdict.rest_s
        return verdict.again

    def _settle(self, unit: Unit[Any], value: Any) -> None:
        if unit.value is not PENDING:
            return
        queue = unit.call.queue
        if type(value) is Raw:
            queue.done += 1
        elif type(value) is Ended and value.state is UnitState.TIMED_OUT:
            queue.timed_out += 1
        else:
            queue.failed += 1
            queue.note_failure(unit)
        if unit.extra is None:
            unit.value = value
        else:
            unit.extra.end(unit, value)
        tallies.note_unit(unit)
        if unit.extra is not None and unit.extra.output:
            queue.outputs.append(unit)

    def _tell_end(self, unit: Unit[Any]) -> None:
        """Wake who waits for a unit, and call its callbacks, here and now."""
        unit.call.queue.ended.append(unit)
        tell_here(unit)
        self.wake_waiters()


def overdue(unit: Unit[Any]) -> bool:
    """Return whether a unit has waited for too long to be begun."""
    limit_s = unit.call.options.queue_timeout
    return limit_s is not None and unit.attempt == 1 and time.monotonic_ns() - unit.queued_ns > limit_s * 1e9


def _do(deed: tuple[bytes, bytes] | None) -> None:
    """Call a pickled function with its pickled arguments."""
    if deed is not None:
        codec.load(deed[0])(*codec.load(deed[1]))


__all__ = ["WHERE", "Running", "overdue"]
