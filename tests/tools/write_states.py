"""Write docs/states.md from the tables in workq/core/states.py, or say (``--check``) that it is out of date.

The meaning of a state is the comment beside it in the source: it is written once, where whoever changes the state sees it.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from pathlib import Path

from workq.core import states
from workq.core.states import UNIT_ENDS, UNIT_MOVES, WORKER_MOVES, UnitState, WorkerState

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"
MEMBER = re.compile(r"^    (?P<name>[A-Z_]+) = \".*\"  # (?P<meaning>.+)$")

HEAD = """# States

Written by `python -m tests.tools.write_states` from the tables in `workq/core/states.py`; a test fails when this page is out of date.
A state changes by a move of its table or not at all. Anything else is a bug and raises `IllegalMove`.
"""


def meanings(machine: type[Enum]) -> dict[str, str]:
    """Return what the source says about each state of one machine."""
    source = Path(states.__file__).read_text(encoding="utf-8")
    body = source.split(f"class {machine.__name__}(Enum):")[1].split("\n\n\n")[0]
    return {match["name"]: match["meaning"] for line in body.splitlines() if (match := MEMBER.match(line))}


def moves_of(machine: type[Enum]) -> list[tuple[Enum, str, Enum]]:
    table = WORKER_MOVES if machine is WorkerState else UNIT_MOVES
    return [(before, move, after) for (before, move), after in table.items()]


def ends_of(machine: type[Enum]) -> list[Enum]:
    """Return the ends of one machine, in the order of its definition."""
    return [state for state in machine if state is WorkerState.GONE or state in UNIT_ENDS]


def table_of_states(machine: type[Enum]) -> str:
    meaning = meanings(machine)
    rows = [f"| {state.value} | {meaning[state.name]} |" for state in machine]
    return "\n".join(["| state | what is true in it |", "| --- | --- |", *rows])


def table_of_moves(machine: type[Enum]) -> str:
    rows = [f"| {before.value} | {move} | {after.value} |" for before, move, after in moves_of(machine)]
    return "\n".join(["| from | move | to |", "| --- | --- | --- |", *rows])


def diagram(machine: type[Enum]) -> str:
    lines = [f"    {state.name} : {state.value}" for state in machine]
    lines.append(f"    [*] --> {next(iter(machine)).name}")
    lines += [f"    {before.name} --> {after.name} : {move}" for before, move, after in moves_of(machine)]
    lines += [f"    {state.name} --> [*]" for state in ends_of(machine)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def page() -> str:
    parts = [HEAD]
    for title, machine in (("Workers", WorkerState), ("Units", UnitState)):
        parts += [f"## {title}\n", table_of_states(machine) + "\n", diagram(machine) + "\n", table_of_moves(machine) + "\n"]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page; with ``--check`` return 1 if it is out of date, and write nothing."""
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is out of date: python -m tests.tools.write_states", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
