"""Measure, and print the table. It always ends well: a goal that is missed is shown, and is no failure."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.bench import mechanisms, picture, report, runner, saved
from tests.bench.rows import ROWS
from tests.bench.scale import calibrate


def main() -> None:
    """Read the command line, measure what it asks for, and show it."""
    parser = _parser()
    options = parser.parse_args()
    try:
        measured = saved.read(path for path in options.resume if path.exists() or path != options.json)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not at once: what is being measured must be ended first
    about = {**report.machine(), "rounds": options.rounds, "quick": options.quick, "loops_per_ms": calibrate()}
    if options.mechanisms:
        _measure_mechanisms(options, about)
    else:
        _measure_rows(options, about, measured)


def _measure_rows(options: argparse.Namespace, about: dict[str, Any], measured: saved.Measured) -> None:
    """Measure what is not known yet. The file gets each row when it is there; page and picture get all of them, however the run ends."""
    wanted = [] if options.join else [row for row in ROWS if not options.only or row.name in options.only]
    workloads = list(dict.fromkeys(row.workload for row in wanted))
    measured.begin(about)
    try:
        runs = runner.run(
            saved.missing(workloads, measured), options.rounds, options.quick, about["loops_per_ms"], _tell, options.row_minutes * 60
        )
        for workload, outcomes in runs:
            measured.add(workload, outcomes)
            if options.json:
                measured.write(options.json)
    finally:
        _show_rows(options, measured)


def _show_rows(options: argparse.Namespace, measured: saved.Measured) -> None:
    lines = measured.lines()
    text = f"{measured.about()}\n\n{report.table(lines)}"
    print(f"\n{text}", end="")
    if options.json:
        measured.write(options.json)
    if options.page:
        shown = os.path.relpath(options.svg, options.page.parent) if options.svg else ""
        options.page.write_text(report.with_table(options.page.read_text(), text, picture=shown))
    if options.svg:
        options.svg.write_text(picture.svg(lines))


def _measure_mechanisms(options: argparse.Namespace, about: dict[str, Any]) -> None:
    """Measure all mechanisms; the page gets them after each round."""
    text = ""
    for effects in mechanisms.measure(options.rounds, options.quick, about["loops_per_ms"], _tell, options.mechanism_minutes * 60):
        about["rounds"] = max(len(effect.figures) for effect in effects)
        text = f"{saved.about(about)}\n\n{mechanisms.table(effects)}"
        if options.page:
            options.page.write_text(report.with_table(options.page.read_text(), text, report.MECHANISMS_MARK))
    print(f"\n{text}", end="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests/bench/run.py", description="workq beside its peers and the machine's limits")
    parser.add_argument("--rounds", type=_count, default=5, help="how often each is measured (default 5); medians are shown")
    parser.add_argument("--only", action="append", metavar="ROW", choices=[row.name for row in ROWS], help="this row; may be repeated")
    parser.add_argument("--mechanisms", action="store_true", help="instead: workq as it is beside workq without each of its mechanisms")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not for figures to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds, after each row")
    resume = "take over what this file has, and measure the rest only; may be repeated: the later file counts"
    parser.add_argument("--resume", type=Path, metavar="FILE", action="append", default=[], help=resume)
    parser.add_argument("--join", action="store_true", help="measure nothing: only show what the files of --resume have")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the table into this page, in place of the one that it has")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture")
    longest = "begin nothing more of a row after so long (default %(default)g); its goal gets one round at least"
    parser.add_argument("--row-minutes", type=float, default=6.0, metavar="N", help=longest)
    parser.add_argument(
        "--mechanism-minutes", type=float, default=7.0, metavar="N", help="the same for all mechanisms (default %(default)g)"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
