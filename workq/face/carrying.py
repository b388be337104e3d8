"""What a queue carries of its caller's context to its units: context variables that pickle, and the W3C trace context."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from workq.controller.intake import _CACHEABLE, Intake
from workq.controller.queuetime import TimedIntake
from workq.controller.records import Call, Options, Queue
from workq.errors import ArgumentError
from workq.given.arguments import plain
from workq.transport import codec, incontext
from workq.transport.incontext import InContext
from workq.unit import Unit

if TYPE_CHECKING:
    from workq.transport.incontext import Captured

logger = logging.getLogger("workq")

MOST_HOMELESS = 1000  # variables that no module has, remembered so that they are not looked for again
MOST_FUNCTIONS = 1000


class Carried:
    """What is captured each time that a unit is queued."""

    def __init__(self, variables: Any, trace: bool) -> None:
        self._variables = None if variables is True else _listed(variables)  # None: all that have a value
        self._trace = trace
        self._homes: dict[ContextVar[Any], tuple[str, str] | None] = {}
        self._told: set[str] = set()  # names of variables of which the log was told that they stay behind
        for variable in self._variables or ():
            if self._home(variable) is None:
                raise ArgumentError(f"contextvars must be global variables of modules that workers can import, and {variable!r} is none")

    def capture(self) -> Captured | None:
        """Return what the present context holds of it; None where it holds nothing."""
        context = copy_context()
        items = []
        for variable in self._variables if self._variables is not None else context:
            home = self._home(variable) if variable in context else None
            if home is not None:
                data = self._pickled(variable, context[variable])
                if data is not None:
                    items.append((*home, data))
        trace = incontext.current_trace() if self._trace else None
        return (tuple(items), trace) if items or trace else None

    def _pickled(self, variable: ContextVar[Any], value: Any) -> bytes | None:
        try:
            return codec.dump_value(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._tell(variable, f"its value cannot be pickled: {codec.reason(error)}")
            return None

    def _home(self, variable: ContextVar[Any]) -> tuple[str, str] | None:
        """Return where the variable is found in every process: a module and a name."""
        if variable not in self._homes:
            if len(self._homes) >= MOST_HOMELESS:
                self._homes = {known: home for known, home in self._homes.items() if home is not None}
            self._homes[variable] = home = home_of(variable)
            if home is None:
                self._tell(variable, "it is no global variable of a module that workers can import")
        return self._homes[variable]

    def _tell(self, variable: ContextVar[Any], why: str) -> None:
        if variable.name not in self._told and len(self._told) < MOST_HOMELESS:
            self._told.add(variable.name)
            logger.debug("context variable %r is not carried to units: %s", variable.name, why)


def _listed(variables: Any) -> tuple[ContextVar[Any], ...]:
    if variables is False or variables is None:
        return ()
    if isinstance(variables, Iterable) and not isinstance(variables, str):
        listed = tuple(variables)
        if all(isinstance(variable, ContextVar) for variable in listed):
            return listed
    raise ArgumentError(f"contextvars must be True, False or a list of ContextVars, not {variables!r}")


def home_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    """Return the module and the name under which a variable is found; None where it is in none, or where workers cannot import that."""
    for name, module in list(sys.modules.items()):
        if name == "__mp_main__" or (name == "__main__" and not codec.main_is_importable()):
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is variable:
                return plain(name), plain(attribute)
    return None


class ContextIntake(TimedIntake):
    """An intake whose units run in what was captured of their caller's context."""

    def __init__(self, queue: Queue, options: Options, carried: Carried) -> None:
        super().__init__(queue, options)
        self._carried = carried
        self._wrapped: dict[Callable[..., Any], InContext] = {}

    def queue(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Unit[Any]:
        """Capture, and queue."""
        captured = self._carried.capture()
        if captured is None or not callable(function):
            return super().queue(function, args, kwargs)
        return super().queue(self._wrap(function), (captured, *args), kwargs)

    def sibling(self, options: Options) -> Intake:
        """Return an intake of the same kind with other options."""
        return ContextIntake(self._queue, options, self._carried)

    def _wrap(self, function: Callable[..., Any]) -> InContext:
        if type(function) not in _CACHEABLE:
            return InContext(function)
        wrapped = self._wrapped.get(function)
        if wrapped is None:
            wrapped = InContext(function)
            if len(self._wrapped) < MOST_FUNCTIONS:
                self._wrapped[function] = wrapped
        return wrapped

    def _slowly(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, bytes]:
        if type(function) is not InContext:
            return super()._slowly(function, args, kwargs)
        inner = function.function
        self._check(inner)
        if (function, bool(kwargs)) in self._large_calls:
            return self._large_calls[function, bool(kwargs)], self._pack(function, args, kwargs)
        _, stable = codec.dump_function(inner)  # its errors, and those of the arguments, name what the caller wrote
        codec.dump_arguments(args[1:], kwargs, inner)
        data = codec.dump_arguments(args, kwargs)
        calls = self._named_calls if kwargs else self._calls
        name = self.options.name or codec.name_of(inner)
        if stable and self._wrapped.get(inner) is function:
            return self._call(calls, function, codec.dump_value(function), bool(kwargs), name), data
        return self._travels(codec.dump_value(function), data, bool(kwargs), name)


__all__ = ["Carried", "ContextIntake"]
