"""Fixtures of pytest for who uses workq: `workq_inline` and `workq_no_leftovers`. pytest finds them where workq is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def workq_inline() -> Iterator[None]:
    """Have units run in the test's own process: every WorkMgr and Executor that it makes is as one with ``num_workers=0``."""
    from workq.testing import inline

    with inline():
        yield


@pytest.fixture
def workq_no_leftovers() -> Iterator[None]:
    """Fail the test if it leaves workers behind: a queue or a controller that is not closed, an executor that is not shut down."""
    from workq.testing import Leftovers

    leftovers = Leftovers()
    yield
    lines = leftovers.found()
    leftovers.end()
    if lines:
        pytest.fail("\n  ".join(["the test has left workers of workq behind:", *lines]), pytrace=False)
