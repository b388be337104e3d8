"""The notebook of the examples, run by a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.examples.run import ENVIRONMENT
from tests.support import ROOT

pytestmark = pytest.mark.slow

RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"]))
"""


def test_the_notebook_runs_and_shows_what_it_tells_of() -> None:
    pytest.importorskip("nbclient")
    command = [sys.executable, "-c", RUN, str(ROOT / "examples" / "notebook.ipynb")]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    made, one, several, stopped, workers, synced, closed = json.loads(ended.stdout)
    assert made == closed == []
    assert [output.get("text") or output["data"]["text/plain"] for output in one] == ["3 x 4\n", "12"]
    assert several[-1]["data"]["text/plain"] == "[2, 4, 6]"
    printed = "".join(output["text"] for output in several[:-1])
    assert sorted(printed.splitlines()) == ["1 x 2", "2 x 2", "3 x 2"]
    assert "ran for more than its timeout of 0.2 s" in stopped[0]["text"]
    assert all("<table" in "".join(output["data"]["text/html"]) for (output,) in (workers, synced))
