"""A function that runs in the context of whoever queued it: what a worker runs for queues with ``contextvars`` or ``trace_context``.

The one place of opentelemetry, which is loaded only where it was asked for.
"""

from __future__ import annotations

import sys

from workq.context import side
from workq.transport import codec, mainmodule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar
    from typing import Any

    Captured = tuple[tuple[tuple[str, str, bytes], ...], dict[str, str] | None]  # module, name and value of variables; the trace


class InContext:
    """A function whose first argument is what was captured of the caller's context. It runs in a context of its own each time."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, captured: Captured, /, *args: Any, **kwargs: Any) -> Any:
        from contextvars import Context, copy_context

        context = copy_context() if side() is not None else Context()  # without workers: whoever waits is somebody else
        return context.run(self._run, captured, args, kwargs)

    def _run(self, captured: Captured, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        variables, trace = captured
        for module, name, data in variables:
            variable = find(module, name)
            if variable is not None:
                variable.set(codec.load(data))
        if trace is not None:
            attach_trace(trace)
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return InContext, (self.function,)

    def __getattr__(self, name: str) -> Any:
        if name == "__qualname__":
            return codec.name_of(self.function)
        raise AttributeError(name)


def find(module: str, name: str) -> ContextVar[Any] | None:
    """Return the variable of this name here; None where the module, as this process has it, has none."""
    try:
        __import__(module)
        found = getattr(sys.modules[module], name, None)
        if found is None and module == "__main__" and mainmodule.can_prepare():
            mainmodule.prepare()
            found = getattr(sys.modules[module], name, None)
    except ImportError:
        return None
    return found if hasattr(found, "set") else None


# ---------------------------------------------------------------- OpenTelemetry


def can_trace() -> bool:
    """Return whether OpenTelemetry is installed."""
    try:
        from opentelemetry import context, propagate
    except ImportError:
        return False
    return context is not None and propagate is not None


def current_trace() -> dict[str, str]:
    """Return the headers of the present trace (``traceparent``, ``tracestate``, ``baggage``), or an empty dict."""
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def attach_trace(headers: dict[str, str]) -> None:
    """Go on with a trace, in the present context."""
    try:
        from opentelemetry import context, propagate
    except ImportError:
        return
    context.attach(propagate.extract(headers))
