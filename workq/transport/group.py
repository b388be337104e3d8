"""What a worker runs for a group of short items of a ``map``: one unit, one pickle there and one back."""

from __future__ import annotations

from workq.interruption import ExternalInterrupt
from workq.transport import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def run(function: Callable[..., Any], items: list[Any]) -> tuple[list[Any], bytes | None]:
    """Call a function for each item; return the results up to the first that raised, and what it raised."""
    results: list[Any] = []
    try:
        results.extend(map(function, items))  # keeps what it had when one raises
    except ExternalInterrupt:
        raise
    except BaseException as error:
        return results, codec.dump_error(error, f"item {len(results)} of a group of {len(items)} of {codec.name_of(function)}")
    return results, None


def run_spread(function: Callable[..., Any], rows: list[tuple[Any, ...]]) -> tuple[list[Any], bytes | None]:
    """The same for a function of several arguments."""
    return run(lambda row: function(*row), rows)
