"""The examples for APScheduler and dask, as a user runs them."""

from __future__ import annotations

import pytest

from tests.examples.run import run_example

pytestmark = pytest.mark.slow


def test_jobs_of_apscheduler_run_in_workers_and_the_one_that_crashes_costs_itself_alone() -> None:
    pytest.importorskip("apscheduler")
    assert sorted(run_example("apscheduler_jobs").splitlines()) == [
        "report 1: 499999500000",
        "report 2: WorkerHalted",
        "report 3: 4499998500000",
    ]


def test_dask_computes_its_graphs_on_an_executor() -> None:
    pytest.importorskip("dask")
    assert run_example("dask_sums").splitlines() == ["285", "{'a': 2, 'b': 2, 'c': 1}"]
