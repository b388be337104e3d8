"""The pandas example, as a user runs it."""

from __future__ import annotations

import pytest

from tests.examples.run import run_example

pytestmark = pytest.mark.slow


def test_each_group_is_computed_and_the_broken_one_is_named() -> None:
    pytest.importorskip("pandas")
    *table, failed = run_example("pandas_groups").splitlines()
    assert table[0].split() == ["slope", "start", "spread"]
    assert len(table) == 4
    assert failed == "sensor 13: ValueError: this one is broken"
