"""Units that run far beyond the usual time of their function are told of, once each. Belongs to the controller's thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from workq.core.times import quantile_s, slow_beyond_s
from workq.seeing.tables import seconds
from workq.transport.board import STARTED

if TYPE_CHECKING:
    from workq.controller.loop import Loop

logger = logging.getLogger("workq")


def look_for_slow(loop: Loop, now: float) -> None:
    """Look at all running units, with each heartbeat."""
    settings = loop.settings
    for worker in loop.dispatcher.workers:
        running = loop.dispatcher.running(worker)
        if running is None or now - running[1] < settings.slow_after_s or worker.slow_number == worker.words[STARTED]:
            continue
        unit, begun = running
        usual = unit.call.usual.buckets
        beyond_s = slow_beyond_s(usual, settings.slow_factor, settings.slow_after_s, settings.slow_after_units)
        if beyond_s is not None and now - begun > beyond_s:
            worker.slow_number = worker.words[STARTED]
            logger.warning(
                "unit %s has run for %s in %s (pid %d), where 99 of 100 units of %s took no more than %s; worker.stack() shows where",
                unit.label,
                seconds(now - begun),
                worker.name,
                worker.pid,
                unit.name,
                seconds(quantile_s(usual, 0.99)),
            )
