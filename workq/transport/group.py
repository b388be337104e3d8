"""What a worker runs for a group of short items of a ``map``: one unit, one pickle there and one back."""

from __future__ import annotations

from itertools import starmap

from workq.interruption import ExternalInterrupt
from workq.transport import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any


def run(function: Callable[..., Any], items: Sequence[Any]) -> tuple[list[Any], list[tuple[int, bytes]]]:
    """Call a function for each item; return the results of those that returned, and of each that raised its place among them and what."""
    return _collect(map(function, items), function, len(items))


def run_spread(function: Callable[..., Any], rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], list[tuple[int, bytes]]]:
    """The same for a function of several arguments."""
    return _collect(starmap(function, rows), function, len(rows))


def _collect(calls: Iterator[Any], function: Callable[..., Any], number: int) -> tuple[list[Any], list[tuple[int, bytes]]]:
    results: list[Any] = []
    failures: list[tuple[int, bytes]] = []
    while True:
        try:
            results.extend(calls)  # at the speed of C; where one raises it keeps what it had, and the next call goes on behind that one
            return results, failures
        except ExternalInterrupt:
            raise
        except BaseException as error:
            item = len(results) + len(failures)
            failures.append((len(results), codec.dump_error(error, f"item {item} of a group of {number} of {codec.name_of(function)}")))
