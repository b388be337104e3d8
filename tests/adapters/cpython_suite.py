"""CPython's own tests of ProcessPoolExecutor, run on workq.Executor.

``python -m tests.adapters.cpython_suite fork spawn forkserver`` imports the package ``test.test_concurrent_futures`` of the interpreter
that runs it, puts workq's executor in the place of the other one, and prints one line of JSON: what became of each test.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import json
import re
import sys
import threading
import unittest
from collections.abc import Iterator
from typing import Any

import workq
from tests.support import ROOT

PACKAGE = "test.test_concurrent_futures"
MODULES = ("test_process_pool", "test_init", "test_shutdown", "test_deadlock", "test_wait", "test_as_completed")

INTERNALS = "looks into ProcessPoolExecutor's own parts: "
NOT_BROKEN = "the departure: a pool is not broken; "
NOT_FOR_US = {  # what of a test's name, and why it is left out
    "test_killed_child": NOT_BROKEN + "it asks that submit() fails after a child was killed",
    "test_error_at_task_unpickle": NOT_BROKEN + "what cannot be read in the worker is the call's own error, and names it",
    "test_exit_at_task_unpickle": NOT_BROKEN + "what cannot be read in the worker is the call's own error, and names it",
    "test_error_during_result_unpickle_in_result_handler": NOT_BROKEN + "what cannot be read here is a ResultError of the one call",
    "test_exit_during_result_unpickle_in_result_handler": NOT_BROKEN + "what cannot be read here is a ResultError of the one call",
    "test_saturation": INTERNALS + "counts processes while calls wait that cannot be pickled",
    "test_processes_terminate": INTERNALS + "counts processes while calls wait that cannot be pickled",
    "test_python_finalization_error": INTERNALS + "fails the start of the second of its threads",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": INTERNALS + "replaces its thread and its pipe",
    "test_max_tasks_per_child_defaults_to_spawn_context": INTERNALS + "a default; workq's own launcher never forks a program with threads",
    "test_max_workers_too_large": "on Windows only",
    "test_hang_gh83386": "left out by its own words for process pools: it hangs there",
}


class Process:
    """A worker, as those tests look at the processes of a pool."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def join(self) -> None:
        from tests.support import wait_gone

        wait_gone(self.pid)


class CallQueue:
    """Nothing: calls go straight to the workers."""

    def join_thread(self) -> None: ...


class ProcessPoolExecutor(workq.Executor):
    """workq's executor, with those inner parts that can be asked of it."""

    @property
    def _processes(self) -> dict[int, Process]:
        return {row.pid: Process(row.pid) for row in self.work_queue.workers() if row.pid}

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        thread = self.work_queue.controller.running().thread
        assert thread is not None
        return thread

    _call_queue = CallQueue()


def in_its_place(code: str) -> str:
    """Return a program of the tests with workq's executor in it."""
    imports = re.sub(r"from concurrent\.futures import ProcessPoolExecutor\b", "from workq import Executor as ProcessPoolExecutor", code)
    return f"import sys\nsys.path[:0] = {[str(ROOT), *extra_path()]!r}\n{imports}"


def extra_path() -> list[str]:
    """Return the folders in which this process has found what workq needs."""
    return [folder for folder in sys.path if folder.endswith("site-packages")]


def substitute() -> list[Any]:
    """Put our executor in the place of the other one; return the tests' modules."""
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc]
    concurrent.futures.process._RemoteTraceback = workq.RemoteTraceback  # type: ignore[assignment,misc]
    modules = [__import__(f"{PACKAGE}.{name}", fromlist=[name]) for name in MODULES]
    shutdown = modules[MODULES.index("test_shutdown")]
    original = shutdown.assert_python_ok
    shutdown.assert_python_ok = lambda option, code: original(option, in_its_place(code))
    return modules


def chosen(suite: Any, contexts: set[str]) -> Iterator[Any]:
    """Yield the tests of process pools of these start methods."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, contexts)
        elif context_of(test) in contexts:
            yield test


def context_of(test: Any) -> str | None:
    """Return the start method that a test is for, if it is for processes."""
    if type(test).__name__ == "FailingInitializerResourcesTest":
        return str(test._testMethodName).removeprefix("test_")
    return getattr(test, "ctx", None)


def main(contexts: set[str], wanted: str = "") -> int:
    """Run them; return 0 where all that apply have passed."""
    suite = unittest.TestSuite()
    left_out: dict[str, str] = {}
    for module in substitute():
        for test in chosen(unittest.defaultTestLoader.loadTestsFromModule(module), contexts):
            why = NOT_FOR_US.get(test._testMethodName)
            if wanted not in test.id():
                continue
            if why is None:
                suite.addTest(test)
            else:
                left_out[test.id()] = why
    text = sys.stderr
    result = unittest.TextTestRunner(stream=text, verbosity=2, durations=8 if sys.version_info >= (3, 12) else None).run(suite)  # type: ignore[call-arg]
    bad = {test.id(): trace for test, trace in (*result.errors, *result.failures)}
    skipped = {test.id(): why for test, why in result.skipped}
    print()  # the tests have printed on this line
    print(
        json.dumps(
            {
                "run": result.testsRun,
                "passed": result.testsRun - len(bad) - len(skipped),
                "bad": bad,
                "skipped": skipped,
                "left_out": left_out,
            }
        )
    )
    return 1 if bad or result.unexpectedSuccesses else 0


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if not name.startswith("-k")]
    sys.exit(main(set(names), "".join(name[2:] for name in sys.argv[1:] if name.startswith("-k"))))
