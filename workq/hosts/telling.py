"""The end of a unit, told in the thread that has learned of it: where no controller runs there is no other to make its callbacks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.unit import Unit

logger = logging.getLogger("workq")


def tell_here(unit: Unit[Any]) -> None:
    """Wake who waits for a unit that has ended, and make its callbacks."""
    extra = unit.extra
    if extra is None:
        return
    with extra.lock:
        extra.notify()
        callbacks = extra.tell_waiters(unit)
    for callback in callbacks:
        _make(callback, unit)


def _make(callback: Callable[[Any], object], unit: Unit[Any]) -> None:
    try:
        callback(unit)
    except Exception:
        logger.exception("a callback raised: %r", callback)


__all__ = ["tell_here"]
