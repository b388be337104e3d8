"""Fixtures for all rings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks import Holdings, wait_for_no_more_than


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
