"""Fixtures for all rings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks import Holdings, wait_for_no_more_than


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor, shared memory or file behind (``usefixtures`` in a ring's conftest)."""
    before = Holdings.now()
    yield
    wait_for_no_more_than(before)
