"""The figures as a picture: for each row bars on a scale of tenfold steps, in multiples of the limit (or of what the goal names)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.adapters import OURS
from tests.bench.report import number
from tests.bench.results import Line

WIDTH, LEFT, RIGHT = 960, 150, 170
BAR, GAP, HEAD = 13, 26, 20
LEGEND = "Each row has a scale of its own, in tenfold steps. Thin line: what the bars are multiples of. Dashed line: the goal."
COLOURS = {OURS: "#1a6fb5", "limit": "#7a7a7a", "peer": "#c9c9c9"}


def svg(lines: Sequence[Line]) -> str:
    """Return the picture as the text of an SVG file."""
    body = [f'<text x="10" y="16">{LEGEND}</text>']
    top = 44.0
    for line in lines:
        if len(line.figures) > 1 and all(value > 0 for value in line.figures.values()):
            body += _group(line, top)
            top += HEAD + BAR * len(line.figures) + GAP
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" viewBox="0 0 {WIDTH} {top:.0f}" '
    style = 'font-family="sans-serif" font-size="11" fill="#222222">'
    return "\n".join([frame + style, f'<rect width="{WIDTH}" height="{top:.0f}" fill="#ffffff"/>', *body, "</svg>"]) + "\n"


def _group(line: Line, top: float) -> Iterator[str]:
    """Yield one row: its title, a bar for each contender from the best to the worst, and a mark where the goal is."""
    reference_name, reference = _reference(line)
    multiples = {name: value / reference for name, value in line.figures.items()}
    goal = _goal_multiple(line)
    extremes = [*multiples.values(), 1.0, *([goal] if goal else [])]
    low, high = math.floor(math.log10(min(extremes)) - 0.01), math.ceil(math.log10(max(extremes)) + 0.01)

    def across(multiple: float) -> float:
        return LEFT + (math.log10(multiple) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    title = f"{line.row.title} (goal {line.row.goal or '-'}; bars in multiples of {reference_name})"
    yield f'<text x="10" y="{top:.0f}" font-weight="bold">{escape(title)}</text>'
    first = top + HEAD - 10
    order = sorted(multiples, key=lambda name: multiples[name], reverse=line.row.more_is_better)
    for place, name in enumerate(order):
        yield from _bar(line, name, first + place * BAR, across(multiples[name]))
    marks = [(1.0, 'stroke="#222222" stroke-width="0.5"'), *([(goal, 'stroke="#c0392b" stroke-dasharray="3 2"')] if goal else [])]
    for multiple, style in marks:
        x, bottom = across(multiple), first + len(order) * BAR
        yield f'<line x1="{x:.1f}" y1="{first:.0f}" x2="{x:.1f}" y2="{bottom:.0f}" {style}/>'


def _bar(line: Line, name: str, y: float, end: float) -> Iterator[str]:
    colour = COLOURS.get(name) or COLOURS["limit" if name in line.limits else "peer"]
    yield f'<text x="{LEFT - 6}" y="{y + BAR - 3:.0f}" text-anchor="end">{escape(name)}</text>'
    yield f'<rect x="{LEFT}" y="{y + 1:.0f}" width="{max(1.0, end - LEFT):.1f}" height="{BAR - 2}" fill="{colour}"/>'
    yield f'<text x="{end + 5:.1f}" y="{y + BAR - 3:.0f}">{number(line.figures[name])} {escape(line.row.unit)}</text>'


def _reference(line: Line) -> tuple[str, float]:
    """Return what the bars are multiples of: the limit, else whom the goal names, else the goal's own bound."""
    goal = line.row.goal
    for name in (*((line.against,) if line.against in line.limits else ()), *line.limits, line.against):
        if name is not None and name in line.figures:
            return name, line.figures[name]
    return ("the goal", goal.bound) if goal and goal.against is None else (OURS, line.ours or 1.0)


def _goal_multiple(line: Line) -> float | None:
    """Return where the goal is, in multiples of the reference."""
    goal = line.row.goal
    if goal is None or goal.bound == 0:
        return None
    if goal.against is None:
        return goal.bound / _reference(line)[1]
    if line.against not in line.figures:
        return None
    scale = line.figures[line.against] / _reference(line)[1]
    return scale / goal.bound if goal.faster else scale * goal.bound
