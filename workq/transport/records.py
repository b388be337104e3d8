"""Log records to bytes and back: in the worker everything is made text or a plain value, bounded; the parent makes a record of it.

Pure. `logging` is imported only where a record is made, by when whoever calls has it anyway.
"""

from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from typing import Any

RECORD_BYTES = 128 << 10  # of one record; fits into one datagram of a socket pair
MESSAGE_CHARACTERS = 32 << 10
EXTRAS = 64
EXTRA_CHARACTERS = 4 << 10
PLAIN = (type(None), bool, int, float, str)

# What makes a record, apart from what the caller has added as `extra`. `args` and `exc_info` are in the texts by then.
FIELDS = (
    "name",
    "levelno",
    "levelname",
    "pathname",
    "filename",
    "module",
    "lineno",
    "funcName",
    "created",
    "msecs",
    "relativeCreated",
    "thread",
    "threadName",
    "processName",
    "process",
    "taskName",
)
NOT_EXTRA = frozenset((*FIELDS, "msg", "message", "args", "exc_info", "exc_text", "stack_info"))


def dump_record(record: logging.LogRecord, unit: str | None, worker: str) -> bytes:
    """Return the record as bytes, of at most `RECORD_BYTES`.

    Args:
        record: Any record. It is left as it is.
        unit: The label of the unit that logs, or None outside of one.
        worker: The worker's name.
    """
    message, trace = message_of(record), trace_of(record)
    extras = extras_of(record)
    fields = {name: plain(record.__dict__[name]) for name in FIELDS if name in record.__dict__}
    fields.update(workq_unit=unit, workq_worker=worker, workq_pid=os.getpid())
    limit = MESSAGE_CHARACTERS
    while True:
        texts = {"msg": cut(message, limit), "exc_text": cut(trace, limit), "stack_info": cut(record.stack_info, limit)}
        data = marshal.dumps({**extras, **fields, **texts})
        if len(data) <= RECORD_BYTES:
            return data
        limit //= 4
        extras = {} if limit < EXTRA_CHARACTERS else extras


def load_record(data: Any) -> logging.LogRecord:
    """Return the record again: with its message and traceback as text, and ``workq_unit``, ``workq_worker`` and ``workq_pid``."""
    import logging

    return logging.makeLogRecord(marshal.loads(data))


def message_of(record: logging.LogRecord) -> str:
    """Return the finished message; where the arguments do not fit the text, what can be said."""
    try:
        return str(record.getMessage())
    except Exception as error:
        return f"{safe_repr(record.msg)} (its arguments {safe_repr(record.args)} do not fit: {type(error).__name__})"


def trace_of(record: logging.LogRecord) -> str | None:
    """Return the traceback as text."""
    if record.exc_text or not record.exc_info:
        return record.exc_text
    import logging

    try:
        return logging.Formatter().formatException(record.exc_info)
    except Exception:
        return f"(the traceback of {safe_repr(record.exc_info[0])} cannot be written)"


def extras_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what the caller has added, as plain values; the rest by its repr."""
    names = [name for name in record.__dict__ if name not in NOT_EXTRA]
    return {name: plain(record.__dict__[name]) for name in names[:EXTRAS]}


def plain(value: Any) -> Any:
    """Return the value, if it is plain and of a sensible size, else its repr."""
    if type(value) in PLAIN:
        return cut(value, EXTRA_CHARACTERS) if type(value) is str else value
    try:
        if type(value) in (list, tuple, dict) and len(marshal.dumps(value)) <= EXTRA_CHARACTERS:
            return value
    except ValueError:  # something in it is not plain
        pass
    return cut(safe_repr(value), EXTRA_CHARACTERS)


def cut(text: Any, characters: int) -> Any:
    """Return a text with its end left out if it is too long; None as it is."""
    if type(text) is not str or len(text) <= characters:
        return text
    return f"{text[:characters]} ... ({len(text) - characters} characters cut)"


def safe_repr(value: Any) -> str:
    """Return a repr, also where that raises."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__} whose repr() failed>"
