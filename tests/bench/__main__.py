"""Measure, and print the table. It always ends well: a goal that is missed is shown, and is no failure."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.bench import mechanisms, picture, report, runner
from tests.bench.results import line_of
from tests.bench.rows import ROWS
from tests.bench.scale import calibrate
from tests.bench.workloads import WORKLOADS


def main() -> None:
    """Read the command line, measure what it asks for, and show it."""
    options = _parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not at once: what is being measured must be ended first
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    loops_per_ms = calibrate()
    about = {**report.machine(), "rounds": options.rounds, "quick": options.quick, "loops_per_ms": loops_per_ms}
    if options.mechanisms:
        _show_mechanisms(options, about)
        return
    workloads = list(dict.fromkeys(row.workload for row in rows))
    outcomes = runner.run(workloads, options.rounds, options.quick, loops_per_ms, _tell)
    lines = [line_of(row, outcomes[row.workload], tuple(WORKLOADS[row.workload].limits)) for row in rows]
    print(f"\n{_about(about)}\n\n{report.table(lines)}", end="")
    if options.page:
        shown = os.path.relpath(options.svg, options.page.parent) if options.svg else ""
        text = f"{_about(about)}\n\n{report.table(lines)}"
        options.page.write_text(report.with_table(options.page.read_text(), text, picture=shown))
    if options.json:
        options.json.write_text(report.as_json(lines, outcomes, about))
    if options.svg:
        options.svg.write_text(picture.svg(lines))


def _show_mechanisms(options: argparse.Namespace, about: dict[str, Any]) -> None:
    effects = mechanisms.measure(options.rounds, options.quick, about["loops_per_ms"], _tell)
    text = f"{_about(about)}\n\n{mechanisms.table(effects)}"
    print(f"\n{text}", end="")
    if options.page:
        options.page.write_text(report.with_table(options.page.read_text(), text, report.MECHANISMS_MARK))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run.py", description="workq beside its peers and the machine's limits")
    parser.add_argument("--rounds", type=_count, default=5, help="how often each is measured (default 5); medians are shown")
    parser.add_argument("--only", action="append", metavar="ROW", choices=[row.name for row in ROWS], help="this row; may be repeated")
    parser.add_argument("--mechanisms", action="store_true", help="instead: workq as it is beside workq without each of its mechanisms")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not for figures to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page, in place of the one that it has")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _about(about: dict[str, Any]) -> str:
    text = "Python {python}, {cores} cores, {processor}; {rounds} rounds, load before {load_before:.1f}".format(**about)
    return text + ("; quick sizes: no figures to quote" if about["quick"] else "")


if __name__ == "__main__":
    main()
