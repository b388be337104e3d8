"""Write docs/reference.md from the docstrings of the public names: ``python -m tests.tools.write_reference [--check]``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import workq

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference.md"
ORDER = ("manager", "view", "unit", "category", "controller", "context", "statistics", "config", "interruption", "errors")
HEAD = """# Reference

Every public name is `workq.NAME`. This page is written from the docstrings by `python -m tests.tools.write_reference`.
"""
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Note):$")
TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises", "Returns": "Returns", "Yields": "Yields", "Note": "Note"}
MADE_BY_US = {
    "Unit",
    "Results",
    "Session",
    "SessionView",
    "View",
    "WorkerTable",
    "WorkerRow",
    "QueueStatistics",
    "Metrics",
    "Histogram",
    "UnitInfo",
    "WorkerInfo",
    "Settings",
}
INTERNAL = {  # what other rooms of workq use, and nobody else should
    "Unit": {"asked", "extra", "need_extra", "set_result", "set_exception", "set_running_or_notify_cancel"},
    "WorkerRow": {"cells"},
    "WorkerTable": {"HEAD"},
    "Controller": {
        "check_usable",
        "inline",
        "population",
        "running",
        "states",
    },
}
INHERITED = (BaseException, object, tuple, int)


class Words:
    """An annotation as it stands in the source, without the quotes."""

    def __init__(self, text: object) -> None:
        self.text = text if isinstance(text, str) else inspect.formatannotation(text)

    def __repr__(self) -> str:
        return self.text


def text() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(line for name in ordered(workq.__all__) for line in entry(name, getattr(workq, name)))])


def ordered(names: list[str]) -> list[str]:
    """Return the names in the order of their modules, and within a module as they stand in it."""

    def place(name: str) -> tuple[int, int, str]:
        value = getattr(workq, name)
        module = sys.modules[getattr(value, "__module__", "workq")]
        module = sys.modules.get(workq._HOME_OF.get(name, ""), module)
        home = next((part for part in reversed(module.__name__.split(".")) if part in ORDER), "")
        lines = list(vars(module))
        return ORDER.index(home) if home in ORDER else len(ORDER), lines.index(name) if name in lines else 0, name

    return sorted(names, key=place)


def entry(name: str, value: Any) -> Iterator[str]:
    """Yield the lines about one public name."""
    yield f"## {name}"
    yield ""
    if inspect.isclass(value):
        yield from class_lines(name, value)
    elif inspect.isroutine(value):
        yield from code(f"{name}{signature(value)}")
        yield from prose(inspect.getdoc(value) or "")
    else:
        yield from code(f"{name} = {value!r}")
        yield from prose(type(value).__doc__ or "")


def class_lines(name: str, kind: type) -> Iterator[str]:
    """Yield the lines about a class: how it is made, what it is, what it has."""
    if issubclass(kind, BaseException):
        yield f"Is a {', '.join(f'`{base.__name__}`' for base in kind.__bases__)}."
        yield ""
    else:
        by_us = name in MADE_BY_US or issubclass(kind, Enum)  # what an enum takes differs between versions of Python
        yield from code(name if by_us else f"{name}{signature(kind)}")
    yield from prose(inspect.getdoc(kind) or "")
    if issubclass(kind, tuple):  # its fields are told of by the comments that stand beside them
        lines = inspect.getsource(kind).splitlines()
        yield from code(inspect.cleandoc("\n".join(line for line in lines[1:] if re.match(r"    (# --|\w+: )", line))))
    for member, value in members_of(kind):
        if member.startswith("_") or member in INTERNAL.get(name, ()) or (name == "Controller" and of_rows(value)):
            continue
        if isinstance(value, property):
            yield from member_lines(f"`.{member}`", value.__doc__)
        elif inspect.isfunction(value) or isinstance(value, staticmethod | classmethod):
            function = value if inspect.isfunction(value) else value.__func__
            yield from member_lines(f"`.{member}{signature(function, method=not isinstance(value, staticmethod))}`", value.__doc__)


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class has; of a work queue, the parts that it is made of in their order, and then its own."""
    parts = [base for base in kind.__mro__[1:] if base.__module__.startswith("workq.face.") and base.__name__ not in workq.__all__]
    for part in (*parts, kind):
        yield from vars(part).items()


def of_rows(value: Any) -> bool:
    """Return whether a method of Controller takes a row of a queue or a unit: nobody but other rooms has such rows."""
    function = getattr(value, "__func__", value)
    return any(re.match(r"Queue\b|Unit\b", str(note)) for note in getattr(function, "__annotations__", {}).values())


def member_lines(title: str, docstring: str | None) -> Iterator[str]:
    """Yield the lines about a method or a property."""
    yield f"### {title}"
    yield ""
    yield from prose(inspect.cleandoc(docstring or ""))


def signature(function: Any, method: bool = False) -> str:
    """Return a signature as it stands in the source; of a method, without self."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        parameter if parameter.annotation is parameter.empty else parameter.replace(annotation=Words(parameter.annotation))
        for parameter in list(found.parameters.values())[1 if method else 0 :]
    ]
    result = found.return_annotation
    shown = result if inspect.isclass(function) or result is found.empty else Words(result)
    if inspect.isclass(function):
        shown = found.empty
    return str(inspect.Signature(parameters, return_annotation=shown))


def code(line: str) -> Iterator[str]:
    """Yield a block of code. Its language is not `python`, which would have it run."""
    yield from ("```py", line, "```", "")


def prose(docstring: str) -> Iterator[str]:
    """Yield a docstring as Markdown: sections become lists, examples become blocks."""
    section, example = "", False
    for line in docstring.splitlines():
        is_code = line.lstrip().startswith((">>> ", "... ")) or (example and line.strip() != "")
        if is_code != example:
            yield "```" + ("py" if is_code else "")
            example = is_code
        match = SECTION.match(line)
        if match:
            section = match[1]
            yield f"**{TITLES[section]}**"
            yield ""
        elif example:
            yield line
        else:
            yield item(section, line) if section else markup(line)
    if example:
        yield "```"
    yield ""


def item(section: str, line: str) -> str:
    """Return a line of a section: one that begins an entry becomes a bullet, one that goes on is indented below it."""
    if not line.strip():
        return ""
    body = markup(line.strip())
    if line.startswith("        "):
        return f"  {body}"
    name, colon, rest = body.partition(":")
    return f"- `{name}`:{rest}" if colon and section in ("Args", "Attributes", "Raises") else f"- {body}"


def markup(line: str) -> str:
    """Turn reStructuredText's code and references into Markdown's."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", line).replace("``", "`")


def main() -> int:
    """Write the page, or tell whether it is as it should be."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text() == text() else 1
    PAGE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
