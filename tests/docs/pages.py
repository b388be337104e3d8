"""Find and run the examples in the documentation.

A ``pycon`` block is a session: all sessions of a page are one, typed into one interpreter, and what they print is compared.
A ``python`` block is a whole program: it runs as a script of its own and has to end well. Where a ``text`` block follows it at once,
that is what it prints. In both, ``...`` stands for anything. All other blocks are for people only.
"""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import DEADLINE_S, ROOT, application

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Runs in an interpreter whose __main__ has no file, as in a terminal; the session is its stdin.
SESSION = """
import doctest, sys
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), vars(), sys.argv[1], sys.argv[1], 0)
failed = doctest.DocTestRunner(optionflags=flags).run(test, clear_globs=False).failed
sys.exit(1 if failed else 0)
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A ``python`` block, and what it has to print (None: anything)."""

    page: Path
    line: int
    code: str
    prints: str | None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    def run(self) -> None:
        ended = application(self.code)
        assert ended.returncode == 0, f"{self} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        if self.prints is not None:
            same = doctest.OutputChecker().check_output(self.prints, ended.stdout, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert same, f"{self} should print\n{self.prints}\nbut it printed\n{ended.stdout}\n{ended.stderr}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def sessions(page: Path) -> str:
    """Return all sessions of a page as one, with the line numbers of the page."""
    text = page.read_text()
    lines: list[str] = []
    for match in BLOCK.finditer(text):
        if match[1] == "pycon":
            first = text.count("\n", 0, match.start(2))
            lines += [""] * (first - len(lines))
            lines += match[2].splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def programs(page: Path) -> list[Program]:
    """Return the programs of a page."""
    text = page.read_text()
    found = []
    blocks = list(BLOCK.finditer(text))
    for match, after in zip(blocks, [*blocks[1:], None], strict=False):
        if match[1] == "python":
            follows = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
            found.append(Program(page, text.count("\n", 0, match.start()) + 1, match[2], after[2] if follows and after else None))
    return found


def run_session(page: Path) -> None:
    """Type a page's sessions into a fresh interpreter."""
    answer = subprocess.run(
        [sys.executable, "-c", SESSION, name_of(page)],
        input=sessions(page),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
