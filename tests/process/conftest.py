"""Every test here must leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.leaks import Holdings, wait_for_no_more_than
from tests.process.harness import Pool


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = Holdings.now()
    yield
    wait_for_no_more_than(before)


@pytest.fixture
def pool(nothing_left_behind: None) -> Iterator[Pool]:
    with Pool() as one:
        yield one
