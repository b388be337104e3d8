"""From the figures of all rounds to the lines of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from tests.bench.adapters import OURS
from tests.bench.rows import ONE_CORE_SHARE, Row
from tests.bench.runner import Outcome

NO_FIGURE = "no figure"  # it took part, and this figure has no meaning there: no next unit ever ran, say


@dataclass(frozen=True, slots=True)
class Line:
    """One row with its figures.

    Attributes:
        row: What was measured.
        figures: The median of each contender that has a figure.
        troubles: By contender: why it has none.
        limits: The names among them that are no libraries.
        ratios: What the goal is about, in each round that has it.
        one_core_shares: Of those that the kernel may place: in which share of the runs caller and worker were on the same core.
    """

    row: Row
    figures: dict[str, float]
    troubles: dict[str, str]
    limits: tuple[str, ...]
    ratios: tuple[float, ...]
    one_core_shares: dict[str, float] = field(default_factory=dict)

    @property
    def against(self) -> str | None:
        """Whom the goal compares workq with, by where the kernel has placed workq most of the time."""
        return self.row.goal.opponent({ONE_CORE_SHARE: self.one_core_shares.get(OURS, 0.0)}) if self.row.goal else None

    @property
    def ours(self) -> float | None:
        """Workq's figure."""
        return self.figures.get(OURS)

    @property
    def ratio(self) -> float | None:
        """The median of what the goal is about."""
        return median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None: there is none, or nothing to tell it by."""
        if self.row.goal is None or self.ratio is None:
            return None
        return self.row.goal.met(self.ratio)

    @property
    def best_peer(self) -> str | None:
        """The name of the library, other than workq, with the best figure."""
        peers = [name for name in self.figures if name != OURS and name not in self.limits]
        choose = max if self.row.more_is_better else min
        return choose(peers, key=lambda name: self.figures[name]) if peers else None


def line_of(row: Row, outcomes: dict[str, Outcome], limits: tuple[str, ...]) -> Line:
    """Return one row's line."""
    figures: dict[str, float] = {}
    troubles: dict[str, str] = {}
    for name, outcome in outcomes.items():
        values = [
            figures_of_round[row.figure] for figures_of_round in outcome.rounds if figures_of_round and row.figure in figures_of_round
        ]
        if values:
            figures[name] = median(values)
        if outcome.trouble is not None or not values:
            troubles[name] = outcome.trouble or NO_FIGURE
    return Line(row, figures, troubles, limits, _ratios(row, outcomes), _shares(row, outcomes))


def _ratios(row: Row, outcomes: dict[str, Outcome]) -> tuple[float, ...]:
    """Compare round by round: what disturbed one of the two has likely disturbed the other."""
    if row.goal is None:
        return ()
    found = []
    for number, mine in enumerate(outcomes[OURS].rounds):
        if not mine or row.figure not in mine:
            continue
        opponent = row.goal.opponent(mine)
        other = outcomes[opponent].rounds[number] if opponent else None
        value = row.goal.value(mine[row.figure], other.get(row.figure) if other else None)
        if value is not None:
            found.append(value)
    return tuple(found)


def _shares(row: Row, outcomes: dict[str, Outcome]) -> dict[str, float]:
    if row.goal is None or not row.goal.placed:
        return {}
    shares = {name: [figures[ONE_CORE_SHARE] for figures in outcome.rounds if figures] for name, outcome in outcomes.items()}
    return {name: sum(values) / len(values) for name, values in shares.items() if values}
