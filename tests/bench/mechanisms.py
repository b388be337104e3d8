"""What each mechanism brings: workq as it is and workq without it, in turns, in the row that shows it best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import monotonic

from tests.bench import report, runner
from tests.bench.adapters import OURS
from tests.bench.adapters.without import MECHANISMS
from tests.bench.rows import ROWS, Row

HEAD = ("without", "what it is", "row", "with", "without", "times as much (range of the rounds)")


@dataclass(slots=True)
class Effect:
    """What one mechanism does for one row: its figures with it and without it, round by round."""

    mechanism: str
    row: Row
    figures: list[float] = field(default_factory=list)
    without: list[float] = field(default_factory=list)
    trouble: str | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times the figure is what it was, in each round."""
        return [without / figure for figure, without in zip(self.figures, self.without, strict=True) if figure]


def measure(rounds: int, quick: bool, loops_per_ms: int, tell: Callable[[str], None], limit_s: float) -> Iterator[list[Effect]]:
    """Measure all mechanisms, round by round, and yield what is known after each round. After the limit no other round is begun.

    A round that would likely end after the limit is not begun either.
    """
    runner.prepare()
    rows = {row.name: row for row in ROWS}
    effects = [Effect(name, rows[row]) for name, mechanism in MECHANISMS.items() for row in mechanism.rows]
    began = monotonic()
    for number in range(rounds):
        if number and (monotonic() - began) * (number + 1) / number > limit_s:
            return
        for effect in effects:
            if effect.trouble is None:
                tell(f"{effect.row.name}, round {number + 1}: with and without {effect.mechanism}")
                _measure_pair(effect, number, quick, loops_per_ms)
        yield effects


def _measure_pair(effect: Effect, number: int, quick: bool, loops_per_ms: int) -> None:
    """Measure one mechanism's row with it and without it, the one first in this round and the other in the next."""
    row, found = effect.row, {}
    for contender in (OURS, f"without-{effect.mechanism}")[:: -1 if number % 2 else 1]:
        figures, trouble = runner.measure(row.workload, contender, quick, loops_per_ms)
        if figures is None or row.figure not in figures:
            effect.trouble = f"{contender}: {trouble or 'no figure'}"
            return
        found[contender == OURS] = figures[row.figure]
    effect.figures.append(found[True])
    effect.without.append(found[False])


def table(effects: Sequence[Effect]) -> str:
    """Return them as an aligned table, and below it what went wrong."""
    troubles = [f"{effect.mechanism}, {effect.row.name}: {effect.trouble}" for effect in effects if effect.trouble]
    text = report.aligned([HEAD, *(_cells(effect) for effect in effects if effect.figures)])
    return "\n".join([*text, *(["", *troubles] if troubles else [])]) + "\n"


def _cells(effect: Effect) -> tuple[str, ...]:
    ratios, unit = effect.ratios, effect.row.unit
    times = f"{report.number(median(ratios))} ({report.number(min(ratios))}-{report.number(max(ratios))})" if ratios else "-"
    with_it, without = (f"{report.number(median(values))} {unit}" for values in (effect.figures, effect.without))
    return effect.mechanism, MECHANISMS[effect.mechanism].title, effect.row.name, with_it, without, times
