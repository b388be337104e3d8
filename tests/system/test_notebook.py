"""In a notebook, run by a real kernel: tables are HTML, and what units print and log shows in the cell that waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import workq
from tests.support import DEADLINE_S, ROOT, wait_until

pytestmark = pytest.mark.slow

CELLS = [
    """
import logging, workq
logging.basicConfig(format="%(levelname)s %(message)s")

def speak(number):
    print("printed", number)
    logging.warning("logged %d", number)
    workq.progress(0.5, "half")
    return number

wq = workq.WorkMgr(2, name="<night>")
unit = wq.queue(speak, 1)
unit.result()
""",
    "unit = wq.queue(speak, 2)\nstatistics = wq.sync()",
    "list(wq.map(speak, [3], progress=True))",
    "wq.queue(speak, 4)\nwq.sync(progress=True)",
    "unit",
    "wq",
    "wq.workers()",
    "wq.metrics()",
    "wq.close()",
]
RUN = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)])
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


@pytest.fixture(scope="module")
def outputs() -> list[list[dict]]:
    answer = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(CELLS),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found: list[list[dict]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def streams(cell: list[dict], name: str) -> str:
    return "".join(output["text"] for output in cell if output["output_type"] == "stream" and output["name"] == name)


@pytest.mark.parametrize("cell", [0, 1, 2, 3])
def test_what_units_print_and_log_shows_in_the_cell_that_waits(outputs: list[list[dict]], cell: int) -> None:
    assert streams(outputs[cell], "stdout") == f"printed {cell + 1}\n"
    assert f"WARNING logged {cell + 1}\n" in "".join(streams(each, "stderr") for each in outputs)
    if cell != 0:  # result() does not wait for log records, sync() and what comes after it do
        assert f"logged {cell + 1}" in "".join(streams(each, "stderr") for each in outputs[cell:])


def test_a_bar_is_one_output_of_its_cell(outputs: list[list[dict]]) -> None:
    for cell, what in ((2, "speak: 1/1 (100 %)"), (3, "<night>: 1/1 (100 %)")):
        (shown,) = [output["data"]["text/plain"] for output in outputs[cell] if output["output_type"] == "display_data"]
        assert what in shown
        assert streams(outputs[cell], "stderr").replace(f"WARNING logged {cell + 1}\n", "") == ""


@pytest.mark.parametrize(("cell", "words"), [(3, "uncollected"), (4, "speak"), (5, "uncollected"), (6, "pid"), (7, "units_done")])
def test_tables_are_html_and_escaped(outputs: list[list[dict]], cell: int, words: str) -> None:
    (data,) = [output["data"] for output in outputs[cell] if output["output_type"] == "execute_result"]
    assert data["text/html"].startswith("<table>")
    assert words in data["text/html"]
    assert "<night>" not in data["text/html"]
    assert ("&lt;night&gt;" in data["text/html"]) or cell in (6, 7)  # the worker may have left the queue meanwhile
    assert words in data["text/plain"] or cell == 5


def test_a_unit_that_failed_shows_what_it_raised_as_html() -> None:
    with workq.WorkMgr(0) as wq:
        unit = wq.queue(int, "<b>")
        assert isinstance(unit.exception(DEADLINE_S), ValueError)
        assert "ValueError: invalid literal for int() with base 10: &#x27;&lt;b&gt;&#x27;" in unit._repr_html_()


def test_the_repr_of_a_queue_says_what_there_is_to_do() -> None:
    wq = workq.WorkMgr(2, name="night")
    assert repr(wq) == "<WorkMgr night: nothing to do, 0 of 2 workers>"
    wq.queue(abs, 1).result(DEADLINE_S)
    wait_until(lambda: repr(wq) in ("<WorkMgr night: nothing to do, 1 of 2 workers>", "<WorkMgr night: nothing to do, 0 of 2 workers>"))
    wq.close()
    assert repr(wq) == "<WorkMgr night: closed>"
    with workq.WorkMgr(0, name="here") as inline:
        inline.queue(abs, 1)
        assert repr(inline) == "<WorkMgr here: 1 unit to do, no workers>"
