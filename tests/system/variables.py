"""Context variables, and units that look at them."""

from __future__ import annotations

import contextvars
from typing import Any

import workq

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
request: contextvars.ContextVar[Any] = contextvars.ContextVar("request")


def who() -> str:
    return user.get()


def both(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return user.get(), request.get(None), args, kwargs


def change(name: str) -> str:
    before = user.get()
    user.set(name)
    return before


def nest() -> list[str]:
    with workq.WorkMgr(1, contextvars=True) as inner:
        return [inner.queue(who).result(), user.get()]


def trace_id() -> str:
    from opentelemetry import trace

    return format(trace.get_current_span().get_span_context().trace_id, "032x")


def raise_here() -> None:
    raise LookupError(user.get())
