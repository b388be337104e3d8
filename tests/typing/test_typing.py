"""Type hints carry through: mypy (strict) and pyright (strict) refuse the same wrong calls, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

CALLS = Path(__file__).with_name("calls.py")


def expected() -> set[int]:
    """Return the numbers of the lines that must be refused."""
    return {number for number, line in enumerate(CALLS.read_text().splitlines(), 1) if line.endswith("# error")}


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=110).stdout


def test_mypy_refuses_the_wrong_calls_and_nothing_else(tmp_path: Path) -> None:
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    said = run(sys.executable, "-m", "mypy", "--strict", "--output=json", f"--cache-dir={tmp_path}", "--config-file=", str(CALLS))
    told = [json.loads(line) for line in said.splitlines()]
    refused = {found["line"] for found in told if found["severity"] == "error" and found["file"].endswith(CALLS.name)}
    assert refused == expected(), said


def test_pyright_refuses_the_wrong_calls_and_nothing_else(tmp_path: Path) -> None:
    if find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed")
    settings = tmp_path / "pyrightconfig.json"
    settings.write_text(json.dumps({"include": [str(CALLS)], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}))
    said = json.loads(run(sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(settings), "--pythonpath", sys.executable))
    refused = {found["range"]["start"]["line"] + 1 for found in said["generalDiagnostics"] if found["severity"] == "error"}
    assert refused == expected(), said["generalDiagnostics"]
