"""What each mechanism brings: workq as it is and workq without it, in turns, in the row that shows it best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench import report, runner
from tests.bench.adapters import OURS
from tests.bench.adapters.without import MECHANISMS
from tests.bench.rows import ROWS, Row

HEAD = ("without", "what it is", "row", "with it", "without it", "times as much (range of the rounds)")


@dataclass(frozen=True, slots=True)
class Effect:
    """What one mechanism does for one row: its figures with it and without it, round by round."""

    mechanism: str
    row: Row
    figures: Sequence[float]
    without: Sequence[float]
    trouble: str | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times the figure is what it was, in each round."""
        return [without / figure for figure, without in zip(self.figures, self.without, strict=True) if figure]


def measure(rounds: int, quick: bool, loops_per_ms: int, tell: Callable[[str], None]) -> list[Effect]:
    """Measure all mechanisms."""
    runner.prepare()
    rows = {row.name: row for row in ROWS}
    return [
        _measure(name, rows[row], rounds, quick, loops_per_ms, tell) for name, mechanism in MECHANISMS.items() for row in mechanism.rows
    ]


def _measure(name: str, row: Row, rounds: int, quick: bool, loops_per_ms: int, tell: Callable[[str], None]) -> Effect:
    found: list[tuple[float, float]] = []
    for number in range(rounds):
        pair = []
        for contender in (OURS, f"without-{name}")[:: -1 if number % 2 else 1]:
            tell(f"{row.name}, round {number + 1} of {rounds}: {contender}")
            figures, trouble = runner.measure(row.workload, contender, quick, loops_per_ms)
            if figures is None or row.figure not in figures:
                return Effect(name, row, (), (), f"{contender}: {trouble or 'no figure'}")
            pair.append(figures[row.figure])
        found.append((pair[1], pair[0]) if number % 2 else (pair[0], pair[1]))
    return Effect(name, row, [one for one, _ in found], [other for _, other in found])


def table(effects: Sequence[Effect]) -> str:
    """Return them as an aligned table, and below it what went wrong."""
    troubles = [f"{effect.mechanism}, {effect.row.name}: {effect.trouble}" for effect in effects if effect.trouble]
    text = report.aligned([HEAD, *(_cells(effect) for effect in effects if not effect.trouble)])
    return "\n".join([*text, *(["", *troubles] if troubles else [])]) + "\n"


def _cells(effect: Effect) -> tuple[str, ...]:
    ratios, unit = effect.ratios, effect.row.unit
    times = f"{report.number(median(ratios))} ({report.number(min(ratios))}-{report.number(max(ratios))})" if ratios else "-"
    with_it, without = (f"{report.number(median(values))} {unit}" for values in (effect.figures, effect.without))
    return effect.mechanism, MECHANISMS[effect.mechanism].title, effect.row.name, with_it, without, times
