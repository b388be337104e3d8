"""Runs on paper: what was measured is kept in a file, row by row, so that a run can be gone on with, and parts be joined."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.results import Line, line_of
from tests.bench.rows import ROWS
from tests.bench.runner import Outcome, Outcomes
from tests.bench.workloads import WORKLOADS


@dataclass
class Measured:
    """All that is known: the outcomes of each workload, and of each run that they come from what it ran on.

    Attributes:
        outcomes: By workload, by contender.
        parts: For each run: the machine, its rounds, and under ``workloads`` what was measured in it and not again since.
    """

    outcomes: Outcomes = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, about: dict[str, Any]) -> None:
        """A run begins."""
        self.parts.append({**about, "workloads": []})

    def add(self, workload: str, outcomes: dict[str, Outcome]) -> None:
        """The run that has begun last has measured this."""
        self._forget(workload)
        self.outcomes[workload] = outcomes
        self.parts[-1]["workloads"].append(workload)

    def join(self, other: Measured) -> None:
        """Take over what another run has measured. Where both have, the other's is taken: it may have been made to replace ours."""
        for workload in other.outcomes:
            self._forget(workload)
        self.outcomes |= other.outcomes
        self.parts += other.parts

    def _forget(self, workload: str) -> None:
        for part in self.parts:
            part["workloads"] = [name for name in part["workloads"] if name != workload]

    def lines(self) -> list[Line]:
        """Return the lines of the rows that were measured, in the order of the table."""
        return [
            line_of(row, self.outcomes[row.workload], tuple(WORKLOADS[row.workload].limits))
            for row in ROWS
            if row.workload in self.outcomes
        ]

    def about(self) -> str:
        """Return what the figures depend on, a line for each run."""
        parts = [part for part in self.parts if part["workloads"]]
        if len(parts) == 1:
            return about(parts[0])
        return "\n".join(f"{about(part)}: {', '.join(part['workloads'])}" for part in parts)

    def write(self, path: Path) -> None:
        """Write everything, in one step: whoever reads the file meanwhile, or finds it after a crash, finds the old one or the new one."""
        rounds = {name: {who: asdict(outcome) for who, outcome in row.items()} for name, row in self.outcomes.items()}
        text = json.dumps({"parts": self.parts, "rows": [_row(line) for line in self.lines()], "rounds": rounds}, indent=1) + "\n"
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        os.replace(new, path)


def read(paths: Iterable[Path]) -> Measured:
    """Return what the runs in these files have measured, the later ones before the earlier ones. Raises ValueError where one is none."""
    measured = Measured()
    for path in paths:
        try:
            text = json.loads(path.read_text())
            rounds = {name: {who: Outcome(**outcome) for who, outcome in row.items()} for name, row in text["rounds"].items()}
            measured.join(Measured({name: row for name, row in rounds.items() if name in WORKLOADS}, text["parts"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} holds no run of this benchmark: {error}") from error
    return measured


def about(part: dict[str, Any]) -> str:
    """Return what the figures of one run depend on."""
    text = "Python {python}, {cores} cores, {processor}; {rounds} rounds, load before {load_before:.1f}".format(**part)
    return text + ("; quick sizes: no figures to quote" if part["quick"] else "")


def missing(workloads: Sequence[str], measured: Measured) -> list[str]:
    """Return the workloads that have to be measured yet."""
    return [name for name in workloads if name not in measured.outcomes]


def _row(line: Line) -> dict[str, Any]:
    return {
        **asdict(line.row),
        "goal_text": str(line.row.goal or ""),
        "median": line.figures,
        "ratio": line.ratio,
        "ratios": line.ratios,
        "met": line.met,
    }
