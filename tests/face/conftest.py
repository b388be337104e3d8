"""The face, on real processes: one controller for each module, and no module may leave anything behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import workq
from tests.leaks import Holdings, wait_for_no_more_than


@pytest.fixture(scope="module")
def controller() -> Iterator[workq.Controller]:
    before = Holdings.now()
    with workq.Controller(name="face") as made:
        yield made
    wait_for_no_more_than(before)


@pytest.fixture(params=[2, 0], ids=["workers", "inline"])
def wq(request: pytest.FixtureRequest, controller: workq.Controller) -> Iterator[workq.WorkMgr]:
    """A queue with workers, and one without: what holds in one holds in the other."""
    queue = workq.WorkMgr(request.param, name="face", controller=controller)
    yield queue
    queue.close()


@pytest.fixture
def busy(controller: workq.Controller) -> Iterator[workq.WorkMgr]:
    """A queue with workers, which has little patience."""
    queue = workq.WorkMgr(2, name="face", delete_timeout=0.1, controller=controller)
    yield queue
    queue.close()
