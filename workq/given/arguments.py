"""What values arguments may have: checks whose errors name the argument."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Iterable
from typing import Any

from workq.errors import ArgumentError


def check_seconds(argument: str, value: object, above: bool = False, none: str = "") -> None:
    """Raise unless it is a number of seconds of 0 or more, or above 0. Where None may be given, ``none`` is what that says."""
    if not _is_finite(value) or value < 0 or (above and value == 0):  # type: ignore[operator]
        what = f"{_number(value)} of seconds {'above 0' if above else 'of 0 or more'}{f', or None {none}' if none else ''}"
        raise ArgumentError(f"{argument} must be {what}, not {value!r}")


def check_timeout(value: object) -> None:
    """Raise unless it says how long to wait: None, or a number of seconds of 0 or more."""
    if value is not None and (not _is_finite(value) or value < 0):  # type: ignore[operator]
        raise ArgumentError(f"timeout must be {_number(value)} of seconds of 0 or more, or None to wait for ever, not {value!r}")


def check_future_timeout(value: object) -> None:
    """The same for futures, where what is below 0 is as 0: such code passes on what is left of its own time."""
    if value is not None and not _is_finite(value):
        raise ArgumentError(f"timeout must be {_number(value)} of seconds, or None to wait for ever, not {value!r}")


def check_whole(argument: str, value: object, least: int | None = None) -> None:
    """Raise unless it is a whole number of at least so much."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ArgumentError(f"{argument} must be a whole number, not {value!r}")
    if least is not None and value < least:
        raise ArgumentError(f"{argument} must be {least} or more, not {value!r}")


def check_amount(argument: str, value: object, unit: str, none: str = "") -> None:
    """Raise unless it is a finite number above 0. Where None may be given, ``none`` is what that says."""
    if not _is_finite(value) or value <= 0:  # type: ignore[operator]
        what = f"{_number(value)} of {unit} above 0{f', or None {none}' if none else ''}"
        raise ArgumentError(f"{argument} must be {what}, not {value!r}")


def check_share(argument: str, value: object) -> None:
    """Raise unless it is a number from 0 to 1."""
    if not _is_finite(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ArgumentError(f"{argument} must be a number from 0 to 1, not {value!r}")


def check_callable(argument: str, value: object) -> None:
    """Raise unless it can be called."""
    if not callable(value):
        raise ArgumentError(f"{argument} must be callable, not {value!r}")


def check_name(argument: str, value: object) -> None:
    """Raise unless it can stand in a line of a table, or is None."""
    if value is not None and not (isinstance(value, str) and value and value.isprintable()):
        raise ArgumentError(f"{argument} must be a str of printable characters, or None, not {value!r}")


def check_lock_name(value: object) -> str:
    """Return the name of a lock or an event as a plain str; raise unless it may be one."""
    if not isinstance(value, str) or not 1 <= len(value) <= 128:
        raise ArgumentError(f"name must be a str of 1 to 128 characters, not {value!r}")
    return plain(value)


def check_progress(value: object) -> None:
    """Raise unless it says whether, or by what, progress is to be shown."""
    if value is not True and value is not False and value not in ("tqdm", "rich", "plain"):
        raise ArgumentError(f"progress must be True, False, 'tqdm', 'rich' or 'plain', not {value!r}")
    if value in ("tqdm", "rich") and importlib.util.find_spec(str(value)) is None:
        raise ArgumentError(f"progress={value!r} needs the package {value}, which is not installed")


def plain(text: str) -> str:
    """Return a text of a subclass of str (an enum's, numpy's) as a real one: marshal, which carries it to the workers, takes no other."""
    return str.__str__(text)


def checked_iterables(iterables: tuple[Iterable[Any], ...]) -> tuple[Iterable[Any], ...]:
    """Return an iterator of each, a lone sequence as it is; raise where there are none, or where one is no iterable."""
    if not iterables:
        raise ArgumentError("map needs at least one iterable")
    for iterable in iterables:
        if not hasattr(type(iterable), "__iter__") and not hasattr(type(iterable), "__getitem__"):
            raise ArgumentError(f"iterables of map must be iterable, not {iterable!r}")
    if len(iterables) == 1 and type(iterables[0]) in (range, list, tuple):
        return iterables
    return tuple(iter(iterable) for iterable in iterables)


def length_of(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are, the shortest decides; None where it is not known."""
    lengths = [operator.length_hint(each, -1) for each in iterables if hasattr(each, "__length_hint__") or hasattr(each, "__len__")]
    return min(lengths) if len(lengths) == len(iterables) else None


OPTIONS = ("timeout", "retries", "priority", "name", "queue_timeout", "memory_mb", "cpu_s")  # of WorkMgr.options
_UNEXPECTED = r"(\S+)\(\) (?:got an unexpected keyword argument '(\w+)'|takes no keyword arguments)"


def add_hint(error: TypeError, function: str | None) -> None:
    """Say that options of a unit are not given to ``queue``, where its function was called with a keyword that it has not."""
    import re

    found = re.match(_UNEXPECTED, str(error))
    if found is None or function is None or found[1].rpartition(".")[2] != function.rpartition(".")[2]:
        return
    if found[2] is None:
        error.add_note("the keyword arguments of queue() are the function's; options of the unit are given by options(...).queue(...)")
    elif found[2] in OPTIONS:
        error.add_note(f"if {found[2]} was meant for the unit, and not for {found[1]}: options({found[2]}=...).queue(...)")


def _number(value: object) -> str:
    """Return what is wanted in the place of a value that is none: infinity and "not a number" are numbers to Python."""
    return "a finite number" if isinstance(value, float) and not math.isfinite(value) else "a number"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
