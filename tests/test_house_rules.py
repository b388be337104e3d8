"""Rules that all tests keep: they wait for things and not for times, and look at our code and not at doubles of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_neither_sleeps_nor_mocks(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep"):
            found.append(f"line {node.lineno}: sleeps")
        if isinstance(node, ast.ImportFrom | ast.Import) and "mock" in ast.unparse(node):
            found.append(f"line {node.lineno}: imports a mock library")
    assert found == []
