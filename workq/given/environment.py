"""The environment variables that workq reads, each in one place. An argument beats them, and a value that is not allowed is an error.

They are read when a controller is made, never at import.
"""

from __future__ import annotations

import logging
import os

from workq.errors import ArgumentError

START_METHOD = "WORKQ_START_METHOD"
LOG_LEVEL = "WORKQ_LOG_LEVEL"
MAX_WORKERS = "WORKQ_MAX_WORKERS"

VARIABLES = (MAX_WORKERS, START_METHOD, LOG_LEVEL)
START_METHODS = ("launcher", "fork", "spawn")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def start_method(argument: object = None) -> str:
    """Return how workers are to be made: as the argument says, else as ``WORKQ_START_METHOD`` does, else by the launcher.

    >>> start_method("fork")
    'fork'
    """
    if argument is not None:
        return _one_of("start_method", argument, (*START_METHODS, None))
    return _one_of(START_METHOD, os.environ.get(START_METHOD) or START_METHODS[0], START_METHODS)


def log_level(argument: object = None) -> int | None:
    """Return the level that logger ``workq`` is to have: as the argument says, else as ``WORKQ_LOG_LEVEL`` does, else None.

    >>> log_level("debug")
    10
    """
    name, value = ("log_level", argument) if argument is not None else (LOG_LEVEL, os.environ.get(LOG_LEVEL) or None)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    text = str(value).strip().upper() if isinstance(value, str) else ""
    if text.isdigit():
        return int(text)
    if text not in LEVELS:
        raise ArgumentError(f"{name} must be one of {', '.join(LEVELS)}, or a whole number of 0 or more, not {value!r}")
    return int(getattr(logging, text))


def max_workers() -> int | None:
    """Return what ``WORKQ_MAX_WORKERS`` says: the default for how many workers a queue has, and may have; None where it is not set."""
    text = os.environ.get(MAX_WORKERS, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{MAX_WORKERS} must be a whole number of at least 1, not {text!r}")
    return int(text)


def set_log_level(argument: object = None) -> None:
    """Give logger ``workq`` its level. What the program has set by itself is an argument too, and beats the environment."""
    logger = logging.getLogger("workq")
    level = log_level(argument)
    if level is not None and (argument is not None or logger.level == logging.NOTSET):
        logger.setLevel(level)


def _one_of(name: str, value: object, allowed: tuple[str | None, ...]) -> str:
    if value not in allowed or not isinstance(value, str):
        raise ArgumentError(f"{name} must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}, not {value!r}")
    return value
