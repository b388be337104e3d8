"""Shutdown: let what was queued end for a while, then interrupt, then kill; and say what was cut short.

While a queue is drained it takes nothing new, and what it has goes on, retries included. A unit that runs may still queue on queues that it
makes itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workq.controller.exiting import log_warning
from workq.outcome import PENDING
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.records import Queue

logger = logging.getLogger("workq")

END_S = 5.0  # for what follows the interrupts, beside the queues' delete_timeout
MOST_NAMED = 10  # units in the log


@dataclass(frozen=True, slots=True)
class Shutdown:
    """What became of a shutdown. True where nothing was cut short.

    Attributes:
        interrupted: The labels of the units that ran when the time was over, and were interrupted or killed.
        dropped: The labels of the units that had not begun by then, or rested before their next attempt.
        failures: What units raised and nobody had asked for; of ``WorkMgr.shutdown`` only.
        run_time_s: How long it took, seconds.
    """

    interrupted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    failures: tuple[Exception, ...] = ()
    run_time_s: float = 0.0

    def __bool__(self) -> bool:
        return not self.interrupted and not self.dropped

    def __str__(self) -> str:
        if self:
            return f"all units have ended ({self.run_time_s:.1f} s)"
        parts = [f"{_units(self.interrupted, 'was', 'were')} interrupted: {_named(self.interrupted)}"] if self.interrupted else []
        parts += [f"{_units(self.dropped, 'was', 'were')} never begun: {_named(self.dropped)}"] if self.dropped else []
        return "; ".join(parts)


def begin(queues: Iterable[Queue]) -> None:
    """Have queues take nothing new."""
    for queue in queues:
        for one in tuple(queue.recurring):
            one.stop()
        queue.draining = not queue.closed or queue.draining  # first: whoever finds it closed looks whether it is drained
        queue.closed = True


def open_units(queues: Iterable[Queue]) -> tuple[list[Unit[Any]], list[Unit[Any]]]:
    """Return the units that run, and those that do not."""
    runs: list[Unit[Any]] = []
    waits: list[Unit[Any]] = []
    for queue in queues:
        loop = queue.controller.loop
        if loop is None:
            continue
        with loop.dispatcher.lock:
            begun, units = loop.dispatcher.begun(), queue.open_list()
        for unit in units:
            if unit.value is PENDING:
                (runs if unit in begun else waits).append(unit)
    return runs, waits


def report(runs: Sequence[Unit[Any]], waits: Sequence[Unit[Any]], begun: float, failures: Sequence[Exception] = ()) -> Shutdown:
    """Say what was cut short. A unit that ended by itself in the last moment was not."""
    interrupted = tuple(unit.label for unit in runs if unit.cancelled())
    dropped = tuple(unit.label for unit in waits if unit.cancelled())
    return Shutdown(interrupted, dropped, tuple(failures), time.monotonic() - begun)


def shut_down(controllers: Sequence[Controller], drain_timeout_s: float, hurry: Callable[[], bool] = lambda: False) -> Shutdown:
    """Drain controllers, then close them. ``hurry`` says that there is no time left after all."""
    over = threading.Event()
    for controller in controllers:
        controller.drain_over = over
    try:
        return _drain_and_close(controllers, drain_timeout_s, hurry)
    finally:
        over.set()


def _drain_and_close(controllers: Sequence[Controller], drain_timeout_s: float, hurry: Callable[[], bool]) -> Shutdown:
    begun = time.monotonic()
    queues = [queue for controller in controllers for queue in controller.every_queue() if queue.owner is None]
    begin(queues)
    for controller in controllers:
        controller.draining = True
        own = [queue for queue in queues if queue.controller is controller]
        _wait(controller, own, begun + drain_timeout_s, hurry)
    runs, waits = open_units(queues)
    for controller in controllers:
        own = [queue for queue in queues if queue.controller is controller]
        for queue in own:
            queue.draining = False
            queue.emit()
            controller.tell_unasked(queue, log_warning)
        controller.close(END_S + max((queue.delete_timeout_s for queue in own), default=0.0))
    told = report(runs, waits, begun)
    logger.log(logging.DEBUG if told else logging.WARNING, "shutdown: %s", told)
    return told


def _wait(controller: Controller, queues: list[Queue], deadline: float, hurry: Callable[[], bool]) -> None:
    if controller.loop is None or controller.closed or controller.forked:
        return
    try:
        for queue in queues:
            if queue.paused:  # it would end nothing
                controller.pause_queue(queue, False)
        left = max(0.0, deadline - time.monotonic())
        controller.wait(lambda: hurry() or not any(queue.busy() for queue in queues), left, "the controller has not ended its units")
    except (TimeoutError, RuntimeError):  # time is over, or it was closed meanwhile, or this is a signal handler that interrupted a wait
        pass


def _units(labels: tuple[str, ...], one: str, many: str) -> str:
    return f"1 unit {one}" if len(labels) == 1 else f"{len(labels)} units {many}"


def _named(labels: tuple[str, ...]) -> str:
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return ", ".join(labels[:MOST_NAMED]) + more


__all__ = ["Shutdown", "begin", "open_units", "report", "shut_down"]
