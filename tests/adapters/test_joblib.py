"""joblib on workq: what its users expect of a process backend, and joblib's own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.examples.run import run_example
from tests.support import ROOT, application

pytest.importorskip("joblib")
pytestmark = pytest.mark.slow

BEGINNING = """
    import os, sys, time
    import joblib, numpy, workq
    from joblib import Parallel, delayed, parallel_config
    from workq.adapters.joblib import register

    register()

    def pid_and_square(n):
        return os.getpid(), n * n

    def kind_and_sum(array):
        return type(array).__name__, float(array.sum())

    def die_at(n, fatal):
        if n == fatal:
            os.kill(os.getpid(), 9)
        return n

    def raise_at(n, fatal, marker=None):
        if n == fatal:
            raise LookupError(n)
        if marker:
            time.sleep(600)
        return n

    def inner(n):
        with parallel_config(backend="workq", n_jobs=2):
            return sum(Parallel()(delayed(pow)(k, 2) for k in range(n)))

    def threads():
        return os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]

    if __name__ == "__main__":
        with parallel_config(backend="workq", n_jobs=2):
"""


def session(code: str) -> list[str]:
    """Run lines under the backend and return what they print."""
    lines = "\n".join("            " + line for line in code.strip().splitlines())
    ended = application(BEGINNING + lines + "\n")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_results_are_in_order_and_computed_by_other_processes() -> None:
    said = session("""
rows = Parallel()(delayed(pid_and_square)(n) for n in range(2000))
print([square for _, square in rows] == [n * n for n in range(2000)])
print(os.getpid() in {pid for pid, _ in rows}, len({pid for pid, _ in rows}) <= 2)
print(Parallel()(delayed(lambda n: n + 1)(n) for n in range(3)))
""")
    assert said == ["True", "False True", "[1, 2, 3]"]


def test_workers_stay_warm_between_calls() -> None:
    said = session("""
first = {pid for pid, _ in Parallel(batch_size=1)(delayed(pid_and_square)(n) for n in range(50))}
second = {pid for pid, _ in Parallel(batch_size=1)(delayed(pid_and_square)(n) for n in range(50))}
print(len(first | second) <= 2)
""")
    assert said == ["True"]


def test_generators_come_in_order_or_as_they_end() -> None:
    said = session("""
print(list(Parallel(return_as="generator")(delayed(pow)(n, 2) for n in range(5))))
print(sorted(Parallel(return_as="generator_unordered")(delayed(pow)(n, 2) for n in range(5))))
""")
    assert said == ["[0, 1, 4, 9, 16]"] * 2


def test_large_arrays_are_memory_maps_in_the_workers_and_their_files_go() -> None:
    said = session("""
arrays = [numpy.full(5000, n) for n in range(3)]
print(Parallel(max_nbytes=1000)(delayed(kind_and_sum)(array) for array in arrays))
print(Parallel(max_nbytes=None)(delayed(kind_and_sum)(array) for array in arrays))
back = Parallel(max_nbytes=1000)(delayed(numpy.negative)(array) for array in arrays)
print([type(array).__name__ for array in back], [float(array.sum()) for array in back])
print([name for name in os.listdir("/dev/shm") if f"_{os.getpid()}_" in name])
""")
    assert said == [
        "[('memmap', 0.0), ('memmap', 5000.0), ('memmap', 10000.0)]",
        "[('ndarray', 0.0), ('ndarray', 5000.0), ('ndarray', 10000.0)]",
        "['ndarray', 'ndarray', 'ndarray'] [0.0, -5000.0, -10000.0]",
        "[]",
    ]


def test_a_dead_worker_fails_its_own_call_and_the_next_call_runs() -> None:
    said = session("""
import concurrent.futures.process
try:
    Parallel(batch_size=1)(delayed(die_at)(n, 3) for n in range(8))
except concurrent.futures.process.BrokenProcessPool as error:
    print(type(error).__name__, "SIGKILL" in str(error))
print(Parallel()(delayed(die_at)(n, None) for n in range(3)))
""")
    assert said == ["WorkerHalted True", "[0, 1, 2]"]


def test_an_error_aborts_what_still_runs() -> None:
    said = session("""
begun = time.monotonic()
try:
    Parallel(batch_size=1)(delayed(raise_at)(n, 1, "sleep") for n in range(4))
except LookupError as error:
    print(error, time.monotonic() - begun < 60)
print([row.unit for row in workq.workers() if row.unit not in ("", "-", None)])
""")
    assert said == ["1 True", "[]"]


def test_a_time_out_is_joblibs() -> None:
    said = session("""
try:
    Parallel(timeout=0.05, batch_size=1)(delayed(time.sleep)(600) for n in range(4))
except TimeoutError as error:
    print("timed out")
except Exception as error:
    print(type(error).__module__, type(error).__name__)
""")
    assert said[0] in ("timed out", "multiprocessing.context TimeoutError")


def test_a_call_inside_a_unit_takes_workers_of_the_same_pool() -> None:
    said = session("""
wq = workq.WorkMgr(2)
print(wq.queue(inner, 4).result(), list(wq.map(inner, [2, 3, 4, 5])))
wq.close()
""")
    assert said == ["14 [1, 5, 14, 30]"]


def test_numeric_libraries_get_their_share_of_threads() -> None:
    said = session("""
from joblib import cpu_count
with parallel_config(backend="workq", n_jobs=2, inner_max_num_threads=3):
    print(set(Parallel()(delayed(threads)() for _ in range(4))))
print(set(Parallel()(delayed(threads)() for _ in range(4))) == {(str(max(cpu_count() // 2, 1)),) * 2})
""")
    assert said == ["{('3', '3')}", "True"]


def test_what_cannot_be_pickled_is_told_at_once() -> None:
    said = session("""
import pickle
try:
    Parallel()(delayed(id)(open(os.devnull)) for _ in range(2))
except pickle.PicklingError as error:
    print(type(error).__name__, error)
""")
    assert said[0].startswith("PicklingError the task to send cannot be pickled")


def test_a_manager_of_multiprocessing_can_be_used_by_workers_that_were_there_before_it() -> None:
    said = session("""
wq = workq.WorkMgr(1)
wq.queue(abs, 1).result()
import multiprocessing
with multiprocessing.Manager() as manager:
    numbers = manager.list()
    wq.queue(numbers.append, 7).result()
    print(list(numbers))
wq.close()
""")
    assert said == ["[7]"]


def test_the_grid_search_of_the_examples_runs_on_workers() -> None:
    pytest.importorskip("sklearn")
    said = run_example("grid_search")
    assert re.match(r"best: {'C': \d+, 'gamma': [\d.]+}, right in 9\d% of the images\n", said)
    assert 2 <= said.count("worker_") <= 4  # each of the two may have a stand-in while it is judged to wait, and no more than that


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs")
QUICK = (
    "test_simple_parallel or test_parallel_kwargs or test_parallel_as_context_manager or test_error_capture or test_error_in_task_iterator"
    " or test_dispatch_one_job or test_dispatch_multiprocessing or test_batching_auto_subprocesses or test_nested_exception_dispatch"
    " or test_parallel_pickling or test_parallel_timeout or test_auto_memmap_on_arrays_from_generator or test_deadlock_with_generator"
    " or test_parallel_unordered_generator_returns_fastest_first or test_abort_backend or test_memmapping_leaks"
    " or test_initializer_parallel"
)


def test_joblibs_own_tests_pass(request: pytest.FixtureRequest) -> None:
    """A choice of them; ``--whole-suites`` runs all."""
    whole = request.config.getoption("--whole-suites")
    chosen = ["joblib.test.test_memmapping"] if whole else ["-k", f"loky and ({QUICK})"]
    ended = subprocess.run(
        [*PYTEST, "-p", "tests.adapters.joblib_suite", "--pyargs", "joblib.test.test_parallel", *chosen],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=os.environ["TMPDIR"],
        capture_output=True,
        text=True,
        timeout=900 if whole else 110,
    )
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert passed
    assert int(passed[1]) >= (600 if whole else 30), ended.stdout[-300:]
