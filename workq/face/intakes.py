"""Which intake makes a queue's units, by what was asked of the queue and of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workq.controller.intake import Intake
from workq.controller.records import Options, Queue
from workq.errors import ArgumentError

if TYPE_CHECKING:
    from workq.face.carrying import Carried


def intake_of(row: Queue, options: Options, carried: Carried | None) -> Intake:
    """Return what makes units with these options."""
    if row.gate is not None:
        from workq.controller.gate import BoundedIntake

        return BoundedIntake(_unbounded(row, options, carried), row.gate)
    return _unbounded(row, options, carried)


def _unbounded(row: Queue, options: Options, carried: Carried | None) -> Intake:
    if carried is not None:
        from workq.face.carrying import ContextIntake

        return ContextIntake(row, options, carried)
    if options.queue_timeout is None:
        return Intake(row, options)
    from workq.controller.queuetime import TimedIntake

    return TimedIntake(row, options)


def carried_of(contextvars: Any, trace_context: Any) -> Carried:
    """Return what units are given of their caller's context; raise where that makes no sense."""
    if not isinstance(trace_context, bool):
        raise ArgumentError(f"trace_context must be True or False, not {trace_context!r}")
    from workq.face.carrying import Carried
    from workq.transport import incontext

    if trace_context and not incontext.can_trace():
        raise ArgumentError("trace_context=True needs OpenTelemetry: install workq-manager[opentelemetry]")
    return Carried(contextvars, trace_context)


__all__ = ["carried_of", "intake_of"]
