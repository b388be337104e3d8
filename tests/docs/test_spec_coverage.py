"""docs/spec-coverage.md: each line of the specification names the test that proves it, and that test exists where the page says."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.support import ROOT

PAGE = ROOT / "docs" / "spec-coverage.md"
NAME = re.compile(r"`([^`]+)`")
SECTIONS = [f"Work queue, section {number}" for number in range(1, 8)] + [
    "What users of other pools ask for",
    "Worker jobs",
    "The whole manager",
    "At home in Python",
    "The heart",
]


def rows() -> list[tuple[str, list[str], list[str], str]]:
    """Return each row: the line, its tests, their files, and where it falls short."""
    found = []
    for text in PAGE.read_text().splitlines():
        if text.startswith("| ") and not text.startswith(("| line |", "| --- |")):
            line, tests, files, short = (cell.strip() for cell in text.strip("|").split(" |"))
            found.append((line, NAME.findall(tests), NAME.findall(files), short))
    return found


@functools.cache
def names_in(file: str) -> set[str]:
    """Return the names of the tests in a file, those that nobody runs left out."""
    path = ROOT / file
    if not path.exists():
        return set()
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name for node in functions if node.name.startswith("test_") and not is_skipped(node)}


def is_skipped(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(re.match(r"pytest\.mark\.(skip\b|xfail)", ast.unparse(mark)) for mark in test.decorator_list)


def test_each_line_names_a_test_that_exists_in_the_file_that_it_names() -> None:
    missing = [
        f"{line}: {file}::{test}"
        for line, tests, files, _ in rows()
        for test, file in zip(tests, files, strict=True)
        if test not in names_in(file)
    ]
    assert missing == []


def test_each_row_has_a_test_and_no_line_stands_twice_in_a_section() -> None:
    assert [line for line, tests, _, _ in rows() if not tests] == []
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    for part in parts:
        lines = [text.split(" | ")[0] for text in part.splitlines() if text.startswith("| ") and not text.startswith("| … ")]
        assert len(lines) == len(set(lines)), part.splitlines()[0]


@pytest.mark.parametrize("section", SECTIONS)
def test_each_part_of_the_specification_has_a_section_with_rows(section: str) -> None:
    parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert any(part.startswith(section) and "| `test_" in part for part in parts)


def test_each_worker_job_rule_and_each_rule_of_the_controller_has_a_row() -> None:
    lines = [line for line, *_ in rows()]
    wanted = [f"IS{number}:" for number in range(1, 20)] + [f"Rule {number}:" for number in range(1, 10)]
    assert [start for start in wanted if not any(line.startswith(start) for line in lines)] == []
