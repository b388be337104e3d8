"""A census of Python's standard library: parse every file of it, each in a unit of its own, and say what is in there.

Some thousand real files, some of them broken on purpose. With ``--kill-workers`` a busy worker is killed every 200 ms meanwhile (three
times at most over the same file), and the table of contents is still the same: what a worker was doing when it died is done again, and
nothing else is touched.

Exit codes: 0 all was read, 1 a file is missing in the table, 2 wrong command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import random
import signal
import sys
import sysconfig
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import workq

KILL_EVERY_S = 0.2
KILLS_OF_ONE = 3  # then that file is spared: a large one takes longer than a worker is left to live
RETRIES = 100
HALTS_SHOWN = 3


class Function(NamedTuple):
    """Where a function is, and how long."""

    lines: int
    name: str
    file: str
    line: int


class Contents(NamedTuple):
    """What is in one file; where it does not parse, only why."""

    lines: int = 0
    functions: int = 0
    longest: Function | None = None
    broken: str = ""


class Census(NamedTuple):
    """What is in all of them. It does not depend on how they were read."""

    files: int
    lines: int
    functions: int
    longest: Function | None
    broken: dict[str, str]  # files that do not parse, and why
    lost: dict[str, str]  # files whose unit failed, and why; there should be none


# -- in the workers


def parse(folder: str, name: str) -> Contents:
    """Parse one file. That it cannot be parsed, or decoded, is worth knowing, and no failure of the unit."""
    source = Path(folder, name).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes and the like
            tree = ast.parse(source, name)
    except (SyntaxError, ValueError, RecursionError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return Contents(broken=f"{getattr(error, 'msg', error)}{where}")
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = [Function((node.end_lineno or node.lineno) - node.lineno + 1, node.name, name, node.lineno) for node in functions]
    return Contents(source.count(b"\n"), len(functions), max(sizes, key=in_order, default=None))


# -- in the parent


def main() -> int:
    """Read the command line, take the census, print it."""
    options = command_line()
    names = python_files(options.folder)
    halts: list[workq.Halt] = []
    begin = time.monotonic()
    with workq.WorkMgr(options.workers, name="census") as wq:
        wq.controller.on_halt(halts.append)
        stop_killing = kill_workers(wq) if options.kill_workers else None
        try:
            again = wq.options(retries=workq.Retry(options.retries, crashes=options.retries + 1))
            units = {again.queue(parse, options.folder, name): name for name in names}
            for done, _ in enumerate(wq.as_completed(), 1):
                show_progress(done, len(units))
        finally:
            if stop_killing:
                stop_killing()
        took_s = time.monotonic() - begin
        census = count(units)
        workers = {unit.worker.process_info_id for unit in units if unit.worker} | {halt.process_info_id for halt in halts}
        report = print_json if options.json else print_tables
        report(census, len(units) / took_s, len(workers), halts, wq.statistics())
    return 1 if census.lost else 0


def command_line() -> argparse.Namespace:
    """Describe the options and read them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, metavar="N", help="how many worker processes at most (default: one for each usable CPU)")
    parser.add_argument("--kill-workers", action="store_true", help="kill a busy worker with SIGKILL every 200 ms")
    parser.add_argument("--retries", type=int, metavar="N", default=RETRIES, help="how often a file may be begun again (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--folder", default=sysconfig.get_path("stdlib"), help="what to read (default: this Python's standard library)")
    return parser.parse_args()


def python_files(folder: str) -> list[str]:
    """Return the names of all Python files below a folder, but for what was installed into it."""
    installed = {"site-packages", "dist-packages"}
    found = (path.relative_to(folder) for path in Path(folder).rglob("*.py"))
    return sorted(str(path) for path in found if not installed & set(path.parts))


def count(units: dict[workq.Unit, str]) -> Census:
    """Add up what the units found."""
    lost = {name: str(unit.exception()) for unit, name in units.items() if unit.exception()}
    found = {name: unit.result() for unit, name in units.items() if name not in lost}
    return Census(
        files=len(units),
        lines=sum(contents.lines for contents in found.values()),
        functions=sum(contents.functions for contents in found.values()),
        longest=max((contents.longest for contents in found.values() if contents.longest), key=in_order, default=None),
        broken={name: contents.broken for name, contents in found.items() if contents.broken},
        lost=lost,
    )


def in_order(function: Function) -> tuple[int, str, int]:
    """Order functions by length; where two are as long as each other, their place decides, not chance."""
    return function.lines, function.file, function.line


def kill_workers(wq: workq.WorkMgr) -> Callable[[], None]:
    """Kill one busy worker every 200 ms, in a thread, but none for the same file again and again; return what stops it."""
    stop = threading.Event()

    def kill() -> None:
        hit = Counter[str | None]()
        while not stop.wait(KILL_EVERY_S):
            busy = [row for row in wq.workers() if row.state == "active" and hit[row.unit] < KILLS_OF_ONE]
            if busy:
                victim = random.choice(busy)
                hit[victim.unit] += 1
                with contextlib.suppress(ProcessLookupError):  # it has ended since we looked
                    os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, name="killer")
    killer.start()

    def end() -> None:
        stop.set()
        killer.join()

    return end


# -- what is shown


def show_progress(done: int, total: int, width: int = 40) -> None:
    """Draw a bar, where there is a terminal to draw it on."""
    if not sys.stderr.isatty() or (done < total and done % 10):
        return
    bar = "#" * (width * done // total)
    sys.stderr.write(f"\r[{bar:<{width}}] {done}/{total}" + ("\r\033[K" if done == total else ""))
    sys.stderr.flush()


def end_of_bar() -> None:
    """Leave the bar's line, where there is one, so that the prompt stands on its own."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


def print_tables(census: Census, rate: float, workers: int, halts: list[workq.Halt], statistics: workq.QueueStatistics) -> None:
    """Print all of it for people."""
    longest = census.longest
    rows = [
        ("files", f"{census.files:,}"),
        ("lines", f"{census.lines:,}"),
        ("functions", f"{census.functions:,}"),
        ("longest function", f"{longest.name}, {longest.lines:,} lines, {longest.file}:{longest.line}" if longest else "-"),
        ("files that do not parse", f"{len(census.broken):,}"),
        *((f"  {name}", reason) for name, reason in census.broken.items()),
    ]
    if census.lost:
        rows += [("files that were lost", f"{len(census.lost):,}"), *((f"  {name}", why) for name, why in census.lost.items())]
    print_rows(rows)
    print_rows([("units per second", f"{rate:,.0f}"), ("workers used", f"{workers:,}"), ("  halted, of these", f"{len(halts):,}")])
    print_halts(halts)
    print(statistics)


def print_halts(halts: list[workq.Halt]) -> None:
    """Print how the first few workers have ended, and count the others by their reasons."""
    for halt in halts[:HALTS_SHOWN]:
        print(f"  {halt}".splitlines()[0])
    others = Counter(halt.why() for halt in halts[HALTS_SHOWN:])
    if others:
        print(f"  ... and {others.total()} more: {', '.join(f'{number} by {why}' for why, number in others.most_common())}")
    if halts:
        print()


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print rows in two columns, and an empty line."""
    width = max(len(row[0]) for row in rows)
    for left, right in rows:
        print(f"{left:<{width}}  {right}")
    print()


def print_json(census: Census, rate: float, workers: int, halts: list[workq.Halt], statistics: workq.QueueStatistics) -> None:
    """Print all of it for programs."""
    data = census._asdict() | {"longest": census.longest and census.longest._asdict()}
    run: dict[str, object] = {"units_per_second": round(rate, 1), "workers_used": workers, "halts": [str(halt) for halt in halts]}
    run["statistics"] = statistics.as_dict()
    print(json.dumps({"census": data, "run": run}, indent=2))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt as interrupt:
        end_of_bar()
        print("; ".join(["interrupted", *getattr(interrupt, "__notes__", ())]), file=sys.stderr)
        sys.exit(130)
