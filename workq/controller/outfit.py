"""What a queue wants done in each of its workers before its first and after its last unit, and how it travels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workq.errors import ArgumentError
from workq.given.arguments import check_callable
from workq.transport import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from workq.controller.records import Call

Deed = tuple[bytes, bytes]  # a function and its arguments, pickled
CO_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect itself costs 10 ms to import


@dataclass(slots=True)
class Outfit:
    """What a queue wants done in each of its workers: functions with their arguments, pickled. Fixed with the queue's first unit."""

    set_up: Deed | None = None
    tear_down: Deed | None = None

    def plain(self) -> tuple[Deed | None, Deed | None]:
        """Return it as it travels."""
        return self.set_up, self.tear_down


def packed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Deed:
    """Pickle what is to be done. Raises PicklingError, which names what cannot be."""
    check_callable("fn", function)
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & CO_COROUTINE:
        raise ArgumentError(f"fn must not be a coroutine function ({codec.name_of(function)}): give one that calls asyncio.run()")
    return codec.dump_function(function)[0], codec.dump_arguments(arguments, {}, function)


def told(call: Call) -> tuple[Any, ...]:
    """Return what a worker has to know of a function whose queue has an outfit."""
    queue = call.queue
    assert queue.outfit is not None
    return call.number, int(queue.number), queue.name, *queue.outfit.plain()
