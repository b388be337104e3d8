"""CPython's own executor tests pass on workq.Executor: those of the interpreters that are installed here and have them.

By default one start method, and the modules that are about the executor; with ``--cpython`` all of them under fork, spawn and forkserver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

from tests.adapters.cpython_suite import MODULES, NOT_FOR_US
from tests.support import ROOT

pytestmark = pytest.mark.slow

ALL = ("fork", "spawn", "forkserver")
SHORT = ("test_process_pool", "test_init", "test_shutdown", "test_deadlock")
DEADLINE_S = 100


def candidates() -> list[str]:
    """Return this interpreter, and those beside it that may have the tests if it has not."""
    versions = Path(sys.base_prefix).parent.glob("3.*/bin/python3")  # as pyenv lays them out
    names = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13, 14)]
    return [sys.executable, *(name for name in names if name), *map(str, sorted(versions))]


@cache
def interpreters() -> dict[str, str]:
    """Return one interpreter for each supported version that has the tests, by version."""
    found: dict[str, str] = {}
    for path in candidates():
        ask = "import sys, test.test_concurrent_futures.util; assert sys.version_info >= (3, 11); print('%d.%d.%d' % sys.version_info[:3])"
        answer = subprocess.run([path, "-c", ask], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if answer.returncode == 0:
            found.setdefault(answer.stdout.strip(), path)
    return found


def run_together(python: str, jobs: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, object]]:
    """Run modules under start methods, side by side, as they mostly sleep; return what became of each."""
    path = os.pathsep.join([str(ROOT), sysconfig.get_paths()["purelib"]])
    started = {
        (method, module): subprocess.Popen(
            [python, "-m", "tests.adapters.cpython_suite", method, f"-k{module}."],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for method, module in jobs
    }
    outcomes = {}
    for job, process in started.items():
        with process:
            try:
                stdout, stderr = process.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert stdout.strip(), f"{job}: {stderr}"
        outcomes[job] = json.loads(stdout.strip().splitlines()[-1])
    return outcomes


def test_cpythons_own_executor_tests_pass(pytestconfig: pytest.Config) -> None:
    if not interpreters():
        pytest.skip("no installed interpreter has the package test.test_concurrent_futures")
    whole = pytestconfig.getoption("--cpython")
    jobs = [(method, module) for method in (ALL if whole else ("forkserver",)) for module in (MODULES if whole else SHORT)]
    for version, python in interpreters().items():
        outcomes = run_together(python, jobs)
        bad = {name: trace for outcome in outcomes.values() for name, trace in outcome["bad"].items()}  # type: ignore[attr-defined]
        passed = sum(outcome["passed"] for outcome in outcomes.values())  # type: ignore[misc]
        print(f"Python {version}: {passed} of CPython's tests have passed on workq.Executor")
        assert bad == {}
        assert passed >= 2 * len(jobs)


def test_each_of_them_that_is_left_out_says_why() -> None:
    assert all(NOT_FOR_US.values())
