"""The commands, and their exit codes. Data goes to stdout, all other words to stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from workq.cli import info, ps

DONE = 0
NOTHING = 1
USAGE = 2
WRONG_ENVIRONMENT = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

CODES = f"""exit codes:
  {DONE:<4} done
  {NOTHING:<4} ps: there is no process of workq on this machine
  {USAGE:<4} the command line makes no sense
  {WRONG_ENVIRONMENT:<4} info: an environment variable has a value that is not allowed
  {INTERRUPTED:<4} Ctrl-C
  {BROKEN_PIPE:<4} whoever read stdout has gone
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush says nothing
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(
        prog="python -m workq",
        description="Look at workq: what is installed, and what runs.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the same as JSON")
    commands.add_parser(
        "info", parents=[shared], help="versions, usable CPUs, effective limits, environment variables", description=info.__doc__
    )
    commands.add_parser("ps", parents=[shared], help="workq's processes on this machine", description=ps.__doc__)
    return made


def run(options: argparse.Namespace) -> int:
    """Run the command that was named."""
    if options.command == "info":
        data = info.gather()
        show(data, info.text(data, coloured()), options.json)
        for problem in data["problems"]:
            say(problem)
        return WRONG_ENVIRONMENT if data["problems"] else DONE
    return show_processes(ps.gather(), options.json)


def show_processes(applications: list[dict[str, Any]], as_json: bool) -> int:
    """Show what runs; return whether anything does, as an exit code."""
    if not applications:
        say("there is no process of workq on this machine that you may see")
    show(applications, ps.text(applications, coloured()), as_json)
    return DONE if applications else NOTHING


def show(data: Any, text: str, as_json: bool) -> None:
    """Write data to stdout."""
    if as_json:
        print(json.dumps(data, indent=2))
    elif text:
        print(text)


def say(words: str) -> None:
    """Write what is no data to stderr."""
    print(f"workq: {words}", file=sys.stderr)


def coloured() -> bool:
    """Return whether stdout shows colours, and nobody has asked for none (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
