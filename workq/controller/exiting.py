"""The interpreter's exit: queues end or are waited for, controllers end, and what was dropped is told.

Bounded in time. What a controller does when it is asked to end earlier is in draining.py.
"""

from __future__ import annotations

import logging
import time
import weakref
from typing import TYPE_CHECKING

from workq.outcome import PENDING

if TYPE_CHECKING:
    from workq.controller.controller import Controller
    from workq.controller.records import Queue

logger = logging.getLogger("workq")

CLOSE_S = 5.0  # for all controllers together

open_controllers: weakref.WeakSet[Controller] = weakref.WeakSet()  # of this process; each adds itself, and takes itself off


def living() -> list[Controller]:
    """Return the controllers of this process that were not closed."""
    return list(open_controllers)


def close_all() -> None:
    """End all controllers, with one warning that counts what was dropped.

    1. Queues that are not to be drained begin to end. 2. Those that are to be are waited for. 3. What is still open is dropped.
    """
    controllers = living()
    dropped = 0
    for controller in controllers:
        dropped += _end_queues(controller)
    for controller in controllers:
        dropped += _drain_queues(controller)
    for controller in controllers:
        for queue in controller.every_queue():
            queue.emit()
            controller.tell_unasked(queue, _show_warning)
            if queue.callbacks is not None and queue.callbacks.count():
                number = counted(queue.callbacks.count(), "callback")
                _show_warning(
                    f"the interpreter ends: {number} of queue {queue.name} not made, as nobody has called sync(), wait() or wait_one()"
                )
    if dropped:
        verb = "is" if dropped == 1 else "are"
        units = counted(dropped, "unit")
        advice = "sync() waits for them, and so does at_exit='drain'"
        _show_warning(f"the interpreter ends: {units} that had not ended {verb} dropped; {advice}")
    deadline = time.monotonic() + CLOSE_S
    for controller in controllers:
        controller.close(max(0.1, deadline - time.monotonic()))


def _end_queues(controller: Controller) -> int:
    """Begin to end the queues that are not to be drained; return how many units that drops."""
    dropped = 0
    for queue in controller.every_queue():
        if controller.loop is not None and queue.at_exit != "drain" and queue.owner is None:
            dropped += _untold(queue)
            if queue.at_exit == "kill":
                controller.break_off(queue, kill=True)
            controller.close_queue(queue)
    return dropped


def _untold(queue: Queue) -> int:
    """Return how many open units a queue has, without those of which Ctrl-C has said that they are cancelled."""
    if not queue.broken_off:
        return queue.open_units()
    return sum(unit.value is PENDING and unit.id > queue.broken_off for unit in queue.open_list())


def _drain_queues(controller: Controller) -> int:
    """Wait for the queues that are to be drained; return how many of their units have not ended in time."""
    queues = [queue for queue in controller.every_queue() if queue.at_exit == "drain" and queue.owner is None]
    if controller.loop is None or not any(queue.busy() for queue in queues):
        return 0
    try:
        for queue in queues:
            if queue.paused:
                controller.pause_queue(queue, False)
        controller.wait(lambda: not any(queue.busy() for queue in queues), controller.settings.exit_drain_s, "")
    except (TimeoutError, RuntimeError, KeyboardInterrupt):
        pass
    for queue in queues:
        queue.emit()
    return sum(queue.open_units() for queue in queues)


def counted(number: int, what: str) -> str:
    """Return a number with its word.

    >>> counted(1, "unit"), counted(2, "unit")
    ('1 unit', '2 units')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def log_warning(message: str) -> None:
    """Log a warning whose text is ready."""
    logger.warning("%s", message)


def _show_warning(message: str) -> None:
    """Log a warning, and show it on stderr where nobody has set up logging: it is too late for that now."""
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, (), None)
    logger.handle(record)
    handlers = [*logger.handlers, *(logging.getLogger().handlers if logger.propagate else ())]
    if logging.lastResort is not None and all(isinstance(handler, logging.NullHandler) for handler in handlers):
        logging.lastResort.handle(record)


__all__ = ["close_all", "counted", "living", "log_warning", "open_controllers"]
