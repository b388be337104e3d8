"""Every example in the documentation runs and prints what it says; every link leads somewhere; every promise has its test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, Program, name_of, programs, run_session, sessions
from tests.support import ROOT

LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if sessions(page)], ids=name_of)
def test_the_sessions_of_a_page_print_what_it_says(page: Path) -> None:
    run_session(page)


@pytest.mark.slow
@pytest.mark.parametrize("program", [program for page in PAGES for program in programs(page)], ids=str)
def test_the_programs_of_a_page_run(program: Program) -> None:
    program.run()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_each_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text()) if "://" not in target}
    assert {name_of(page) for page in PAGES[1:] if page not in {*linked, index}} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    named = TEST.findall(page.read_text())
    missing = [f"{file}::{name}" for file, name in named if name not in functions_in(ROOT / file)]
    assert missing == []


def test_each_promise_names_a_test() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\| \*\*P\d\*\* ", line)]
    assert len(rows) == 7
    assert [row for row in rows if not TEST.search(row)] == []


def functions_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
