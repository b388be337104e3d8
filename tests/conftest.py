"""Options, fixtures and the temporary folder for all rings."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tests.leaks import Holdings, wait_for_no_more_than


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--schedules", type=int, default=10_000, help="how many schedules the simulation runs (10000)")
    parser.getgroup("cpython").addoption(
        "--cpython", action="store_true", help="run CPython's own executor tests whole: each module, under fork, spawn and forkserver"
    )
    group.addoption("--seed", type=int, default=None, help="repeat the one schedule of this seed")
    group = parser.getgroup("adapters")
    group.addoption("--whole-suites", action="store_true", help="run all that applies of the suites of others, and not a choice")


def pytest_collection_finish() -> None:
    """Have the collector look no more at what the collected tests are made of: it took a seventh of the whole run."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Give this run, and the programs that it starts, a temporary folder of its own: what lies in it is nobody else's.

    It goes at the end, with each `tmp_path`; who wants to look at those says ``--basetemp``.
    """
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    folder = tempfile.mkdtemp(prefix="workq-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder

    def go_back() -> None:
        os.environ.pop("TMPDIR")
        if before[0] is not None:
            os.environ["TMPDIR"] = before[0]
        tempfile.tempdir = before[1]
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(go_back)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell; what we start would inherit it,
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and the tests of Ctrl-C would wait for what never comes


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor, shared memory or file behind.

    The default controller is closed first: it is meant to live as long as the process, and the next test gets a new one.
    """
    import workq

    before = Holdings.now()
    yield
    workq.Controller.default().close()
    wait_for_no_more_than(before)
