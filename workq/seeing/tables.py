"""Tables for people: aligned text in a terminal, HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def table(head: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return rows as an aligned table; numbers to the right.

    >>> print(table([["name", "units"]], [["a", "12"], ["bcdef", "7"]]))
    name   units
    a         12
    bcdef      7
    """
    every = [*head, *rows]
    columns = range(len(every[0])) if every else ()
    widths = [max(len(row[column]) for row in every) for column in columns]
    right = [any(_numeric(row[column]) for row in rows) for column in columns]
    return "\n".join("  ".join(_aligned(*cell) for cell in zip(row, widths, right, strict=True)).rstrip() for row in every)


def _aligned(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def html_table(title: str, head: Sequence[Row], rows: Sequence[Row]) -> str:
    """Return the same for a notebook. All text is escaped."""
    from html import escape

    parts = ["<table>"]
    if title:
        parts.append(f"<caption style='caption-side:top;text-align:left'>{escape(title)}</caption>")
    parts += ["<tr>" + "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in row) + "</tr>" for row in head]
    for row in rows:
        cells = (f"<td style='text-align:{'right' if _numeric(cell) else 'left'}'>{escape(cell)}</td>" for cell in row)
        parts.append("<tr>" + "".join(cells) + "</tr>")
    return "".join([*parts, "</table>"])


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit()


def seconds(value: float | None) -> str:
    """Return a time as people say it.

    >>> seconds(0.0123), seconds(75), seconds(2e-6), seconds(7300)
    ('12 ms', '75 s', '2 us', '2 h 1 min')
    """
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} us" if value else "0 ms"
    if value < 1:
        return f"{value * 1000:.1f} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    if value < 600:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes = int(value // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(value: float | None) -> str:
    """Return a number of bytes as people say it.

    >>> size(0), size(5_000), size(3 * 2**30)
    ('0 B', '5 kB', '3.2 GB')
    """
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if 0 < value < 10 and unit != "B" and value != int(value) else f"{value:.0f} {unit}"


def rate(per_second: float) -> str:
    """Return how many in each second, to three digits or as a whole number.

    >>> rate(0.0123), rate(4.5678), rate(1579.6), rate(0)
    ('0.0123', '4.57', '1580', '0')
    """
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.3g}"


def share(value: float | None) -> str:
    """Return a share as people say it.

    >>> share(0.834), share(None)
    ('83 %', '-')
    """
    return "-" if value is None else f"{value * 100:.0f} %"


def described(fraction: float | None, text: str) -> str:
    """Return progress as people read it.

    >>> described(0.4, "fold 2/5")
    'fold 2/5 40 %'
    """
    return " ".join(filter(None, [text, "" if fraction is None else share(fraction)]))
