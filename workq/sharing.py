"""workq.shared: a large value that many units are given travels once for all workers."""

from __future__ import annotations

from typing import Any

from workq.errors import PicklingError
from workq.transport.sharing import Shared


def shared(value: Any) -> Any:
    """Return a handle of a value that is cheap to queue: units that are given it get the value itself.

    The value is written to shared memory once, now (what is changed afterwards is not seen). Each worker maps it at its first unit that
    is given it, and remembers it. Arrays are read-only in the units. The handle may be dropped once the units are queued; the memory is
    given back when they have ended too, and the workers that remember it have (each remembers the last 64 values). Any thread may call.

    The handle cannot be read here, in the program that made it: keep the value itself where you need it.

    Args:
        value: Anything that can be pickled; it is worth it for large arrays.

    Returns:
        The handle; to pass to ``queue`` and ``map`` as an argument, or inside of one.

    Raises:
        PicklingError: The value cannot be pickled.
        OSError: There is no memory or no descriptor for it.

    >>> from workq import WorkMgr, shared
    >>> table = shared(list(range(1000)))
    >>> with WorkMgr(2) as wq:
    ...     [wq.queue(max, table).result() for _ in range(3)]
    [999, 999, 999]
    """
    try:
        return Shared(value)
    except (OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PicklingError(f"a value of type {type(value).__name__} cannot be shared: {type(error).__name__}: {error}") from error
