"""The fixtures for other people's tests, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

PLUGIN = "workq.adapters.pytest_plugin"


def run_pytest(folder: Path, code: str) -> str:
    """Run a file of tests, and return what pytest says."""
    (folder / "test_it.py").write_text(textwrap.dedent(code))
    installed = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
    load = [] if installed else ["-p", PLUGIN]
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *load, "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    return ended.stdout


def test_workq_inline_has_units_run_in_the_test_itself(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import asyncio, os, pytest, workq

        ready = []

        def make_ready(value):
            ready.append(value)

        def application(n):
            "Makes its own queue, as applications do."
            with workq.WorkMgr(4) as wq:
                return wq.queue(answer, n).result()

        def answer(n):
            return n, os.getpid()

        def test_a_queue(workq_inline, monkeypatch):
            monkeypatch.setattr("test_it.answer", other_answer)
            assert application(1) == ("other", os.getpid())
            assert len(workq.workers()) == 0

        def other_answer(n):
            return "other", os.getpid()

        def test_an_executor(workq_inline):
            with workq.Executor(4, initializer=make_ready, initargs=(1,)) as executor:
                futures = [executor.submit(os.getpid) for _ in range(3)]
            assert {future.result() for future in futures} == {os.getpid()}
            assert ready == [1]

        def test_a_coroutine(workq_inline):
            async def main():
                async with workq.WorkMgr(4) as wq:
                    return await wq.queue(os.getpid)
            assert asyncio.run(main()) == os.getpid()

        def test_without_it_there_are_workers():
            assert application(1) != (1, os.getpid())
        """,
    )
    assert "4 passed" in said, said


def test_workq_no_leftovers_fails_a_test_that_leaves_workers_behind(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        """
        import pytest, time, workq

        pytestmark = pytest.mark.usefixtures("workq_no_leftovers")
        kept = []

        def test_that_closes():
            with workq.WorkMgr(1) as wq, workq.Executor(1) as executor:
                wq.queue(abs, -1)
                executor.submit(abs, -1)

        def test_that_lets_go():
            workq.WorkMgr(1).queue(abs, -1)

        def test_that_leaves_a_queue():
            wq = workq.WorkMgr(1, name="mine")
            kept.append(wq)
            wq.queue(time.sleep, 600)

        def test_that_leaves_an_executor():
            executor = workq.Executor(1)
            kept.append(executor)
            executor.submit(abs, -1).result()

        def test_that_leaves_a_controller():
            controller = workq.Controller(name="theirs")
            kept.append(controller)
            with workq.WorkMgr(1, controller=controller) as wq:
                wq.queue(abs, -1)

        def test_that_comes_afterwards():
            with workq.WorkMgr(1) as wq:
                assert wq.queue(abs, -1).result() == 1
        """,
    )
    assert "6 passed, 3 errors" in said, said
    assert "queue mine was not closed (" in said
    assert "controller workq-executor was not closed (1 worker)" in said
    assert "controller theirs was not closed (1 worker)" in said
    assert "the test has left workers of workq behind" in said
