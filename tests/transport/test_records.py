"""A log record comes back with its message and traceback as text, bounded, whatever its arguments do."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import pytest

from workq.transport.records import RECORD_BYTES, dump_record, load_record


def make(message: object, *args: object, level: int = logging.INFO, exc_info: Any = None, **extra: object) -> logging.LogRecord:
    return logging.getLogger("some.logger").makeRecord("some.logger", level, __file__, 7, message, args, exc_info, "function", extra)


def there_and_back(record: logging.LogRecord) -> logging.LogRecord:
    return load_record(dump_record(record, "q:1 work", "worker_1234abcd"))


def test_what_a_formatter_shows_is_the_same() -> None:
    record = make("%s and %d", "one", 2)
    shown = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s %(funcName)s %(lineno)d %(process)d %(threadName)s")
    assert shown.format(there_and_back(record)) == shown.format(record)


def test_it_says_where_it_comes_from() -> None:
    back: Any = there_and_back(make("x"))
    assert (back.workq_unit, back.workq_worker, back.workq_pid) == ("q:1 work", "worker_1234abcd", os.getpid())


def test_a_traceback_comes_as_text() -> None:
    try:
        raise LookupError("the reason")
    except LookupError:
        back = there_and_back(make("failed", exc_info=sys.exc_info()))
    assert back.exc_info is None
    assert logging.Formatter().format(back).endswith("LookupError: the reason")


def test_the_record_itself_is_left_as_it_was() -> None:
    record = make("%s", "x", note=object())
    before = dict(record.__dict__)
    dump_record(record, None, "w")
    assert record.__dict__ == before


class Raises:
    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __str__(self) -> str:
        raise ValueError("no str")


def test_extras_come_along_plain_or_as_their_repr() -> None:
    back: Any = there_and_back(
        make("x", number=5, names=["a", {"b": None}], thing=object, odd=Raises(), text=type("Text", (str,), {})("t"))
    )
    assert (back.number, back.names, back.thing, back.odd, back.text) == (
        5,
        ["a", {"b": None}],
        "<class 'object'>",
        "<Raises whose repr() failed>",
        "'t'",
    )


@pytest.mark.parametrize("record", [make("%d", "no number"), make("%s %s", "one"), make(Raises()), make("%s", Raises())], ids=range(4))
def test_a_message_that_cannot_be_made_is_described(record: logging.LogRecord) -> None:
    assert "do not fit" in there_and_back(record).getMessage()


@pytest.mark.parametrize("size", [1_000_000, 10_000])
def test_a_record_is_bounded(size: int) -> None:
    try:
        raise LookupError("é" * size)
    except LookupError:
        extras = dict.fromkeys((f"extra_{n}" for n in range(200)), "\U0001f40d" * size)
        record = make("\U0001f40d" * size, exc_info=sys.exc_info(), **extras)
    record.stack_info = "s" * size
    data = dump_record(record, "q:1 work", "w")
    assert len(data) <= RECORD_BYTES
    assert load_record(data).getMessage().startswith("\U0001f40d" * 1000)


def test_braces_and_percent_signs_are_not_looked_at_again() -> None:
    assert there_and_back(make("100%% of %s", "{x} %s")).getMessage() == "100% of {x} %s"


def test_lone_surrogates_survive() -> None:
    assert there_and_back(make("\udc80")).getMessage() == "\udc80"
