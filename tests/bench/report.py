"""The table, as text."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from tests.bench.adapters import OURS
from tests.bench.results import NO_FIGURE, Line

HEAD = ("row", "what", "goal", "workq", "best peer", "limit", "ratio (range of the rounds)", "met")
MARK = "<!-- the table of one run -->"
MECHANISMS_MARK = "<!-- what each mechanism brings -->"
PACKAGES = ("loky", "pebble", "mpire", "deadpool-executor", "joblib", "numpy")


def table(lines: Sequence[Line]) -> str:
    """Return all lines as an aligned table, and below it what went wrong."""
    cells = [HEAD, *(_cells(line) for line in lines)]
    text = aligned(cells)
    troubles = [f"{line.row.name}: {name}: {why}" for line in lines for name, why in line.troubles.items() if why != NO_FIGURE]
    without = [f"{line.row.name}: no figure of {', '.join(names)}" for line in lines if (names := _without(line))]
    placed = [_placement(line) for line in lines if line.one_core_shares]
    return "\n".join([*text, "", *troubles, *without, *placed]).rstrip() + "\n"


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, with one below the first."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    text.insert(1, "  ".join("-" * width for width in widths))
    return text


def _cells(line: Line) -> tuple[str, ...]:
    row, best = line.row, line.best_peer
    limit = line.against if line.against in line.limits else next((name for name in line.limits if name in line.figures), None)
    return (
        row.name,
        row.title,
        str(row.goal) if row.goal else "-",
        _figure(line.ours, row.unit),
        "-" if best is None else f"{_figure(line.figures[best], row.unit)} {best}",
        "-" if limit is None else f"{_figure(line.figures.get(limit), row.unit)} {limit}",
        _range(line.ratios, line.ratio),
        {True: "yes", False: "NO", None: "-"}[line.met],
    )


def _without(line: Line) -> list[str]:
    return [name for name, why in line.troubles.items() if why == NO_FIGURE]


def _placement(line: Line) -> str:
    """Say where the kernel has placed caller and worker, and what the limits are in each place: that alone is a factor of ten."""
    shares = [f"{name} {100 * share:.0f} %" for name, share in line.one_core_shares.items() if name == OURS or name in line.limits]
    limits = [f"{name} {_figure(line.figures[name], line.row.unit)}" for name in line.limits if name in line.figures]
    return f"{line.row.name}: caller and worker on one core: {', '.join(shares)} of the runs; {', '.join(limits)}"


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{number(value)} {unit}".rstrip()


def _range(ratios: Sequence[float], middle: float | None) -> str:
    if middle is None:
        return "-"
    return f"{number(middle)} ({number(min(ratios))}-{number(max(ratios))})"


def number(value: float) -> str:
    """Return a number with three digits that count.

    >>> number(0.01234), number(12.345), number(1234.5), number(0.0)
    ('0.0123', '12.3', '1234', '0')
    """
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_table(page: str, text: str, mark: str = MARK, picture: str = "") -> str:
    """Return a page with this text as the ``text`` block that follows its mark, and a picture above it if there is one."""
    before, found, after = page.partition(mark)
    if not found:
        raise ValueError(f"the page has no line {mark}")
    rest = after.partition("```text\n")[2].partition("```\n")[2]
    shown = f"![The same as bars against the goals]({picture})\n\n" if picture else ""
    return f"{before}{mark}\n\n{shown}```text\n{text.rstrip()}\n```\n{rest}"


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
